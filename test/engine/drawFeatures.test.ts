import { afterAll, expect, test } from "vitest";
import { Device } from "../../lib/engine/device.js";
import { drawFeatures, type FeatureDistribution } from "../../lib/engine/drawFeatures.js";
import { testDevice } from "../testDevice.js";

const device = await Device.open(testDevice, { threads: 2 });
afterAll(() => device.close());

const vector = (...values: number[]) => device.tensor(Float32Array.from(values), [values.length]);

const certain: FeatureDistribution = {
  probabilities: vector(1, 0, 1),
  factors: device.tensor(Float32Array.of(0.5, 0, 0.3, 0.4, 0, 0.9), [3, 2]),
  means: vector(2, 1, 4),
  deviations: vector(0, 0, 0),
  roots: 0,
  children: 0,
  depth: 0,
};

test("draws codes whose values are magnitudes; a child's is scaled by its parent's over the parent's mean", async () => {
  using codes = drawFeatures(certain, 2, { seed: 1, offset: 0 });
  expect([codes.rows, codes.dSae]).toEqual([2, 3]);
  expect(await codes.read()).toEqual({
    rowOffsets: Float64Array.of(0, 2, 4),
    features: Uint32Array.of(0, 2, 0, 2),
    preActivations: Float32Array.of(2, 4, 2, 4),
    values: Float32Array.of(2, 4, 2, 4),
  });

  const tree = {
    ...certain,
    probabilities: vector(1, 1, 1),
    deviations: vector(1, 0, 0),
    roots: 1,
    children: 2,
    depth: 1,
  };
  using family = drawFeatures(tree, 1000, { seed: 1, offset: 0 });
  const { rowOffsets, features, values } = await family.read();
  let second = 0;
  for (let row = 0; row < 1000; row++) {
    const [begin, end] = [rowOffsets[row]!, rowOffsets[row + 1]!];
    if (end === begin) continue; // the root's magnitude was cut at 0
    expect(end - begin).toBe(2);
    expect(features[begin]).toBe(0);
    expect(values[begin + 1]).toBeCloseTo((values[begin]! / 2) * (features[begin + 1] === 1 ? 1 : 4), 5);
    if (features[begin + 1] === 2) second++;
  }
  expect(second).toBeGreaterThan(400);
  expect(second).toBeLessThan(600);
});

test("no rows and no correlation are fine; wrong shapes and numbers are refused at the call, no distribution at the read", async () => {
  using none = drawFeatures({ ...certain, factors: undefined }, 0, { seed: 0, offset: 5 });
  expect((await none.read()).features.length).toBe(0);

  const refuses = (change: Partial<FeatureDistribution>, code: string, rows = 1, options = { seed: 0, offset: 0 }) =>
    expect(() => drawFeatures({ ...certain, ...change }, rows, options)).toThrow(expect.objectContaining({ code }));
  refuses({ means: vector(1, 1) }, "ERR_SHAPE_MISMATCH");
  refuses({ factors: vector(1, 1, 1) }, "ERR_SHAPE_MISMATCH");
  refuses({ roots: -1 }, "ERR_INVALID_ARGUMENT");
  refuses({ depth: 0.5 }, "ERR_INVALID_ARGUMENT");
  refuses({}, "ERR_INVALID_ARGUMENT", -1);
  refuses({}, "ERR_INVALID_ARGUMENT", 1, { seed: -1, offset: 0 });
  refuses({}, "ERR_INVALID_ARGUMENT", 2, { seed: 0, offset: Number.MAX_SAFE_INTEGER });

  using bad = drawFeatures({ ...certain, probabilities: vector(1, 2, 0) }, 1, { seed: 0, offset: 0 });
  await expect(bad.read()).rejects.toMatchObject({
    code: "ERR_INVALID_ARGUMENT",
    message: expect.stringContaining("probability of feature 1"),
  });
});
