import { expect, test } from "vitest";
import { Device } from "../../lib/engine/device.js";
import { InputScaling } from "../../lib/training/inputScaling.js";
import { testDevice } from "../testDevice.js";

test.each([1, 1e-3, 1e-5])(
  "an error of layer-normalised activations is that of the SAE's reconstruction (%s)",
  async (size) => {
    const device = await Device.open(testDevice, { threads: 1 });
    const [rows, columns] = [5, 4];
    const values = Float32Array.from({ length: rows * columns }, (_, i) => size * (Math.sin(3 * i) + 0.3));
    const reconstructed = Float32Array.from({ length: rows * columns }, (_, i) => Math.cos(2 * i));
    const y = device.tensor(values, [rows, columns]);
    const range = { input: [{ from: 0, width: columns }], target: [{ from: 0, width: columns }] };
    const scaling = new InputScaling(
      { normalizeActivations: "layer-norm" },
      { input: [1], output: [1] },
      range,
      device,
    );
    const keep = <T>(handle: T): T => handle;
    const target = scaling.scaleTarget(y, keep);
    const error = device.kernels.add(device.tensor(reconstructed, [rows, columns]), target, { scale: -1 });
    const found = await scaling.unscaleError(error, y, keep).readFloat32();
    for (let row = 0; row < rows; row++) {
      const of = Array.from(values.subarray(row * columns, (row + 1) * columns));
      const mean = of.reduce((sum, value) => sum + value, 0) / columns;
      const deviation = Math.sqrt(of.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (columns - 1));
      for (let column = 0; column < columns; column++) {
        // as Sae.decode gives it: by the deviation and the mean
        const expected = deviation * reconstructed[row * columns + column]! + mean - of[column]!;
        expect(Math.abs(found[row * columns + column]! - expected)).toBeLessThan(2e-6 * size);
      }
    }
    await device.close();
  },
);
