// @ts-check
/**
 * Which latents of an SAE fire on a text, token by token, strongest first. `npm run demo` makes such an SAE.
 *
 *   node examples/features-of-a-text.js [SAE_DIRECTORY] [TEXT]
 */
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { Device, HookedTransformer, Sae, textFeatures } from "monosem";

const [directory = "demo-output/sae", text = "The king said that he would not go."] = process.argv.slice(2);
if (!existsSync(directory)) {
  console.error(`${directory} does not exist: run \`npm run demo\` first, or name an SAE`);
  process.exit(1);
}

const device = await Device.open("auto");
const model = await HookedTransformer.load(fileURLToPath(new URL("../assets/tiny-gpt2", import.meta.url)), device);
const sae = await Sae.load(directory, device);

for (const { text: token, latents } of await textFeatures({ sae, model, text })) {
  const strongest = latents.map(({ latent, value }) => `${latent} (${value.toFixed(2)})`);
  console.log(`${JSON.stringify(token).padEnd(14)} ${strongest.join("  ")}`);
}

await device.close();
