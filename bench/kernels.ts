/**
 * The kernels of a TopK training step one by one, with tinybench: where the time of a step goes.
 *
 *     npm run bench:kernels -- [dSae]
 */
import { Device, RandomGenerator } from "monosem";
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
add("encode, top k", () => kernels.encode(x, encoder, encoderBias, { select: "topk", k }));
add("decode", () => kernels.decode(codes, decoder, { target: x }));
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
