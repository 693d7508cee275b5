import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Device } from "../../lib/engine/device.js";
import { measureSuperposition } from "../../lib/toy/superpositionMeasures.js";
import { geometricImportance, type SuperpositionModel } from "../../lib/toy/superpositionModel.js";
import { type SuperpositionTrainingOptions, trainSuperposition } from "../../lib/toy/superpositionTraining.js";
import { testDevice } from "../testDevice.js";
import { expectNothingKept } from "./deviceMemory.js";

let device: Device;

beforeAll(async () => {
  device = await Device.open(testDevice, { threads: 1 });
});

afterAll(() => device.close());

function train(
  options: Omit<SuperpositionTrainingOptions, "device" | "tasks"> & { sparsities: readonly number[]; ratio?: number },
): Promise<readonly SuperpositionModel[]> {
  const { sparsities, ratio = 0.9, ...rest } = options;
  const importance = geometricImportance(options.features, ratio);
  return trainSuperposition({ device, ...rest, tasks: sparsities.map((sparsity) => ({ sparsity, importance })) });
}

/** The training of the paper's notebook, shortened by a higher learning rate. */
const SHORT = { steps: 1500, batchSize: 512, learningRate: 5e-3 };

describe("what the paper finds", () => {
  test("five features in a plane: two alone when dense, two antipodal pairs, a pentagon when sparse", async () => {
    const models = await train({ features: 5, dimensions: 2, sparsities: [0, 0.7, 0.97], attempts: 4, ...SHORT });
    const expected = [
      [1, 1, 0, 0, 0],
      [1 / 2, 1 / 2, 1 / 2, 1 / 2, 0],
      [2 / 5, 2 / 5, 2 / 5, 2 / 5, 2 / 5],
    ];
    for (const [index, model] of models.entries()) {
      const { dimensionality, represented } = measureSuperposition(model);
      const found = [...dimensionality].sort((a, b) => b - a);
      for (const [i, value] of expected[index]!.entries()) expect(Math.abs(found[i]! - value)).toBeLessThan(0.04);
      expect(represented).toBe(expected[index]!.filter((value) => value > 0).length);
    }
    // Dense: the two most important features, and the others replaced by their mean.
    const { norms } = measureSuperposition(models[0]!);
    for (const [i, norm] of norms.entries()) expect(Math.abs(norm - (i < 2 ? 1 : 0))).toBeLessThan(0.1);
    for (const [i, value] of models[0]!.bias.entries()) expect(Math.abs(value - (i < 2 ? 0 : 0.5))).toBeLessThan(0.07);
    // With x uniform, leaving out features 2, 3 and 4 costs their variance.
    expect(models[0]!.loss).toBeCloseTo((0.9 ** 2 + 0.9 ** 3 + 0.9 ** 4) / 12, 1);
  });

  test("dimensions per feature: 1 when dense, 1/2 over the plateau of antipodal pairs", async () => {
    const options = { features: 60, dimensions: 6, ratio: 1, steps: 800, batchSize: 256, learningRate: 5e-3 };
    const [dense, sparse] = (await train({ ...options, sparsities: [0, 0.7] })).map(measureSuperposition);
    expect(dense!.dimensionsPerFeature).toBeGreaterThan(0.97);
    expect(dense!.dimensionsPerFeature).toBeLessThan(1.06);
    expect(sparse!.dimensionsPerFeature).toBeGreaterThan(0.45);
    expect(sparse!.dimensionsPerFeature).toBeLessThan(0.53);
    expect(sparse!.represented).toBe(12);
  });

  test("20 features in 5 dimensions: more and more of them, most in pairs, as they become sparse", async () => {
    const models = await train({ features: 20, dimensions: 5, ratio: 0.7, sparsities: [0, 0.7, 0.9], ...SHORT });
    const [dense, between, sparse] = models.map(measureSuperposition);
    expect(dense!.represented).toBe(5);
    expect(dense!.squaredNorm).toBeCloseTo(5, 1);
    expect(between!.represented).toBe(7);
    expect(between!.squaredNorm).toBeGreaterThan(6.3);
    expect(between!.squaredNorm).toBeLessThan(7.4);
    expect(sparse!.represented).toBeGreaterThanOrEqual(9);
    expect(Math.max(...sparse!.superposition)).toBeGreaterThan(0.9);
    expect(Math.max(...dense!.superposition.subarray(0, 5))).toBeLessThan(0.05);
  });

  test("the linear model keeps the most important features, however sparse they are", async () => {
    const options = { features: 5, dimensions: 2, output: "linear", ratio: 0.5, sparsities: [0, 0.7, 0.9] } as const;
    for (const model of await train({ ...options, ...SHORT, learningRate: 1e-2 })) {
      const { norms, dimensionality } = measureSuperposition(model);
      for (const [i, norm] of norms.entries()) expect(Math.abs(norm - (i < 2 ? 1 : 0))).toBeLessThan(0.05);
      for (const value of dimensionality.subarray(0, 2)) expect(value).toBeGreaterThan(0.98);
    }
  });
});

describe("a training run", () => {
  const small = { features: 3, dimensions: 2, sparsities: [0.5, 0.8], steps: 70, batchSize: 32 };

  test("repeats bit for bit with the same seed and differs with another", async () => {
    const [first, again, other] = [
      await train(small),
      await train({ ...small, seed: 0 }),
      await train({ ...small, seed: 1 }),
    ];
    expect(again).toEqual(first);
    expect(other[0]!.weights).not.toEqual(first[0]!.weights);
    expect(first.map(({ sparsity }) => sparsity)).toEqual([0.5, 0.8]);
    expect(first[0]).toMatchObject({ features: 3, dimensions: 2, output: "relu", importance: [1, 0.9, 0.9 ** 2] });
    expect(first[0]!.weights).toHaveLength(6);
    expect(first[0]!.bias).toHaveLength(3);
  });

  test("is the same on one thread and on two, and over several packs", async () => {
    const two = await Device.open(testDevice, { threads: 2 });
    const importance = geometricImportance(40, 0.9);
    const tasks = [0, 0.5, 0.9].map((sparsity) => ({ sparsity, importance }));
    const options = { features: 40, dimensions: 7, tasks, steps: 20, batchSize: 64 };
    expect(await trainSuperposition({ device: two, ...options })).toEqual(
      await trainSuperposition({ device, ...options }),
    );
    await two.close();
  });

  test("of several attempts keeps the one with the lowest loss", async () => {
    const [one] = await train({ ...small, sparsities: [0.8] });
    const [best] = await train({ ...small, sparsities: [0.8], attempts: 6 });
    expect(best!.loss).toBeLessThanOrEqual(one!.loss);
  });

  test("tells its progress and gives all memory back", async () => {
    const reports: { step: number; steps: number; loss: number }[] = [];
    await train({ ...small, onProgress: (progress) => reports.push(progress) });
    expect(reports.map(({ step }) => step)).toEqual([64, 70]);
    for (const { steps, loss } of reports) {
      expect(steps).toBe(70);
      expect(loss).toBeGreaterThan(0);
      expect(loss).toBeLessThan(1);
    }
    await expectNothingKept(device);
  });

  test("ends with ERR_ABORTED when its signal fires, and leaves nothing behind", async () => {
    const controller = new AbortController();
    const run = train({ ...small, steps: 1e9, signal: controller.signal, onProgress: () => controller.abort() });
    await expect(run).rejects.toMatchObject({ code: "ERR_ABORTED" });
    await expectNothingKept(device);
  });

  test("that diverges is an error, not a model", async () => {
    await expect(train({ ...small, learningRate: 1e30 })).rejects.toMatchObject({ code: "ERR_NON_FINITE" });
    await expectNothingKept(device);
  });

  test("one feature in one dimension is learnt exactly", async () => {
    const [model] = await train({ features: 1, dimensions: 1, sparsities: [0.5], ...SHORT, steps: 600 });
    expect(Math.abs(model!.weights[0]!)).toBeCloseTo(1, 1);
    expect(model!.loss).toBeLessThan(1e-4);
  });
});

test("options that cannot be meant are refused by name", async () => {
  const task = { sparsity: 0, importance: [1, 1] };
  const good = { device, features: 2, dimensions: 1, tasks: [task] };
  for (const [change, code, message] of [
    [{ features: 0 }, "ERR_INVALID_ARGUMENT", "features must be a positive integer, found 0"],
    [{ dimensions: 1.5 }, "ERR_INVALID_ARGUMENT", "dimensions must be a positive integer, found 1.5"],
    [{ steps: Number.NaN }, "ERR_INVALID_ARGUMENT", "steps must be a positive integer, found NaN"],
    [{ learningRate: 0 }, "ERR_INVALID_ARGUMENT", "learningRate must be positive, found 0"],
    [{ weightDecay: -1 }, "ERR_INVALID_ARGUMENT", "weightDecay must be >= 0, found -1"],
    [{ output: "gelu" as "relu" }, "ERR_INVALID_ARGUMENT", 'output must be "relu" or "linear", found the text "gelu"'],
    [{ tasks: [] }, "ERR_INVALID_ARGUMENT", "tasks is empty"],
    [
      { tasks: [task, { ...task, sparsity: 1 }] },
      "ERR_INVALID_ARGUMENT",
      "tasks[1].sparsity must be in [0, 1), found 1",
    ],
    [
      { tasks: [{ ...task, importance: [1, -1] }] },
      "ERR_INVALID_ARGUMENT",
      "tasks[0].importance must be >= 0, found -1",
    ],
    [{ tasks: [{ ...task, importance: [1] }] }, "ERR_SHAPE_MISMATCH", "an entry for each of 2 features, found 1"],
    [{ seed: -1 }, "ERR_INVALID_ARGUMENT", "seed"],
  ] as const) {
    await expect(trainSuperposition({ ...good, ...change })).rejects.toMatchObject({
      code,
      message: expect.stringContaining(message),
    });
  }
});
