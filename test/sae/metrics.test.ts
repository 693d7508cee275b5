import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Device } from "../../lib/engine/device.js";
import type { SaeConfig } from "../../lib/sae/config.js";
import { geometricMedian } from "../../lib/sae/geometricMedian.js";
import { MetricsAccumulator } from "../../lib/sae/metrics.js";
import { Sae } from "../../lib/sae/sae.js";
import { testDevice } from "../testDevice.js";

let device: Device;
beforeAll(async () => {
  device = await Device.open(testDevice, { threads: 2 });
});
afterAll(() => device.close());

const dIn = 6;
const rows = 53;
const config: SaeConfig = { architecture: "topk", dIn, dSae: 20, k: 2, applyBDecToInput: true };
/** Far from the origin, where a float32 variance would lose its digits. */
const activations = Float32Array.from({ length: rows * dIn }, (_, i) => 100 + (i % dIn) + Math.sin(i * i));

describe("the metrics of a training step", () => {
  test("a perfect reconstruction explains everything, b_dec alone at the mean explains nothing", async () => {
    using metrics = new MetricsAccumulator(device, dIn, 20);
    const sae = Sae.create(config, device, 4);
    const x = device.tensor(activations, [rows, dIn]);
    const codes = sae.encode(x);
    metrics.add(x, device.zeros([rows, dIn]), codes);
    expect(await metrics.read()).toMatchObject({ mse: 0, fvu: 0, explainedVariance: 1, cosine: expect.closeTo(1, 7) });

    using atMean = new MetricsAccumulator(device, dIn, 20);
    const mean = device.kernels.columnSums(x, { scale: 1 / rows });
    const residual = device.kernels.scale(device.kernels.addRow(x, mean, { scale: -1 }), -1);
    atMean.add(x, residual, codes);
    expect((await atMean.read()).fvu).toBeCloseTo(1, 5);
  });

  test("counts densities in half decades, latents that never fire apart", async () => {
    using metrics = new MetricsAccumulator(device, dIn, 20);
    const sae = Sae.create(config, device, 4);
    const x = device.tensor(activations, [rows, dIn]);
    metrics.add(x, device.zeros([rows, dIn]), sae.encode(x));
    const { densityHistogram: histogram, deadFraction } = await metrics.read();
    expect(histogram.counts.reduce((sum, count) => sum + count, 0) + histogram.never).toBe(20);
    expect(histogram.log10Edges).toHaveLength(histogram.counts.length + 1);
    expect(histogram.log10Edges[0]).toBe(-8);
    expect(histogram.log10Edges.at(-1)).toBe(0);
    expect(deadFraction).toBe(histogram.never / 20);
    // 53 tokens: no density lies below 1/53, which is above 10^-2
    expect(histogram.counts.slice(0, 12).every((count) => count === 0)).toBe(true);
  });

  test("go on from saved sums as if there had been no interruption", async () => {
    const sae = Sae.create(config, device, 4);
    const x = device.tensor(activations, [rows, dIn]);
    const codes = sae.encode(x);
    const residual = device.kernels.add(sae.decode(codes, x), x, { scale: -1 });
    using whole = new MetricsAccumulator(device, dIn, 20);
    whole.add(x, residual, codes);
    using resumed = new MetricsAccumulator(device, dIn, 20);
    resumed.restoreState(await whole.saveState());
    expect(await resumed.read()).toEqual(await whole.read());
    for (const metrics of [whole, resumed]) metrics.add(x, residual, codes);
    expect(await resumed.read()).toEqual(await whole.read());
    expect(() => resumed.restoreState(new Float64Array(3))).toThrow(/saved metrics have 3 sums, expected 30/);
  });

  test("activations that do not vary have no fvu, whatever rounding makes of their variance", async () => {
    const sae = Sae.create(config, device, 4);
    for (const value of [0, 0.1, 1, 1e6]) {
      using metrics = new MetricsAccumulator(device, dIn, 20);
      const x = device.tensor(new Float32Array(rows * dIn).fill(value), [rows, dIn]);
      metrics.add(x, device.zeros([rows, dIn]), sae.encode(x));
      expect((await metrics.read()).fvu, String(value)).toBeNaN();
    }
  });

  test("of no tokens at all are refused", async () => {
    using metrics = new MetricsAccumulator(device, dIn, 20);
    await expect(metrics.read()).rejects.toMatchObject({ code: "ERR_INVALID_ARGUMENT" });
  });
});

describe("the geometric median", () => {
  const medianOf = async (points: number[][]): Promise<number[]> => {
    const tensor = device.tensor(Float32Array.from(points.flat()), [points.length, points[0]!.length]);
    return [...(await (await geometricMedian(tensor, device)).readFloat32())];
  };

  test("on a line is the median", async () => {
    const [median] = await medianOf([[1], [2], [3], [10], [1000]]);
    expect(median).toBeCloseTo(3, 2);
  });

  test("of a convex quadrangle is where its diagonals cross", async () => {
    const [x, y] = await medianOf([
      [0, 0],
      [4, 4],
      [0, 3],
      [3, 0],
    ]);
    expect(x).toBeCloseTo(1.5, 4);
    expect(y).toBeCloseTo(1.5, 4);
  });

  test("does not follow an outlier, as the mean does", async () => {
    const points = Array.from({ length: 99 }, (_, i) => [Math.sin(i), Math.cos(i * i)]);
    const [x, y] = await medianOf([...points, [1e6, 1e6]]);
    expect(Math.hypot(x!, y!)).toBeLessThan(0.5);
  });

  test("of one point, and of equal points, is that point", async () => {
    expect(await medianOf([[2, -3]])).toEqual([2, -3]);
    expect(
      await medianOf([
        [2, -3],
        [2, -3],
        [2, -3],
      ]),
    ).toEqual([2, -3]);
  });
});
