import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Device } from "../../lib/engine/device.js";
import type { SaeConfig } from "../../lib/sae/config.js";
import { type Evaluation, EvaluationAccumulator, evaluate } from "../../lib/sae/evaluation.js";
import { Sae } from "../../lib/sae/sae.js";
import { testDevice } from "../testDevice.js";
import { ArraySource } from "../training/arraySource.js";

let device: Device;
beforeAll(async () => {
  device = await Device.open(testDevice, { threads: 2 });
});
afterAll(() => device.close());

const dIn = 6;
const dSae = 20;
const rows = 53;
const config: SaeConfig = { architecture: "topk", dIn, dSae, k: 2, applyBDecToInput: true };
/** Far from the origin, where a float32 variance would lose its digits. */
const activations = Float32Array.from({ length: rows * dIn }, (_, i) => 100 + (i % dIn) + Math.sin(i * i));
const source = (data: Float32Array = activations) => new ArraySource(data, dIn, device, { repeat: false });

describe("evaluate", () => {
  test("gives what the definitions give, one number at a time in float64", async () => {
    const sae = Sae.create(config, device, 4);
    const evaluation = await evaluate(sae, source(), { tokens: Infinity, batchSize: 100 });
    const x = device.tensor(activations, [rows, dIn]);
    using codes = sae.encode(x);
    const latents = await device.kernels.densify(codes).readFloat32();
    const reconstruction = await sae.reconstruct(x).readFloat32();
    expectDefinitions(evaluation, { target: activations, reconstruction, latents });
    expect(evaluation.fvu + evaluation.explainedVariance).toBeCloseTo(1, 12);
    expect(evaluation.consistency).toBeNull();
    expect(evaluation.latents.consistency).toBeUndefined();
  });

  test("does not depend on the batch size, apart from rounding and the legacy explained variance", async () => {
    const sae = Sae.create(config, device, 4);
    const whole = await evaluate(sae, source(), { tokens: Infinity, batchSize: 1000 });
    for (const batchSize of [1, 7, 53]) {
      const parts = await evaluate(sae, source(), { tokens: Infinity, batchSize });
      for (const [name, value] of Object.entries(whole)) {
        if (typeof value !== "number" || name === "explainedVarianceLegacy") continue;
        expect((parts[name as keyof Evaluation] as number) / value, name).toBeCloseTo(1, 6);
      }
      expect(parts.densityHistogram).toEqual(whole.densityHistogram);
      expect(parts.latents).toEqual(whole.latents);
    }
    // A batch of one token is its own mean.
    const single = await evaluate(sae, source(), { tokens: Infinity, batchSize: 1 });
    expect(single.explainedVarianceLegacy).toBeNull();
  });

  test("an SAE with layer norm is measured in the scale of the activations", async () => {
    using sae = Sae.create({ ...config, normalizeActivations: "layer-norm" }, device, 4);
    const evaluation = await evaluate(sae, source(), { tokens: Infinity });
    const x = device.tensor(activations, [rows, dIn]);
    const latents = await device.kernels.densify(sae.encode(x)).readFloat32();
    const reconstruction = await sae.reconstruct(x).readFloat32();
    expectDefinitions(evaluation, { target: activations, reconstruction, latents });
    expect(evaluation.l2Ratio).toBeCloseTo(1, 2);
  });

  test("a transcoder is measured against its targets, which lie beside its inputs", async () => {
    const dOut = 4;
    const transcoder = {
      ...config,
      dIn: dIn - dOut,
      dOut,
      transcoder: true,
      skip: true,
      applyBDecToInput: false,
    } as const;
    using sae = Sae.create(transcoder, device, 4);
    const evaluation = await evaluate(sae, source(), { tokens: Infinity });
    const x = activations.filter((_, i) => i % dIn < dIn - dOut);
    const target = activations.filter((_, i) => i % dIn >= dIn - dOut);
    const input = device.tensor(x, [rows, dIn - dOut]);
    const latents = await device.kernels.densify(sae.encode(input)).readFloat32();
    const reconstruction = await sae.reconstruct(input).readFloat32();
    expectDefinitions(evaluation, { target, reconstruction, latents });
    await expect(evaluate(sae, new ArraySource(x, dIn - dOut, device), { tokens: 1 })).rejects.toMatchObject({
      code: "ERR_SHAPE_MISMATCH",
    });
  });

  test("takes as many tokens as asked for, and no more, and says how far it is", async () => {
    const endless = new ArraySource(activations, dIn, device);
    const seen: number[] = [];
    const options = { batchSize: 10, tokens: 25, onProgress: ({ tokens }: { tokens: number }) => seen.push(tokens) };
    expect((await evaluate(Sae.create(config, device, 4), endless, options)).tokens).toBe(25);
    expect(endless.position).toBe(25);
    expect(seen).toEqual([10, 20, 25]);
  });

  test("refuses no tokens, another width, NaN, activations that are all the same, and a fired signal", async () => {
    const sae = Sae.create(config, device, 4);
    const evaluated = (data: Float32Array) => evaluate(sae, source(data), { tokens: Infinity });
    await expect(evaluated(new Float32Array(0))).rejects.toMatchObject({ code: "ERR_INVALID_ARGUMENT" });
    await expect(evaluate(sae, new ArraySource(activations, 3, device), { tokens: 10 })).rejects.toMatchObject({
      code: "ERR_SHAPE_MISMATCH",
    });
    await expect(evaluated(activations.map((value, i) => (i === 77 ? Number.NaN : value)))).rejects.toMatchObject({
      code: "ERR_NON_FINITE",
    });
    // 0.1 is not a float64 sum of itself: the variance is rounding, not 0
    for (const value of [1, 0.1, 0]) {
      await expect(evaluated(new Float32Array(90).fill(value))).rejects.toMatchObject({
        code: "ERR_NON_FINITE",
        message: expect.stringMatching(/^fvu is NaN/),
      });
    }
    const stopped = evaluate(sae, source(), { tokens: Infinity, signal: AbortSignal.abort() });
    await expect(stopped).rejects.toMatchObject({ code: "ERR_ABORTED" });
  });
});

describe("what an SAE is evaluated on", () => {
  /** Evaluates reconstructions that are chosen, of two prompts of `rows` tokens each. */
  async function evaluation(target: number[][], reconstruction: number[][], latents: number[][]): Promise<Evaluation> {
    const width = target[0]!.length;
    const tensor = (values: number[][]) =>
      device.tensor(Float32Array.from(values.flat()), [values.length, values[0]!.length]);
    using accumulator = new EvaluationAccumulator(device, width, latents[0]!.length);
    const identity = latents[0]!.map((_, i) => latents[0]!.map((_, j) => (i === j ? 1 : 0)));
    using codes = device.kernels.encode(tensor(latents), tensor(identity), device.zeros([latents[0]!.length]), {
      select: "positive",
    });
    await accumulator.add({
      target: tensor(target),
      reconstruction: tensor(reconstruction),
      codes,
      promptRows: [target.length / 2, target.length / 2],
    });
    return accumulator.read();
  }

  test("is the target, whose width may differ from the input's", async () => {
    const target = [
      [1, 2],
      [3, -1],
      [0, 4],
      [2, 2],
    ];
    const result = await evaluation(target, target, [
      [1, 0, 0],
      [0, 1, 0],
      [0, 0, 1],
      [1, 1, 1],
    ]);
    expect(result).toMatchObject({ mse: 0, fvu: 0, explainedVariance: 1, explainedVarianceLegacy: 1, l2Ratio: 1 });
    expect(result.cosine).toBeCloseTo(1, 7);
    expect(result.relativeReconstructionBias).toBeCloseTo(1, 12);
  });

  test("shrinkage shows in the ratio of norms and in the relative bias, which a perfect direction does not hide", async () => {
    const target = [
      [1, 2],
      [3, -1],
      [0, 4],
      [2, 2],
    ];
    const half = target.map((row) => row.map((value) => value / 2));
    const result = await evaluation(target, half, [[1], [1], [1], [1]]);
    expect(result.l2Ratio).toBeCloseTo(0.5, 6);
    expect(result.relativeReconstructionBias).toBeCloseTo(0.5, 12);
    expect(result.cosine).toBeCloseTo(1, 6);
  });

  test("a target of almost no length does not divide the reconstruction's", async () => {
    const result = await evaluation(
      [
        [3, 4],
        [0, 0],
        [9e-5, 0],
        [0, 5],
      ],
      [
        [3, 4],
        [2, 0],
        [7, 0],
        [0, 5],
      ],
      [[1], [1], [1], [1]],
    );
    expect(result.l2Ratio).toBeCloseTo((1 + 2 + 7 + 1) / 4, 6);
  });

  test("reconstructions of nothing have no bias, and latents that never fire no consistency", async () => {
    const result = await evaluation(
      [
        [1, 2],
        [3, -1],
        [0, 4],
        [2, 2],
      ],
      [
        [0, 0],
        [0, 0],
        [0, 0],
        [0, 0],
      ],
      [
        [0, 0],
        [0, 0],
        [0, 0],
        [0, 0],
      ],
    );
    expect(result).toMatchObject({ l0: 0, l1: 0, cosine: 0, l2Ratio: 0, deadFraction: 1 });
    expect(result.relativeReconstructionBias).toBeNull();
    expect(result.consistency).toBeNull();
    expect([...result.latents.consistency!]).toEqual([Number.NaN, Number.NaN]);
  });

  test("consistency is how often a latent fires in a prompt in which it fires at all", async () => {
    const latents = [
      [1, 2, 0, 0],
      [1, 0, 0, 3],
      [1, 0, 0, 0],
      [0, 0, 0, 4],
      [0, 0, 0, 4],
      [0, 5, 0, 0],
    ];
    const target = latents.map((_, row) => [row, 1]);
    const result = await evaluation(target, target, latents);
    expect([...result.latents.consistency!]).toEqual([3, 1, Number.NaN, 1.5]);
    expect([...result.latents.density]).toEqual([3 / 6, 2 / 6, 0, 3 / 6]);
    expect(result.consistency).toBeCloseTo((3 + 1 + 1.5) / 3, 12);
    expect(result.l1).toBeCloseTo((1 + 2 + 1 + 3 + 1 + 4 + 4 + 5) / 6, 12);
    expect(result.deadFraction).toBe(0.25);
  });

  test("prompts must add up to the batch", async () => {
    using accumulator = new EvaluationAccumulator(device, dIn, dSae);
    const sae = Sae.create(config, device, 4);
    const x = device.tensor(activations, [rows, dIn]);
    const batch = { target: x, reconstruction: sae.reconstruct(x), codes: sae.encode(x), promptRows: [50, 2] };
    await expect(accumulator.add(batch)).rejects.toMatchObject({ code: "ERR_SHAPE_MISMATCH" });
  });
});

interface Tokens {
  readonly target: Float32Array;
  readonly reconstruction: Float32Array;
  readonly latents: Float32Array;
}

/** The definitions, in float64 and with all tokens in memory. */
function expectDefinitions(found: Evaluation, { target, reconstruction, latents }: Tokens): void {
  const sum = (values: Iterable<number>): number => [...values].reduce((total, value) => total + value, 0);
  const mean = (values: Iterable<number>): number => sum(values) / rows;
  const row = (matrix: Float32Array, t: number, width: number): number[] => [
    ...matrix.slice(t * width, (t + 1) * width),
  ];
  const width = target.length / rows;
  const tokens = Array.from({ length: rows }, (_, t) => ({
    y: row(target, t, width),
    yHat: row(reconstruction, t, width),
    f: row(latents, t, dSae),
  }));
  const dot = (a: readonly number[], b: readonly number[]): number => sum(a.map((value, i) => value * b[i]!));
  const norm = (a: readonly number[]): number => Math.sqrt(dot(a, a));
  const minus = (a: readonly number[], b: readonly number[]): number[] => a.map((value, i) => value - b[i]!);
  const centre = Array.from({ length: width }, (_, d) => mean(tokens.map(({ y }) => y[d]!)));
  const errors = tokens.map(({ y, yHat }) => norm(minus(y, yHat)) ** 2);
  const deviations = tokens.map(({ y }) => norm(minus(y, centre)) ** 2);
  const densities = Array.from({ length: dSae }, (_, i) => mean(tokens.map(({ f }) => (f[i] === 0 ? 0 : 1))));
  const fvu = sum(errors) / sum(deviations);
  const expected: Partial<Record<keyof Evaluation, number>> = {
    tokens: rows,
    l0: sum(densities),
    l1: mean(tokens.map(({ f }) => sum(f.map(Math.abs)))),
    mse: mean(errors),
    fvu,
    explainedVariance: 1 - fvu,
    explainedVarianceLegacy: mean(errors.map((error, t) => 1 - error / deviations[t]!)),
    cosine: mean(tokens.map(({ y, yHat }) => dot(y, yHat) / norm(y) / norm(yHat))),
    targetNorm: mean(tokens.map(({ y }) => norm(y))),
    reconstructionNorm: mean(tokens.map(({ yHat }) => norm(yHat))),
    l2Ratio: mean(tokens.map(({ y, yHat }) => norm(yHat) / norm(y))),
    relativeReconstructionBias:
      mean(tokens.map(({ yHat }) => dot(yHat, yHat))) / mean(tokens.map(({ y, yHat }) => dot(y, yHat))),
    deadFraction: densities.filter((density) => density === 0).length / dSae,
  };
  for (const [name, value] of Object.entries(expected)) {
    // x̂ - y is taken in float32, of numbers of about 100
    expect((found[name as keyof Evaluation] as number) / value, name).toBeCloseTo(1, 4);
  }
  expect([...found.latents.density]).toEqual(densities);
}
