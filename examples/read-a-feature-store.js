// @ts-check
/**
 * All that one pass over a text has found of every latent of an SAE, written into a folder and read back latent by latent.
 * `npm run demo` makes such an SAE, and text to run it on: any text file will do.
 *
 *   node examples/read-a-feature-store.js [SAE_DIRECTORY] [TEXT_FILE] [STORE_DIRECTORY] [LATENT]
 */
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { buildFeatureStore, Corpus, Device, FeatureStore, HookedTransformer, Sae } from "monosem";

const [directory = "demo-output/sae", file = "stories.txt", folder = "features", chosen] = process.argv.slice(2);
const missing = [directory, file].find((path) => !existsSync(path));
if (missing !== undefined) {
  const remedy = missing === directory ? "run `npm run demo` first, or name an SAE" : "name a text file";
  console.error(`${missing} does not exist: ${remedy}`);
  process.exit(1);
}

const device = await Device.open("auto");
const model = await HookedTransformer.load(fileURLToPath(new URL("../assets/tiny-gpt2", import.meta.url)), device);
const sae = await Sae.load(directory, device);
const { contextSize = 64, prependBos = true } = sae.metadata;

// Interrupted, it would go on where it was; finished, it is only opened.
const corpus = await Corpus.fromFiles([file]);
const built = await buildFeatureStore(folder, {
  sae,
  model,
  corpus,
  contextSize,
  prependBos,
  tokens: 20_000,
  resume: true,
});
await built.close();
await device.close();

// From here on neither the model nor the SAE is needed.
const store = await FeatureStore.open(folder);
const { summary } = store;
console.log(`${summary.identity.dSae} latents, ${summary.tokens} tokens, ${summary.deadLatents} never fire`);

const mostActive = summary.firingCounts.indexOf(Math.max(...summary.firingCounts));
const latent = await store.latent(Number(chosen ?? summary.ranking[0] ?? mostActive));
console.log(
  `latent ${latent.latent} fires on ${(100 * latent.density).toFixed(2)}% of tokens, at most ${latent.maxActivation.toFixed(2)}`,
);

/** @param {{ tokens: Int32Array, peak: number }} example */
const shown = ({ tokens, peak }) => {
  const text = Array.from(tokens, (token, index) =>
    index === peak ? `[${store.tokenText(token)}]` : store.tokenText(token),
  );
  return JSON.stringify(text.join(""));
};
for (const example of latent.examples.slice(0, 3)) console.log(`  ${example.activation.toFixed(2)}  ${shown(example)}`);
for (const { low, high, share, examples } of latent.quantiles) {
  console.log(
    `${(100 * share).toFixed(0)}% of its activations in (${low}, ${high}], such as ${shown(/** @type {any} */ (examples[0]))}`,
  );
}
const list = (/** @type {readonly { token: number }[]} */ tokens) =>
  tokens.map(({ token }) => JSON.stringify(store.tokenText(token))).join(" ");
console.log(`most often on     ${list(latent.tokens)}`);
console.log(`raises            ${list(latent.logits?.raised ?? [])}`);
console.log(
  `fires together with ${latent.coActive.map((one) => `${one.latent} (${(100 * one.overlap).toFixed(0)}%)`).join(", ")}`,
);
console.log(
  `writes like         ${latent.neighbours.map((one) => `${one.latent} (${one.cosine.toFixed(2)})`).join(", ")}`,
);
console.log(`highest on average in documents ${latent.documents.map(({ document }) => document).join(", ")}`);

await store.close();
