// @ts-check
/**
 * Changes what flows through a language model while it runs: a layer's MLP is taken out (how much worse does the model
 * predict?), and the residual stream is pushed from "boy" towards "girl" (which word does it expect next?).
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

// 2. Steering: what the end of a text about a girl has that the end of one about a boy has not, added to another text.
const layer = "blocks.2.hook_resid_post";

/** @param {string} start */
async function lastActivation(start) {
  const tokens = withBos(start);
  const activations = await model.activations([tokens], layer);
  return kernels.sliceRows(activations, tokens.length - 1, 1);
}

const girl = await lastActivation("The little girl went to the park with her mom. Then");
const boy = await lastActivation("The little boy went to the park with his mom. Then");
const direction = kernels.add(girl, boy, { scale: -1 }).reshape([dModel]);
const prompt = withBos("The child was happy, because");

for (const strength of [-2, 0, 2]) {
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
  const percent = [" she", " he"].map((word) => {
    const [token = 0] = model.tokenizer.encode(word);
    return `${word} ${(100 * (probabilities[token] ?? 0)).toFixed(1)}%`;
  });
  console.log(`steered by ${strength}: "The child was happy, because" ...${percent.join(",")}`);
}

await device.close();
