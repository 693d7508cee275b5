// @ts-check
/**
 * Trains an SAE on a file of activations whose true features are known, and looks whether it finds them.
 *
 *   node examples/train-on-activations.js [OUTPUT_DIRECTORY]
 */
import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Device, parseConfig, StoredActivations, Trainer, writeSafetensors } from "monosem";

const dIn = 16;
const trueFeatures = 24;
const dSae = 48;
const rows = 20_000;

const output = process.argv[2] ?? (await mkdtemp(join(tmpdir(), "monosem-example-")));
const device = await Device.open("auto");
const { kernels } = device;

// Every activation vector is the sum of two out of 24 directions in 16 dimensions: more features than dimensions.
let state = 1;
function random() {
  state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
  return state / 2 ** 32;
}
const randomVectors = Float32Array.from({ length: trueFeatures * dIn }, () => random() + random() + random() - 1.5);
const directions = kernels.normaliseRows(device.tensor(randomVectors, [trueFeatures, dIn]));
const activeRows = new Float32Array(rows * trueFeatures);
for (let row = 0; row < rows; row++) {
  for (let i = 0; i < 2; i++) activeRows[row * trueFeatures + Math.floor(random() * trueFeatures)] = 1 + random();
}
const activations = await kernels
  .linear(device.tensor(activeRows, [rows, trueFeatures]), kernels.transpose(directions))
  .readFloat32();
const file = join(output, "activations.safetensors");
await writeSafetensors(file, { activations: { shape: [rows, dIn], data: activations } });

// The file is all that the training sees.
const source = await StoredActivations.open(file, device, { shuffle: true, seed: 0 });
const config = parseConfig({
  sae: { architecture: "topk", dIn, dSae, k: 2, auxK: 8, deadAfterTokens: 20_000 },
  data: { activations: file },
  training: { batchSize: 512, steps: 600, lr: 3e-3, logEvery: 200 },
  output: join(output, "run"),
});
const trainer = await Trainer.create({ ...config, source, device });
for await (const { step, explainedVariance, l0 } of trainer.run()) {
  console.log(`step ${step}: explained variance ${explainedVariance.toFixed(3)}, L0 ${l0.toFixed(2)}`);
}

// Each true direction should have a latent that points the same way.
const { decoder } = trainer.sae.parameters;
const cosines = await kernels.linear(directions, kernels.normaliseRows(decoder)).readFloat32();
const best = Array.from({ length: trueFeatures }, (_, feature) =>
  Math.max(...cosines.subarray(feature * dSae, (feature + 1) * dSae)),
);
const found = best.filter((cosine) => cosine > 0.95).length;
console.log(`${found} of ${trueFeatures} true features were found (cosine above 0.95)`);
console.log(`the SAE is in ${join(config.output, "sae")}`);

source.dispose();
await device.close();
