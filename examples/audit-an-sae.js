// @ts-check
/**
 * Can the latents of an SAE be relied on? An audit of one, of a copy of it in which some latents stand twice, and what the
 * audit says of the difference.
 *
 *   node examples/audit-an-sae.js [SAE_DIRECTORY] [CORPUS...]
 *
 * `npm run demo` makes such an SAE; the corpus is several .txt files, or .jsonl.
 */
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { auditSae, auditText, Corpus, contexts, Device, HookedTransformer, limitTokens, Sae } from "monosem";

const [directory = "demo-output/sae", ...files] = process.argv.slice(2);
if (!existsSync(directory)) {
  console.error(`${directory} does not exist: run \`npm run demo\` first, or name an SAE`);
  process.exit(1);
}
if (files.length === 0) {
  console.error("name text to run the SAE on, after the SAE: .txt or .jsonl files");
  process.exit(1);
}
const SHAPE = { contextSize: 64, prependBos: true };
const COPIES = 10;

const device = await Device.open("auto");
const model = await HookedTransformer.load(fileURLToPath(new URL("../assets/tiny-gpt2", import.meta.url)), device);
const sae = await Sae.load(directory, device);

/** @type {Int32Array[]} */
const texts = [];
for await (const tokens of limitTokens(contexts(await Corpus.fromFiles(files), model.tokenizer, SHAPE), 3000)) {
  texts.push(tokens);
}

const sections = await auditSae({
  sae,
  model,
  contexts: texts,
  ...SHAPE,
  topics: ["consistency", "counterfactuals", "effects", "firing"],
});
process.stdout.write(auditText({ title: `Audit of ${directory}`, facts: [], sections }, { width: 100 }));

// The same SAE with copies of its first latents in place of its last ones.
const { dSae, dIn } = sae.config;
/** @param {import("monosem").Tensor} rows */
async function withCopies(rows) {
  const values = await rows.readFloat32();
  const width = values.length / dSae;
  values.copyWithin((dSae - COPIES) * width, 0, COPIES * width);
  return device.tensor(values, rows.shape);
}
const parameters = { ...sae.parameters };
for (const name of ["encoder", "decoder", "encoderBias"]) {
  const rows = parameters[name];
  if (rows !== undefined) parameters[name] = await withCopies(rows);
}
const copied = new Sae(sae.config, parameters, device, sae.metadata);

console.log();
for (const [name, one] of /** @type {const} */ ([
  ["as it is", sae],
  ["with copies", copied],
])) {
  const [overlap] = await auditSae({ sae: one, model, contexts: texts, ...SHAPE, topics: ["overlap"] });
  const duplicates = overlap?.figures.find((figure) => figure.name.startsWith("decoder rows with one"));
  console.log(
    `${name.padEnd(12)} ${Math.round((duplicates?.value ?? 0) * dSae)} of ${dSae} latents have a near duplicate`,
  );
}
console.log(`(an SAE of ${dIn} dimensions; ${COPIES} latents were copied)`);

await device.close();
