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
