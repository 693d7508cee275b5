import { readFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Device } from "../../lib/engine/device.js";
import { RandomGenerator } from "../../lib/engine/random.js";
import { geometricImportance, type SuperpositionOutput } from "../../lib/toy/superpositionModel.js";
import { SuperpositionPack } from "../../lib/toy/superpositionPack.js";
import { testDevice } from "../testDevice.js";
import { expectNothingKept } from "./deviceMemory.js";

let device: Device;

beforeAll(async () => {
  device = await Device.open(testDevice, { threads: 1 });
});

afterAll(() => device.close());

const ADAM = { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 };

/** The largest |a - b| relative to the largest |b|. */
function relativeError(a: ArrayLike<number>, b: readonly number[]): number {
  expect(a.length).toBe(b.length);
  return Math.max(...b.map((value, i) => Math.abs(a[i]! - value))) / Math.max(...b.map(Math.abs));
}

/** Per-model matrices [features, dimensions] on the diagonal of one. */
function blockDiagonal(blocks: readonly (readonly number[])[], features: number, dimensions: number): Float32Array {
  const columns = blocks.length * dimensions;
  const matrix = new Float32Array(blocks.length * features * columns);
  for (const [model, block] of blocks.entries()) {
    for (const [index, value] of block.entries()) {
      const row = model * features + Math.floor(index / dimensions);
      matrix[row * columns + model * dimensions + (index % dimensions)] = value;
    }
  }
  return matrix;
}

/** The sum of the losses of the models, written out in double precision. */
function lossOf(
  { weights, bias, x, importance }: Record<"weights" | "bias" | "x" | "importance", readonly number[]>,
  output: SuperpositionOutput,
): number {
  const rows = bias.length;
  const columns = weights.length / rows;
  const batch = x.length / rows;
  let sum = 0;
  for (let t = 0; t < batch; t++) {
    const hidden = Array.from({ length: columns }, (_, d) => {
      let h = 0;
      for (let i = 0; i < rows; i++) h += x[t * rows + i]! * weights[i * columns + d]!;
      return h;
    });
    for (let i = 0; i < rows; i++) {
      const z = hidden.reduce((total, h, d) => total + h * weights[i * columns + d]!, bias[i]!);
      const reconstruction = output === "relu" ? Math.max(z, 0) : z;
      sum += importance[i]! * (reconstruction - x[t * rows + i]!) ** 2;
    }
  }
  return sum / batch;
}

describe.each(["relu", "linear"] as const)("%s output", (output) => {
  test("the gradient is the slope of the loss, and the loss is summed on the way", async () => {
    const [features, dimensions, models, batch] = [3, 2, 3, 17];
    const random = new RandomGenerator(5);
    const tasks = [0, 0.5, 0.8].map((sparsity, g) => ({
      sparsity,
      importance: geometricImportance(features, 0.6 + g / 5),
    }));
    const pack = new SuperpositionPack(device, { features, dimensions, output }, tasks, random);
    random.normal(pack.bias, 0.3);
    const u = device.empty([batch, models * features]);
    random.uniform(u, 0, 1);
    const x = pack.inputs(u);
    const loss = device.zeros([1], "f64");
    const sums = device.zeros([models * features], "f64");
    const gradients = pack.gradients(x, loss);
    pack.addLosses(x, sums);

    const point = {
      weights: [...(await pack.weights.readFloat32())],
      bias: [...(await pack.bias.readFloat32())],
      x: [...(await x.readFloat32())],
      importance: tasks.flatMap(({ importance }) => importance),
    };
    const expected = lossOf(point, output);
    expect((await loss.readScalar()) / batch).toBeCloseTo(expected, 5);
    expect([...(await sums.read())].reduce((a, b) => a + b, 0) / batch).toBeCloseTo(expected, 5);

    const slopes = (name: "weights" | "bias"): number[] =>
      point[name].map((value, index) => {
        const at = (shift: number): number =>
          lossOf({ ...point, [name]: point[name].with(index, value + shift) }, output);
        return (at(1e-5) - at(-1e-5)) / 2e-5;
      });
    // Between the blocks the loss has a slope, too, but those weights are no parameters.
    const inBlock = (_: number, index: number): boolean =>
      Math.floor(index / (models * dimensions * features)) === Math.floor((index % (models * dimensions)) / dimensions);
    const weightSlopes = slopes("weights").map((slope, index) => (inBlock(slope, index) ? slope : 0));
    expect(relativeError(await gradients.weights.readFloat32(), weightSlopes)).toBeLessThan(1e-5);
    expect(relativeError(await gradients.bias.readFloat32(), slopes("bias"))).toBeLessThan(1e-5);

    for (const handle of [x, u, loss, sums]) handle.dispose();
    gradients[Symbol.dispose]();
    pack.dispose();
    await expectNothingKept(device);
  });

  test("models in a pack train as PyTorch trains each by itself with AdamW", async () => {
    const golden: Golden = JSON.parse(
      readFileSync(new URL("../fixtures/toy/superposition.json", import.meta.url), "utf8"),
    );
    const { features, dimensions, batch, steps, learningRate, importance } = golden;
    const given = golden.cases.find((candidate) => candidate.output === output)!;
    const size = features * dimensions;
    const tasks = golden.sparsities.map((sparsity) => ({ sparsity, importance }));
    const pack = new SuperpositionPack(device, { features, dimensions, output }, tasks, new RandomGenerator(0));
    const initial = tasks.map((_, g) => given.weights.slice(g * size, (g + 1) * size));
    pack.weights.write(blockDiagonal(initial, features, dimensions));

    const loss = device.zeros([1], "f64");
    const width = tasks.length * features;
    for (let step = 1; step <= steps; step++) {
      const draws = given.numerators.slice((step - 1) * batch * width, step * batch * width);
      const u = device.tensor(
        Float32Array.from(draws, (numerator) => numerator / golden.denominator),
        [batch, width],
      );
      const x = pack.inputs(u);
      const gradients = pack.gradients(x, step === steps ? loss : undefined);
      if (step === 1) {
        const weights = given.models.map(({ gradient }) => gradient.weights);
        const expected = [...blockDiagonal(weights, features, dimensions)];
        expect(relativeError(await gradients.weights.readFloat32(), expected)).toBeLessThan(1e-6);
        const bias = given.models.flatMap(({ gradient }) => gradient.bias);
        expect(relativeError(await gradients.bias.readFloat32(), bias)).toBeLessThan(1e-6);
      }
      pack.step(gradients, { ...ADAM, learningRate, step }, 0.01);
      for (const handle of [u, x]) handle.dispose();
      gradients[Symbol.dispose]();
    }

    for (const [index, { weights, bias }] of (await pack.read()).entries()) {
      expect(relativeError(weights, given.models[index]!.weights)).toBeLessThan(1e-5);
      expect(relativeError(bias, given.models[index]!.bias)).toBeLessThan(1e-5);
    }
    const total = given.models.reduce((sum, model) => sum + model.loss, 0);
    expect((await loss.readScalar()) / batch).toBeCloseTo(total, 5);
    loss.dispose();
    pack.dispose();
  });
});

interface Golden {
  readonly features: number;
  readonly dimensions: number;
  readonly batch: number;
  readonly steps: number;
  readonly denominator: number;
  readonly learningRate: number;
  readonly sparsities: readonly number[];
  readonly importance: readonly number[];
  readonly cases: readonly {
    readonly output: SuperpositionOutput;
    readonly weights: readonly number[];
    readonly numerators: readonly number[];
    readonly models: readonly {
      readonly gradient: Record<"weights" | "bias", readonly number[]>;
      readonly weights: readonly number[];
      readonly bias: readonly number[];
      readonly loss: number;
    }[];
  }[];
}

test("inputs drawn denser than they are count as often as they occur: the loss and its slopes stay", async () => {
  const [features, dimensions, batch] = [3, 2, 400_000];
  const importance = [1, 0.5, 2];
  const as = (drawnSparsity?: number) => ({ sparsity: 0.8, importance, drawnSparsity });
  const random = new RandomGenerator(3);
  // The model of the last place sees its inputs as they are, beside others that do not.
  const pack = new SuperpositionPack(
    device,
    { features, dimensions, output: "relu" },
    [as(0.5), as(0.7), as()],
    random,
  );
  const block = [0.9, 0.1, -0.8, 0.3, 0.2, 1];
  pack.weights.write(blockDiagonal([block, block, block], features, dimensions));
  pack.bias.write(Float32Array.from([-0.05, 0.02, 0.01, -0.05, 0.02, 0.01, -0.05, 0.02, 0.01]));
  using u = device.empty([batch, 3 * features]);
  random.uniform(u, 0, 1);
  using x = pack.inputs(u);
  using gradients = pack.gradients(x);
  const [weights, bias] = [await gradients.weights.readFloat32(), await gradients.bias.readFloat32()];
  const slopes = [0, 1, 2].map((model) => {
    const own = block.map((_, index) => {
      const row = model * features + Math.floor(index / dimensions);
      return weights[row * 3 * dimensions + model * dimensions + (index % dimensions)]!;
    });
    return [...own, ...bias.subarray(model * features, (model + 1) * features)];
  });
  expect(relativeError(slopes[0]!, slopes[2]!)).toBeLessThan(0.02);
  expect(relativeError(slopes[1]!, slopes[2]!)).toBeLessThan(0.02);
  pack.dispose();
});

test("inputs are 0 with probability S and else uniform in [0, 1); wider draws serve narrower packs", async () => {
  const sparsities = [0, 0.5, 0.99];
  const tasks = sparsities.map((sparsity) => ({ sparsity, importance: [1] }));
  const random = new RandomGenerator(1);
  const pack = new SuperpositionPack(device, { features: 1, dimensions: 1, output: "relu" }, tasks, random);
  const batch = 100_000;
  using u = device.empty([batch, 5]);
  random.uniform(u, 0, 1);
  using x = pack.inputs(u);
  expect(x.shape).toEqual([batch, 3]);
  const values = await x.readFloat32();
  for (const [column, sparsity] of sparsities.entries()) {
    const own = values.filter((_, index) => index % 3 === column);
    const active = own.filter((value) => value > 0);
    const density = 1 - sparsity;
    // Five standard deviations of a binomial count, of a uniform mean and of a uniform mean square.
    expect(Math.abs(active.length / batch - density)).toBeLessThanOrEqual(
      5 * Math.sqrt((density * sparsity) / batch) + 1 / batch,
    );
    const mean = active.reduce((sum, value) => sum + value, 0) / active.length;
    const meanSquare = active.reduce((sum, value) => sum + value ** 2, 0) / active.length;
    expect(Math.abs(mean - 1 / 2)).toBeLessThan(5 * Math.sqrt(1 / 12 / active.length));
    expect(Math.abs(meanSquare - 1 / 3)).toBeLessThan(5 * Math.sqrt(4 / 45 / active.length));
    expect(Math.max(...active.subarray(0, 50_000))).toBeLessThan(1);
    expect(Math.min(...own.subarray(0, 50_000))).toBeGreaterThanOrEqual(0);
  }
  pack.dispose();
});
