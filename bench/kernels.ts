/**
 * The kernels of a training step one by one, with tinybench: where the time of a step goes. The encoder with each of its
 * selections, at the number of active entries per row that the name says; the others with the codes of top k.
 *
 *     npm run bench:kernels -- [dSae]
 */
import { Device, RandomGenerator, type Selection, type Tensor } from "monosem";
import { Bench } from "tinybench";

const [batch, dIn, k] = [4096, 768, 32];
const dSae = Number(process.argv[2] ?? 8192);
const device = await Device.open("cpu");
const { kernels } = device;
const random = new RandomGenerator(0);
const normal = (shape: readonly number[], standardDeviation = 1) => {
  const tensor = device.empty(shape);
  random.normal(tensor, standardDeviation);
  return tensor;
};

/** What a standard normal variable exceeds with probability p < 1/2 (Abramowitz and Stegun 26.2.23, to 4.5e-4). */
function upperQuantile(p: number): number {
  const t = Math.sqrt(-2 * Math.log(p));
  return t - (2.515517 + 0.802853 * t + 0.010328 * t ** 2) / (1 + 1.432788 * t + 0.189269 * t ** 2 + 0.001308 * t ** 3);
}

const x = normal([batch, dIn]);
const encoder = normal([dSae, dIn], dIn ** -0.5);
const decoder = normal([dSae, dIn], dIn ** -0.5);
const encoderBias = device.zeros([dSae]);
const moments = { m: device.zeros([dSae, dIn]), v: device.zeros([dSae, dIn]) };
const codes = kernels.encode(x, encoder, encoderBias, { select: "topk", k });
const residual = kernels.decode(codes, decoder, { target: x });
const gradient = { terms: [{ codes, dense: residual, scale: 2 / batch }] };
const squaredNorm = device.zeros([1], "f64");
const adam = { learningRate: 1e-6, beta1: 0.9, beta2: 0.999, epsilon: 1e-8, step: 1 };

const bench = new Bench({ time: 1000, warmupTime: 200 });
const add = (name: string, queue: () => Disposable | undefined) =>
  bench.add(name, async () => {
    using _ = queue();
    await device.synchronize();
  });
// Pre-activations are nearly standard normal: shifted or cut at these quantiles, so many are left of dSae.
const shiftedBias = device.tensor(new Float32Array(dSae).fill(-upperQuantile(0.01)), [dSae]);
const thresholds = device.tensor(new Float32Array(dSae).fill(upperQuantile(64 / dSae)), [dSae]);
const encodeWith = (name: string, bias: Tensor, selection: Selection) =>
  add(`encode, ${name}`, () => kernels.encode(x, encoder, bias, selection));
encodeWith(`top ${k}`, encoderBias, { select: "topk", k });
encodeWith(`top ${k} by magnitude`, encoderBias, { select: "topk", k, by: "magnitude" });
encodeWith(`batch top ${k} * rows`, encoderBias, { select: "batchtopk", k: k * batch });
encodeWith("positive, 1 %", shiftedBias, { select: "positive" });
encodeWith("positive, 50 %", encoderBias, { select: "positive" });
encodeWith("above thresholds, 64", encoderBias, { select: "above", thresholds });
add("decode", () => kernels.decode(codes, decoder, { target: x }));
add("selectTop, half", () => kernels.selectTop(codes, k / 2));
add("decodeGradient", () => kernels.decodeGradient(codes, decoder, residual));
add("featureSums", () => kernels.featureSums(codes));
add("rowGradientSquaredNorm", () => kernels.rowGradientSquaredNorm(gradient, decoder, squaredNorm));
add("stepRows", () => {
  kernels.stepRows(gradient, decoder, moments, adam);
  return undefined;
});

await bench.run();
console.log(`${device.description}; batch ${batch}, dIn ${dIn}, dSae ${dSae}, k ${k}`);
console.table(bench.table());
await device.close();
