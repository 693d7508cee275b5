// @ts-check
/**
 * Every latent of an SAE that fires on a text: a folder of HTML pages to click through, and the same for Neuronpedia.
 *
 *   node examples/write-a-report.js [SAE_DIRECTORY] [OUTPUT] [CORPUS...]
 *
 * `npm run demo` makes such an SAE; without a corpus the model writes the text itself.
 */
import { existsSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import {
  Corpus,
  collectFeatures,
  contexts,
  Device,
  featureSummary,
  HookedTransformer,
  latentsInModel,
  recordPrompt,
  Sae,
  writeNeuronpedia,
  writeReportFolder,
} from "monosem";

const [directory = "demo-output/sae", output = "report", ...files] = process.argv.slice(2);
if (!existsSync(directory)) {
  console.error(`${directory} does not exist: run \`npm run demo\` first, or name an SAE`);
  process.exit(1);
}
const CONTEXT = { contextSize: 64, prependBos: true };
const PROMPTS = ["The king said that he would go home.", "She was happy, because her mother gave her a ball."];

const device = await Device.open("auto");
const model = await HookedTransformer.load(fileURLToPath(new URL("../assets/tiny-gpt2", import.meta.url)), device);
const sae = await Sae.load(directory, device);
const { nLayers, dModel, dMlp, name } = model.config;
const { hookName } = sae.metadata;
const layer = Number(/^blocks\.(\d+)\./.exec(hookName ?? "")?.[1]);

const corpus = files.length > 0 ? await Corpus.fromFiles(files) : Corpus.fromDocuments(await writtenByTheModel());
const { statistics, metrics } = await collectFeatures({
  sae,
  model,
  contexts: contexts(corpus, model.tokenizer, CONTEXT),
  allowMismatch: true, // the contexts are shorter than those of the training
});
const prompts = [];
for (const prompt of PROMPTS) prompts.push(await recordPrompt({ sae, model, prompt }));

/** @type {import("monosem").FeatureReport} */
const report = {
  title: `What ${name} has in mind`,
  facts: [["SAE", directory]],
  summary: featureSummary({ statistics, metrics }),
  densities: statistics,
  // In the order of their numbers; `rankLatents` puts those first that are easy to understand.
  latents: [...statistics.firingCounts.keys()].filter((latent) => statistics.firingCounts[latent] !== 0),
  latent: latentsInModel({ statistics, sae, model }),
  prompts,
  tokenText: (id) => model.tokenizer.tokenText(id),
};

await mkdir(output, { recursive: true });
await writeReportFolder(join(output, "pages"), report);
const source = await writeNeuronpedia(join(output, "neuronpedia"), report, {
  model: { id: name, layers: nLayers, dimension: dModel, neuronsPerLayer: dMlp },
  layer,
  hookName: hookName ?? "",
  sourceSet: `res-${sae.config.dSae}`,
  description: `SAEs of ${name}`,
  creatorName: "monosem",
  contexts: statistics.contexts,
  contextSize: CONTEXT.contextSize,
  dataset: "text that the model wrote",
});
console.log(`${report.latents.length} of ${statistics.dSae} latents fire on ${statistics.tokens} tokens`);
console.log(`pages: ${join(output, "pages", "index.html")}`);
console.log(`for Neuronpedia: ${source}`);
await device.close();

async function writtenByTheModel() {
  const starts = Array.from({ length: 64 }, () => [model.config.bosTokenId ?? 0]);
  const texts = await model.generate(starts, { maxNewTokens: 127, temperature: 0.8, seed: 0 });
  return texts.map((ids) => model.tokenizer.decode(ids.slice(1)));
}
