// @ts-check
/**
 * Hooks a language model and reads what flows through it: the norm of the residual stream after every layer, token by
 * token.
 *
 *   node examples/read-a-cache.js [TEXT]
 */
import { fileURLToPath } from "node:url";
import { Device, HookedTransformer } from "monosem";

const text = process.argv[2] ?? "The man said that he was happy.";

const device = await Device.open("auto");
const model = await HookedTransformer.load(fileURLToPath(new URL("../assets/tiny-gpt2", import.meta.url)), device);
const tokens = [model.config.bosTokenId ?? 0, ...model.tokenizer.encode(text)];
const names = model.hookNames.filter((name) => name.endsWith("hook_resid_post"));

const { cache } = await model.runWithCache([tokens], { names });

/** @type {Float32Array[]} */
const norms = [];
for (const activation of cache.values()) {
  const rows = activation.reshape([tokens.length, model.config.dModel]);
  norms.push(await device.kernels.rowNorms(rows).readFloat32());
}

console.log(["".padEnd(12), ...names.map((name) => name.padStart(26))].join(""));
tokens.forEach((token, position) => {
  const columns = norms.map((layer) => (layer[position] ?? 0).toFixed(2).padStart(26));
  console.log([JSON.stringify(model.tokenizer.tokenText(token)).padEnd(12), ...columns].join(""));
});

await device.close();
