// @ts-check
/**
 * Changes what flows through a language model while it runs: a layer's MLP is taken out (how much worse does the model
 * predict?), the residual stream is pushed from "boy" towards "girl" (which word comes next?), and, with an SAE, latents
 * are turned up while the model writes. `npm run demo` makes such an SAE.
 *
 *   node examples/steer-and-ablate.js [SAE_DIRECTORY LATENT]
 */
import { fileURLToPath } from "node:url";
import { Device, HookedTransformer, interventions, Sae, singleToken, textScores } from "monosem";

const [saeDirectory, latent] = process.argv.slice(2);
const device = await Device.open("auto");
const { kernels } = device;
const model = await HookedTransformer.load(fileURLToPath(new URL("../assets/tiny-gpt2", import.meta.url)), device);

// 1. Ablation: the mean cross-entropy of a text, whole and with one MLP replaced by zeros.
const text = "Once upon a time there was a little girl. She was very happy and loved to play with her friends.";
const tokens = model.promptTokens(text);

/** @param {readonly import("monosem").NamedHook[]} [hooks] */
async function meanLoss(hooks = []) {
  const losses = await (await model.loss(tokens, { hooks })).readFloat32();
  return losses.reduce((sum, loss) => sum + loss, 0) / (losses.length - 1);
}

console.log(`loss            ${(await meanLoss()).toFixed(3)} nats per token`);
for (let layer = 0; layer < model.config.nLayers; layer++) {
  const name = `blocks.${layer}.hook_mlp_out`;
  const loss = await meanLoss([{ name, hook: (activation) => device.zeros(activation.shape) }]);
  console.log(`without MLP ${layer}   ${loss.toFixed(3)}`);
}

// 2. Steering: what the end of a text about a girl has that the end of one about a boy has not, added to another text.
const layer = "blocks.2.hook_resid_post";
const prompt = "The child was happy, because";

/** @param {string} start */
async function lastActivation(start) {
  const activations = await model.activations(model.promptTokens(start), layer);
  return kernels.sliceRows(activations, (activations.shape[0] ?? 0) - 1, 1);
}

const girl = await lastActivation("The little girl went to the park with her mom. Then");
const boy = await lastActivation("The little boy went to the park with his mom. Then");
const direction = kernels.add(girl, boy, { scale: -1 }).reshape([model.config.dModel]);

/** @param {readonly import("monosem").NamedHook[]} hooks */
async function nextWords(hooks) {
  const percents = [" she", " he"].map(async (word) => {
    const token = singleToken(model.tokenizer, word);
    const [probability = 0] = await textScores(model, { kind: "probability", token }, { hooks })([prompt]);
    return `${word} ${(100 * probability).toFixed(1)}%`;
  });
  return `"${prompt}" ...${(await Promise.all(percents)).join(",")}`;
}

for (const scale of [-2, 0, 2]) {
  const hook = /** @type {import("monosem").Hook} */ ((activation) => kernels.addRow(activation, direction, { scale }));
  console.log(`steered by ${scale}: ${await nextWords([{ name: layer, hook }])}`);
}

// 3. The same with a direction that an SAE has found, everywhere but at BOS, also while the model writes.
if (saeDirectory !== undefined) {
  const sae = await Sae.load(saeDirectory, device);
  for (const add of [0, 6]) {
    // The hooks count positions: each run has its own.
    const hooks = () => interventions(model, sae, [{ latent: Number(latent), add }], { positions: (at) => at > 0 });
    console.log(`latent ${latent} plus ${add}: ${await nextWords(hooks())}`);
    const [written = []] = await model.generate(prompt, { maxNewTokens: 24, temperature: 0.8, hooks: hooks() });
    console.log(`  ${JSON.stringify(model.tokenizer.decode(written.slice(1)))}`);
  }
}

await device.close();
