import { expect, test } from "vitest";
import { HookVarianceAccumulator } from "../../lib/analysis/hookVariance.js";
import { Device } from "../../lib/engine/device.js";
import { testDevice } from "../testDevice.js";

test("explained variance is of each hook's columns, over all batches; none where the activations do not vary", async () => {
  const device = await Device.open(testDevice, { threads: 1 });
  using variances = new HookVarianceAccumulator(device, [
    { name: "wide", width: 2 },
    { name: "constant", width: 1 },
    { name: "exact", width: 1 },
  ]);
  const batches = [
    { target: [1, 10, 7, 1, 3, 20, 7, 2], output: [1, 10, 7, 1, 3, 10, 6, 2] },
    { target: [5, 30, 7, 3], output: [0, 30, 7, 3] },
  ];
  for (const { target, output } of batches) {
    const shape = [target.length / 4, 4];
    using y = device.tensor(Float32Array.from(target), shape);
    using reconstruction = device.tensor(Float32Array.from(output), shape);
    variances.add(y, reconstruction);
  }
  // squares about the means 3 and 20: 8 + 200; squared errors: 100 + 25
  expect(await variances.read()).toEqual([
    { hook: "wide", explainedVariance: expect.closeTo(1 - 125 / 208, 12) },
    { hook: "constant", explainedVariance: null },
    { hook: "exact", explainedVariance: 1 },
  ]);
  await device.close();
});

test("beside a large mean nothing is lost of the variance, and a constant has none", async () => {
  const device = await Device.open(testDevice, { threads: 1 });
  using variances = new HookVarianceAccumulator(device, [
    { name: "far", width: 1 },
    { name: "constant", width: 2 },
  ]);
  const rows = 1000;
  const target = new Float32Array(3 * rows).fill(7.7);
  for (let row = 0; row < rows; row++) target[3 * row] = 1e5 + (row % 2);
  const output = target.map((value, i) => (i % 3 === 0 ? value + 0.25 : 1.01 * value));
  using y = device.tensor(target, [rows, 3]);
  using reconstruction = device.tensor(output, [rows, 3]);
  variances.add(y, reconstruction);
  expect(await variances.read()).toEqual([
    { hook: "far", explainedVariance: expect.closeTo(1 - 0.25 ** 2 / 0.25, 4) },
    { hook: "constant", explainedVariance: null },
  ]);
  await device.close();
});
