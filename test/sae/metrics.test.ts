import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Device } from "../../lib/engine/device.js";
import type { SaeConfig } from "../../lib/sae/config.js";
import { geometricMedian } from "../../lib/sae/geometricMedian.js";
import { evaluate, type Metrics, MetricsAccumulator } from "../../lib/sae/metrics.js";
import { Sae } from "../../lib/sae/sae.js";
import { ArraySource } from "../training/arraySource.js";

let device: Device;
beforeAll(async () => {
  device = await Device.open("cpu", { threads: 2 });
});
afterAll(() => device.close());

const dIn = 6;
const rows = 53;
const config: SaeConfig = { architecture: "topk", dIn, dSae: 20, k: 2, applyBDecToInput: true };
/** Far from the origin, where a float32 variance would lose its digits. */
const activations = Float32Array.from({ length: rows * dIn }, (_, i) => 100 + (i % dIn) + Math.sin(i * i));
const source = () => new ArraySource(activations, dIn, device, { repeat: false });

describe("evaluate", () => {
  test("gives what the definitions give, one number at a time in float64", async () => {
    const sae = Sae.create(config, device, 4);
    const metrics = await evaluate(sae, source(), { tokens: Infinity, batchSize: 10 });
    const x = device.tensor(activations, [rows, dIn]);
    const latents = await device.kernels.densify(sae.encode(x)).readFloat32();
    const expected = definitions(activations, await sae.reconstruct(x).readFloat32(), latents);
    expect(metrics).toEqual({ ...expected, densityHistogram: metrics.densityHistogram });
    expect(metrics.fvu + metrics.explainedVariance).toBeCloseTo(1, 12);
  });

  test("does not depend on the batch size, apart from rounding", async () => {
    const sae = Sae.create(config, device, 4);
    const whole = await evaluate(sae, source(), { tokens: Infinity, batchSize: 1000 });
    for (const batchSize of [1, 7, 53]) {
      const parts = await evaluate(sae, source(), { tokens: Infinity, batchSize });
      for (const key of ["l0", "mse", "fvu", "cosine", "deadFraction", "tokens"] as const) {
        expect(parts[key] / whole[key], key).toBeCloseTo(1, 6);
      }
      expect(parts.densityHistogram).toEqual(whole.densityHistogram);
    }
  });

  test("takes as many tokens as asked for, and no more", async () => {
    const endless = new ArraySource(activations, dIn, device);
    expect((await evaluate(Sae.create(config, device, 4), endless, { batchSize: 10, tokens: 25 })).tokens).toBe(25);
    expect(endless.position).toBe(25);
  });

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
    const { densityHistogram: histogram, deadFraction } = await evaluate(Sae.create(config, device, 4), source(), {
      tokens: Infinity,
    });
    expect(histogram.counts.reduce((sum, count) => sum + count, 0) + histogram.never).toBe(20);
    expect(histogram.log10Edges).toHaveLength(histogram.counts.length + 1);
    expect(histogram.log10Edges[0]).toBe(-8);
    expect(histogram.log10Edges.at(-1)).toBe(0);
    expect(deadFraction).toBe(histogram.never / 20);
    // 53 tokens: no density lies below 1/53, which is above 10^-2
    expect(histogram.counts.slice(0, 12).every((count) => count === 0)).toBe(true);
  });

  test("refuses no tokens, another width, NaN, and a fired signal", async () => {
    const sae = Sae.create(config, device, 4);
    const empty = new ArraySource(new Float32Array(0), dIn, device, { repeat: false });
    await expect(evaluate(sae, empty, { tokens: Infinity })).rejects.toMatchObject({ code: "ERR_INVALID_ARGUMENT" });
    await expect(evaluate(sae, new ArraySource(activations, 3, device), { tokens: 10 })).rejects.toMatchObject({
      code: "ERR_SHAPE_MISMATCH",
    });
    const poisoned = activations.map((value, i) => (i === 77 ? Number.NaN : value));
    const bad = evaluate(sae, new ArraySource(poisoned, dIn, device, { repeat: false }), { tokens: Infinity });
    await expect(bad).rejects.toMatchObject({ code: "ERR_NON_FINITE" });
    const stopped = evaluate(sae, source(), { tokens: Infinity, signal: AbortSignal.abort() });
    await expect(stopped).rejects.toMatchObject({ code: "ERR_ABORTED" });
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

function definitions(x: Float32Array, reconstruction: Float32Array, latents: Float32Array): object {
  const sum = (values: Iterable<number>): number => [...values].reduce((total, value) => total + value, 0);
  const columns = Array.from({ length: dIn }, (_, d) => Array.from({ length: rows }, (_, t) => x[t * dIn + d]!));
  const variance = sum(
    columns.map((column) => {
      const mean = sum(column) / rows;
      return sum(column.map((value) => (value - mean) ** 2)) / rows;
    }),
  );
  const mse = sum(x.map((value, i) => (value - reconstruction[i]!) ** 2)) / rows;
  const cosines = Array.from({ length: rows }, (_, t) => {
    const a = x.slice(t * dIn, (t + 1) * dIn);
    const b = reconstruction.slice(t * dIn, (t + 1) * dIn);
    return sum([...a].map((value, d) => value * b[d]!)) / Math.hypot(...a) / Math.hypot(...b);
  });
  const fired = Array.from({ length: 20 }, (_, i) => latents.some((value, j) => j % 20 === i && value > 0));
  const close = (value: number): number =>
    expect.closeTo(value, Math.max(0, 5 - Math.ceil(Math.log10(Math.abs(value) + 1))));
  return {
    tokens: rows,
    l0: latents.filter((value) => value > 0).length / rows,
    mse: close(mse),
    fvu: close(mse / variance),
    explainedVariance: close(1 - mse / variance),
    cosine: close(sum(cosines) / rows),
    deadFraction: fired.filter((yes) => !yes).length / 20,
  } satisfies Partial<Record<keyof Metrics, unknown>>;
}
