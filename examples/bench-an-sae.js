// @ts-check
/**
 * Two of SAEBench's evaluations from a program: which words a few latents tell apart (sparse probing), and whether other
 * latents take first letters over from the main ones (absorption), which this small model cannot spell well enough for.
 *
 *   node examples/bench-an-sae.js [SAE_DIRECTORY] [OUTPUT_FILE]
 *
 * `npm run demo` makes such an SAE. The file is SAEBench's, as its readers and plots take it.
 */

import { randomUUID } from "node:crypto";
import { existsSync } from "node:fs";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import {
  benchText,
  Device,
  evaluateAbsorption,
  evaluateSparseProbing,
  HookedTransformer,
  Sae,
  saeBenchResult,
  sparseProbingResult,
} from "monosem";

const [directory = "demo-output/sae", output] = process.argv.slice(2);
if (!existsSync(directory)) {
  console.error(`${directory} does not exist: run \`npm run demo\` first, or name an SAE`);
  process.exit(1);
}
const SHAPE = { contextSize: 64, prependBos: true };

const device = await Device.open("auto");
const model = await HookedTransformer.load(fileURLToPath(new URL("../assets/tiny-gpt2", import.meta.url)), device);
const sae = await Sae.load(directory, device);

const starts = ["One day the", "The little", "Then the", "A happy", "The old"];
const ends = ["went home", "was very happy", "saw a dog", "said no", "ran away", "had a red ball"];
const texts = starts.flatMap((start) =>
  ends.flatMap((end) =>
    ["girl", "boy", "king"].map((label) => ({ text: `${start} ${label} ${end}`, label, type: undefined })),
  ),
);
const probed = await evaluateSparseProbing({ sae, model, ...SHAPE, datasets: [{ name: "people", texts }] });
for (const { label, llm, saeTop, latents } of probed[0]?.classes ?? []) {
  const one = (100 * (saeTop.get(1) ?? 0)).toFixed(1);
  console.log(
    `${label.padEnd(5)} latent ${latents[0]} alone ${one}%, all that the SAE reads ${(100 * llm).toFixed(1)}%`,
  );
}
const setting = { modelName: model.config.name, contextSize: SHAPE.contextSize, seed: 42 };
const result = saeBenchResult(sparseProbingResult(probed, setting), {
  saeName: directory,
  cfg: JSON.parse(await readFile(join(directory, "cfg.json"), "utf8")),
  id: randomUUID(),
  time: new Date(),
  madeBy: "bench-an-sae.js",
});
if (output !== undefined) await writeFile(output, JSON.stringify(result, undefined, 2));

const absorption = await evaluateAbsorption({ sae, model, ...SHAPE, words: 400 });
const { letters, lettersFound, spellingAccuracy } = absorption;
const rate = (letters ?? []).reduce((sum, { meanFraction }) => sum + meanFraction, 0) / (letters?.length ?? 1);
console.log(
  letters === undefined
    ? `absorption: probes find ${lettersFound} of 26 letters, the model spells ${(100 * spellingAccuracy).toFixed(1)}% of words: no numbers`
    : `absorption: ${(100 * rate).toFixed(1)}% of first letters`,
);

process.stdout.write(`\n${benchText([{ sae: directory, evaluation: "sparse-probing", result }])}`);
await device.close();
