import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Device } from "../../lib/engine/device.js";
import { RandomGenerator } from "../../lib/engine/random.js";
import { activeCountProbabilities, expectedLosses } from "../../lib/toy/superpositionLoss.js";
import { geometricImportance, type SuperpositionTask } from "../../lib/toy/superpositionModel.js";
import { SuperpositionPack } from "../../lib/toy/superpositionPack.js";
import { trainSuperposition } from "../../lib/toy/superpositionTraining.js";
import { testDevice } from "../testDevice.js";
import { expectNothingKept } from "./deviceMemory.js";

let device: Device;

beforeAll(async () => {
  device = await Device.open(testDevice, { threads: 1 });
});

afterAll(() => device.close());

interface Parameters {
  readonly weights: Float32Array;
  readonly bias: Float32Array;
}

/** sum over i of I_i (ReLU(W_i · h + b_i) - x_i)² with h = Wᵀx, in double precision. */
function lossAt(x: ArrayLike<number>, { weights, bias }: Parameters, importance: readonly number[]): number {
  const features = bias.length;
  const dimensions = weights.length / features;
  const hidden = new Float64Array(dimensions);
  for (let i = 0; i < features; i++) {
    for (let d = 0; d < dimensions; d++) hidden[d]! += x[i]! * weights[i * dimensions + d]!;
  }
  let loss = 0;
  for (let i = 0; i < features; i++) {
    let z = bias[i]!;
    for (let d = 0; d < dimensions; d++) z += hidden[d]! * weights[i * dimensions + d]!;
    loss += importance[i]! * (Math.max(z, 0) - x[i]!) ** 2;
  }
  return loss;
}

/** The expected loss by the midpoint rule over all patterns of active features. */
function byQuadrature(parameters: Parameters, { sparsity, importance }: SuperpositionTask): number {
  const points = 60;
  let loss = 0;
  const visit = (x: readonly number[], weight: number): void => {
    if (x.length === importance.length) {
      loss += weight * lossAt(x, parameters, importance);
      return;
    }
    visit([...x, 0], weight * sparsity);
    for (let i = 0; i < points; i++) visit([...x, (i + 0.5) / points], (weight * (1 - sparsity)) / points);
  };
  visit([], 1);
  return loss;
}

/** Mean and standard error over inputs drawn as they occur. */
async function bySampling(parameters: Parameters, { sparsity, importance }: SuperpositionTask, samples: number) {
  const features = importance.length;
  using u = device.empty([samples, features]);
  new RandomGenerator(99).uniform(u, 0, 1);
  const inputs = (await u.readFloat32()).map((value) => Math.max(0, value - sparsity) / (1 - sparsity));
  let [sum, squares] = [0, 0];
  for (let row = 0; row < samples; row++) {
    const loss = lossAt(inputs.subarray(row * features, (row + 1) * features), parameters, importance);
    sum += loss;
    squares += loss ** 2;
  }
  const mean = sum / samples;
  return { mean, error: Math.sqrt((squares / samples - mean ** 2) / samples) };
}

async function measured(features: number, dimensions: number, tasks: readonly SuperpositionTask[], packSize: number) {
  const random = new RandomGenerator(4);
  const shape = { features, dimensions, output: "relu" } as const;
  const packs: SuperpositionPack[] = [];
  for (let first = 0; first < tasks.length; first += packSize) {
    packs.push(new SuperpositionPack(device, shape, tasks.slice(first, first + packSize), random));
  }
  for (const pack of packs) random.normal(pack.bias, 0.1);
  const losses = await expectedLosses(packs, { device, features, tasks, random });
  const parameters = (await Promise.all(packs.map((pack) => pack.read()))).flat();
  for (const pack of packs) pack.dispose();
  return tasks.map((task, model) => ({ task, loss: losses[model]!, parameters: parameters[model]! }));
}

describe("the expected loss of any model", () => {
  test("of two or three features is that of a quadrature, however sparse they are", async () => {
    for (const importance of [
      [1, 10],
      [1, 1, 0.2],
    ]) {
      const tasks = [0, 0.5, 0.9, 0.99, 0.99999].map((sparsity) => ({ sparsity, importance }));
      for (const { task, loss, parameters } of await measured(importance.length, 2, tasks, 3)) {
        expect(loss / byQuadrature(parameters, task)).toBeCloseTo(1, 3);
      }
    }
    await expectNothingKept(device);
  });

  test("of many features is that of inputs as they occur, within the error of these", async () => {
    const importance = geometricImportance(30, 0.9);
    const tasks = [0, 0.6, 0.95].map((sparsity) => ({ sparsity, importance }));
    for (const { task, loss, parameters } of await measured(30, 4, tasks, 2)) {
      const { mean, error } = await bySampling(parameters, task, 40_000);
      // Both have an error, this one no larger than about 2 %.
      expect(Math.abs(loss - mean)).toBeLessThan(4 * Math.hypot(error, 0.01 * mean));
    }
  });
});

test("trained models report what they cost: with three sparse features in a plane, a pair's p²/3", async () => {
  for (const sparsity of [0.9, 0.99, 0.997]) {
    const task = { sparsity, importance: [1, 1, 1] };
    const options = { features: 3, dimensions: 2, tasks: [task], attempts: 4, steps: 600, learningRate: 5e-3 };
    const [model] = await trainSuperposition({ device, ...options, batchSize: 256 });
    expect(model!.loss / byQuadrature(model!, task)).toBeCloseTo(1, 2);
    expect(model!.loss / ((1 - sparsity) ** 2 / 3)).toBeGreaterThan(0.9);
    expect(model!.loss / ((1 - sparsity) ** 2 / 3)).toBeLessThan(1.1);
  }
});

test("the numbers of active features are binomial, without those that are negligible", () => {
  const [none, one, two, three] = activeCountProbabilities(3, 0.1);
  expect(none).toBeCloseTo(0.729, 12);
  expect(one).toBeCloseTo(0.243, 12);
  expect(two).toBeCloseTo(0.027, 12);
  expect(three).toBeCloseTo(0.001, 12);
  expect([...activeCountProbabilities(2, 1)]).toEqual([0, 0, 1]);
  expect(activeCountProbabilities(1, 0.25)).toEqual(Float64Array.from([0.75, 0.25]));
  const many = activeCountProbabilities(5000, 0.02);
  expect(many.reduce((sum, probability) => sum + probability, 0)).toBeCloseTo(1, 3);
  expect(many.filter((probability) => probability > 0).length).toBeLessThan(120);
  expect(many[2]).toBe(0);
});
