// @ts-check
/**
 * Changes what flows through a language model while it runs: a layer's MLP is taken out (how much worse does the model
 * predict?), and the residual stream is pushed from "sad" towards "happy" (what does it say next?).
 *
 *   node examples/steer-and-ablate.js
 */
import { fileURLToPath } from "node:url";
import { Device, HookedTransformer } from "monosem";

const device = await Device.open("auto");
const { kernels } = device;
const model = await HookedTransformer.load(fileURLToPath(new URL("../assets/tiny-gpt2", import.meta.url)), device);
const { bosTokenId = 0, nLayers, vocabularySize, dModel } = model.config;

/** @param {string} text */
const withBos = (text) => [bosTokenId, ...model.tokenizer.encode(text)];

// 1. Ablation: the mean cross-entropy of a text, whole and with one MLP replaced by zeros.
const text = withBos(
  "Once upon a time there was a little girl. She was very happy and loved to play with her friends.",
);

/** @param {Parameters<typeof model.forward>[1]} options */
async function meanLoss(options) {
  const logits = await model.forward([text.slice(0, -1)], options);
  const rows = logits.reshape([text.length - 1, vocabularySize]);
  const losses = await kernels
    .crossEntropy(rows, device.tensor(Int32Array.from(text.slice(1)), [text.length - 1]))
    .readFloat32();
  return losses.reduce((sum, loss) => sum + loss, 0) / losses.length;
}

console.log(`loss            ${(await meanLoss({})).toFixed(3)} nats per token`);
for (let layer = 0; layer < nLayers; layer++) {
  const name = `blocks.${layer}.hook_mlp_out`;
  const loss = await meanLoss({ hooks: [{ name, hook: (activation) => device.zeros(activation.shape) }] });
  console.log(`without MLP ${layer}   ${loss.toFixed(3)}`);
}

// 2. Steering: the difference of two words' activations, added to every position.
const layer = "blocks.1.hook_resid_post";

/** @param {string} word */
async function lastActivation(word) {
  const tokens = withBos(word);
  const activations = await model.activations([tokens], layer);
  return kernels.sliceRows(activations, tokens.length - 1, 1);
}

const direction = kernels
  .add(await lastActivation(" happy"), await lastActivation(" sad"), { scale: -1 })
  .reshape([dModel]);
const prompt = withBos("The boy was very");

for (const strength of [0, 2, 4]) {
  const logits = await model.forward([prompt], {
    hooks: [
      {
        name: layer,
        hook: (activation) => {
          const rows = activation.reshape([prompt.length, dModel]);
          return kernels.addRow(rows, direction, { scale: strength }).reshape(activation.shape);
        },
      },
    ],
  });
  const last = kernels.sliceRows(logits.reshape([prompt.length, vocabularySize]), prompt.length - 1, 1);
  const probabilities = await kernels.softmaxRows(last).readFloat32();
  const likeliest = Array.from(probabilities.keys()).sort((a, b) => (probabilities[b] ?? 0) - (probabilities[a] ?? 0));
  const words = likeliest.slice(0, 6).map((token) => JSON.stringify(model.tokenizer.tokenText(token)));
  console.log(`steered by ${strength}: The boy was very ... ${words.join(" ")}`);
}

await device.close();
