// @ts-check
/**
 * Which latents of an SAE fire on a text, token by token, strongest first. `npm run demo` makes such an SAE.
 *
 *   node examples/features-of-a-text.js [SAE_DIRECTORY] [TEXT]
 */
import { fileURLToPath } from "node:url";
import { Device, HookedTransformer, hookForSae, Sae } from "monosem";

const [directory = "demo-output/sae", text = "The king said that he would not go."] = process.argv.slice(2);

const device = await Device.open("auto");
const model = await HookedTransformer.load(fileURLToPath(new URL("../assets/tiny-gpt2", import.meta.url)), device);
const sae = await Sae.load(directory, device);
const tokens = [model.config.bosTokenId ?? 0, ...model.tokenizer.encode(text)];

const activations = await model.activations([tokens], hookForSae(model, sae));
const { rowOffsets, features, values } = await sae.encode(activations).read();

tokens.forEach((token, position) => {
  if (model.tokenizer.specialTokenIds.has(token)) return; // an SAE trained without BOS has nothing to say about it
  const active = [];
  for (let entry = rowOffsets[position] ?? 0; entry < (rowOffsets[position + 1] ?? 0); entry++) {
    active.push({ latent: features[entry] ?? 0, value: values[entry] ?? 0 });
  }
  active.sort((a, b) => b.value - a.value);
  const strongest = active.slice(0, 5).map(({ latent, value }) => `${latent} (${value.toFixed(2)})`);
  console.log(`${JSON.stringify(model.tokenizer.tokenText(token)).padEnd(14)} ${strongest.join("  ")}`);
});

await device.close();
