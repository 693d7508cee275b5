// @ts-check
/**
 * How to add an SAE architecture: AbsTopK, written against the library's public interface alone, trained on activations
 * whose true features are known, saved and loaded again.
 *
 *   node examples/abs-topk.js [OUTPUT_DIRECTORY]
 *
 * AbsTopK ("Rethinking Sparse Autoencoders For Bidirectional Features", arXiv:2510.00404) keeps the k pre-activations of
 * largest magnitude with their signs, so that one latent can stand for a direction and its opposite:
 *
 *     z = W_enc (x - b_dec) + b_enc       f = z where |z| is among the k largest of its token, else 0
 *     x̂ = f W_dec + b_dec                 loss = |x̂ - x|²
 */
import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  Device,
  defineArchitecture,
  parseConfig,
  positiveInteger,
  registerArchitecture,
  Sae,
  StoredActivations,
  Trainer,
  writeSafetensors,
} from "monosem";

// 1. The architecture: what it is called, what it has, how it encodes, and the gradient of its loss.

const absTopk = defineArchitecture({
  name: "abstopk",
  // What encoding needs, in a configuration file and in a saved SAE. What only training needs goes to trainingOptions.
  // The library has positiveInteger, naturalNumber, positive and nonNegative; any other kind is a type of zod's, as these
  // are: `npm install zod`.
  options: { k: positiveInteger.describe("Latents per token.") },
  trainingOptions: {},
  // Besides encoder [dSae, dIn], decoder [dSae, dOut] and decoderBias [dOut], which every SAE has; latents: [dSae].
  parameters: { encoderBias: { shape: "latents", initial: 0, savedAs: "b_enc" } },
  initialDecoderNorm: 1,
  decoderUnitNorm: true,
  // SAELens has this architecture under the same name, and so can load what is saved here.
  saved: { name: "abstopk", keys: ({ k }) => ({ k, rescale_acts_by_decoder_norm: false }) },
  check: ({ k, dSae }) => (k > dSae ? [["k", `must be at most dSae (${dSae})`]] : []),

  // Matrix product, bias and selection in one pass. `input` is x - b_dec already, where the configuration asks for it.
  // Whatever handles `encode` makes besides its result, it disposes; in a training step `keep` does that.
  encode: ({ kernels, parameters: p, options }, input) =>
    kernels.encode(input, p.encoder, p.encoderBias, { select: "topk", k: options.k, by: "magnitude" }),

  // The loss scale of the library: summed over the output's dimensions, averaged over the tokens of a batch. Gradients
  // are stated per selected entry, never as matrices of size [tokens, dSae]; the optimizer makes the rows from them.
  gradients({ device, kernels, parameters: p, codes, target, tokens, keep }) {
    const squaredError = keep(device.zeros([1], "f64"));
    const residual = keep(kernels.decode(codes, p.decoder, { bias: p.decoderBias, target, squaredError })); // x̂ - x
    const scale = 2 / tokens; // dLoss/dx̂ = 2/N (x̂ - x)
    // df/dz = 1 for what is selected, whatever its sign, so dLoss/dz = dLoss/df = 2/N (x̂ - x) . W_dec,i
    const dPreActivations = keep(kernels.decodeGradient(codes, p.decoder, residual, { scale }));
    return {
      losses: { reconstruction: { sum: squaredError, scale: 1 / tokens } },
      residual,
      decoderPaths: [{ codes, dOutput: residual, scale, throughDecoderBias: true }],
      encoderPaths: [{ codes, dPreActivations, bias: "encoderBias" }],
    };
  },
});

// From here on configurations and saved folders can name it. In a module of its own it serves the command line, too:
//     NODE_OPTIONS="--import ./abs-topk.mjs" npx monosem train run.json
registerArchitecture(absTopk);

// 2. Something to train on: sums of three out of 24 directions in 16 dimensions, each forwards or backwards.

const dIn = 16;
const trueFeatures = 24;
const dSae = 32;
const rows = 20_000;
const output = process.argv[2] ?? (await mkdtemp(join(tmpdir(), "monosem-example-")));
const device = await Device.open("auto");
const { kernels } = device;

let state = 1;
function random() {
  state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
  return state / 2 ** 32;
}
const randomVectors = Float32Array.from({ length: trueFeatures * dIn }, () => random() + random() + random() - 1.5);
const directions = kernels.normaliseRows(device.tensor(randomVectors, [trueFeatures, dIn]));
const magnitudes = new Float32Array(rows * trueFeatures);
for (let row = 0; row < rows; row++) {
  for (let i = 0; i < 3; i++) {
    magnitudes[row * trueFeatures + Math.floor(random() * trueFeatures)] = (random() < 0.5 ? -1 : 1) * (1 + random());
  }
}
const activations = kernels.linear(device.tensor(magnitudes, [rows, trueFeatures]), kernels.transpose(directions));
const file = join(output, "activations.safetensors");
await writeSafetensors(file, { activations: { shape: [rows, dIn], data: await activations.readFloat32() } });

// 3. Training, as with any other architecture: normalisation, transcoders, checkpoints and the rest come with it.

const source = await StoredActivations.open(file, device, { shuffle: true, seed: 0 });
const config = parseConfig({
  sae: { architecture: "abstopk", dIn, dSae, k: 3 },
  data: { activations: file },
  training: { batchSize: 512, steps: 600, lr: 3e-3, logEvery: 200 },
  output: join(output, "run"),
});
const trainer = await Trainer.create({ ...config, source, device });
for await (const { step, explainedVariance, l0 } of trainer.run()) {
  console.log(`step ${step}: explained variance ${explainedVariance.toFixed(3)}, L0 ${l0.toFixed(2)}`);
}

// 4. The saved SAE, loaded again: is there for every true direction one latent, for both of its signs?

const sae = await Sae.load(join(config.output, "sae"), device);
const cosines = await kernels.linear(directions, kernels.normaliseRows(sae.parameters.decoder)).readFloat32();
const best = Array.from({ length: trueFeatures }, (_, feature) =>
  Math.max(...cosines.subarray(feature * dSae, (feature + 1) * dSae).map(Math.abs)),
);
const found = best.filter((cosine) => cosine > 0.95).length;
const { values } = await sae.encode(activations).read();
const negative = values.filter((value) => value < 0).length / values.length;
console.log(`${found} of ${trueFeatures} true features were found (cosine above 0.95, of either sign)`);
console.log(`${(100 * negative).toFixed(1)}% of the latents' values are negative`);
console.log(`the SAE is in ${join(config.output, "sae")}`);

source.dispose();
await device.close();
