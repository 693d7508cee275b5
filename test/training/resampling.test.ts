import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Device } from "../../lib/engine/device.js";
import type { Moments } from "../../lib/engine/kernels.js";
import type { TrainingStep } from "../../lib/sae/architecture.js";
import { parseSaeConfig, type SaeTrainingConfig } from "../../lib/sae/config.js";
import { parameterLayout } from "../../lib/sae/parameterLayout.js";
import { parseConfig } from "../../lib/training/config.js";
import { DeadLatents } from "../../lib/training/deadLatents.js";
import { isResampled, resampleDeadLatents } from "../../lib/training/resampling.js";
import { Trainer } from "../../lib/training/trainer.js";
import { hostParameters, noise, onDevice } from "../sae/float64Step.js";
import { sparseMixtures } from "../sae/sparseMixtures.js";
import { testDevice } from "../testDevice.js";
import { ArraySource } from "./arraySource.js";
import { expectBitExactResume } from "./bitExactResume.js";
import { dIn as runWidth, training } from "./smallRun.js";

let device: Device;
beforeAll(async () => {
  device = await Device.open(testDevice, { threads: 2 });
});
afterAll(() => device.close());

const tokens = 6;
const deadLatents = [2, 3, 7];

/** The configuration that a file with these keys of `sae` stands for; every latent but a few fires. */
function configOf(sae: object): SaeTrainingConfig {
  const data = { activations: "none" };
  const shape = { dIn: 5, dSae: 9, deadAfterTokens: 100, applyBDecToInput: true, decoderUnitNorm: false };
  return parseConfig({ sae: { ...shape, ...sae }, data, training: { steps: 100 }, output: "none" }).sae as never;
}

interface Resampled {
  readonly before: Readonly<Record<string, Float32Array>>;
  readonly after: Readonly<Record<string, Float32Array>>;
  readonly moments: Readonly<Record<string, Float32Array>>;
  readonly tokensSinceFired: Float64Array;
  /** [tokens, dIn] and [tokens, dOut] */
  readonly input: Float32Array;
  readonly target: Float32Array;
}

/** Resamples latents 2, 3 and 7 of an SAE with random parameters and moments of 1. `errors` are the tokens' |r|. */
async function resample(config: SaeTrainingConfig, errors: readonly number[], step = 50): Promise<Resampled> {
  const { dIn, dOut = dIn, dSae } = config;
  const parameters = onDevice(hostParameters(config), config, device);
  const layout = parameterLayout(parseSaeConfig(config));
  const moments = new Map<string, Moments>();
  for (const { name, shape, trained } of layout) {
    if (!trained) continue;
    const [m, v] = [device.empty(shape), device.empty(shape)];
    for (const moment of [m, v]) device.kernels.fill(moment, 1);
    moments.set(name, { m, v });
  }
  const counters = Float64Array.from({ length: dSae }, (_, i) => (deadLatents.includes(i) ? 100 + i : i));
  const dead = new DeadLatents(device, dSae, 100, { data: counters, tokensSeen: 1000 });
  const input = Float32Array.from(noise(tokens * dIn, 5));
  const target = dOut === dIn ? input : Float32Array.from(noise(tokens * dOut, 6));
  const read = async (): Promise<Record<string, Float32Array>> => {
    const all = layout.map(async ({ name }) => [name, await parameters[name]!.readFloat32()] as const);
    return Object.fromEntries(await Promise.all(all));
  };
  const before = await read();
  const batch = {
    device,
    kernels: device.kernels,
    parameters,
    input: device.tensor(input, [tokens, dIn]),
    target: device.tensor(target, [tokens, dOut]),
    residual: device.tensor(
      Float32Array.from({ length: tokens * dOut }, (_, i) => (i % dOut ? 0 : errors[i / dOut]!)),
      [tokens, dOut],
    ),
    tokens,
    step,
    keep: <T>(handle: T): T => handle,
  };
  await resampleDeadLatents(batch as unknown as TrainingStep & { residual: typeof batch.residual }, {
    config,
    moments,
    dead,
    seed: 3,
  });
  const momentsAfter: Record<string, Float32Array> = {};
  for (const [name, { m, v }] of moments) {
    momentsAfter[name] = await m.readFloat32();
    expect(await v.readFloat32()).toEqual(momentsAfter[name]);
  }
  const tokensSinceFired = (await dead.tokensSinceFired.read()) as Float64Array;
  return { before, after: await read(), moments: momentsAfter, tokensSinceFired, input, target };
}

const row = (matrix: Float32Array, i: number, rows = 9): number[] =>
  Array.from(matrix.subarray((i * matrix.length) / rows, ((i + 1) * matrix.length) / rows));
const unit = (values: readonly number[]): number[] => values.map((value) => value / Math.hypot(...values));
const meanNormOfLiving = (matrix: Float32Array): number => {
  const living = [0, 1, 4, 5, 6, 8].map((latent) => Math.hypot(...row(matrix, latent)));
  return living.reduce((sum, norm) => sum + norm, 0) / living.length;
};
function expectRow(found: readonly number[], expected: readonly number[]): void {
  expect(found).toHaveLength(expected.length);
  for (const [i, value] of expected.entries()) expect(found[i]).toBeCloseTo(value, 5);
}

describe("a dead latent", () => {
  const configs: [string, SaeTrainingConfig][] = [
    ["relu", configOf({ architecture: "relu", l1Coefficient: 1 })],
    ["relu, unit decoder", configOf({ architecture: "relu", l1Coefficient: 1, decoderUnitNorm: true })],
    ["topk transcoder", configOf({ architecture: "topk", k: 2, transcoder: true, dOut: 7, applyBDecToInput: false })],
    ["batchtopk", configOf({ architecture: "batchtopk", k: 2 })],
    ["gated", configOf({ architecture: "gated", l1Coefficient: 1 })],
    ["soft-gated", configOf({ architecture: "soft-gated", l1Coefficient: 1 })],
    ["jumprelu", configOf({ architecture: "jumprelu", l0Coefficient: 1, targetL0: 2, initialThreshold: 0.25 })],
  ];
  test.each(configs)("gets a badly reconstructed token's directions, and starts anew: %s", async (_, config) => {
    // three tokens with an error for three dead latents: all are drawn, whatever the random numbers
    const { before, after, moments, tokensSinceFired, input, target } = await resample(config, [0, 3, 0, 1, 2, 0]);
    const decoderNorm = config.decoderUnitNorm ? 1 : meanNormOfLiving(before.decoder!);
    const candidates = [1, 3, 4].map((token) => ({
      encoder: unit(row(input, token, tokens)).map((value) => 0.2 * meanNormOfLiving(before.encoder!) * value),
      decoder: unit(row(target, token, tokens).map((value, d) => value - before.decoderBias![d]!)).map(
        (value) => decoderNorm * value,
      ),
    }));
    const drawn = new Set<number>();
    for (const latent of deadLatents) {
      const found = row(after.encoder!, latent);
      const token = candidates.findIndex(({ encoder }) => Math.abs(encoder[0]! - found[0]!) < 1e-5);
      drawn.add(token);
      expectRow(found, candidates[token]!.encoder);
      expectRow(row(after.decoder!, latent), candidates[token]!.decoder);
      if (after.gateEncoder) expectRow(row(after.gateEncoder, latent), found);
    }
    expect(drawn.size).toBe(3);

    const start: Record<string, number> = { threshold: 0.25 };
    for (const [name, values] of Object.entries(after)) {
      const untouched = config.architecture === "batchtopk" && name === "threshold"; // it is not the latent's own
      if (values.length !== 9 || untouched) continue;
      for (const latent of deadLatents) expect(values[latent], name).toBe(start[name] ?? 0);
    }
    for (const [name, moment] of Object.entries(moments)) {
      const isLatents = !["decoderBias", "skip"].includes(name);
      for (const latent of Array.from({ length: 9 }, (_, i) => i)) {
        const expected = isLatents && deadLatents.includes(latent) ? 0 : 1;
        if (isLatents) expect(new Set(row(moment, latent)), name).toEqual(new Set([expected]));
      }
      if (!isLatents) expect(new Set(moment)).toEqual(new Set([1]));
    }
    expect([...tokensSinceFired]).toEqual([0, 1, 0, 0, 4, 5, 6, 0, 8]);
  });

  test.each(configs)("leaves the living as they are: %s", async (_, config) => {
    const { before, after } = await resample(config, [1, 1, 1, 1, 1, 1]);
    expect(after.decoderBias).toEqual(before.decoderBias);
    for (const name of Object.keys(after).filter((key) => key !== "decoderBias")) {
      for (const latent of [0, 1, 4, 5, 6, 8]) expect(row(after[name]!, latent)).toEqual(row(before[name]!, latent));
    }
  });

  test("stays dead where the batch has no token left to take", async () => {
    const config = configOf({ architecture: "relu", l1Coefficient: 1 });
    const { before, after, tokensSinceFired } = await resample(config, [0, 0, 0, 0, 5, 0]);
    expect(row(after.encoder!, 2)).not.toEqual(row(before.encoder!, 2));
    for (const latent of [3, 7]) expect(row(after.encoder!, latent)).toEqual(row(before.encoder!, latent));
    expect([...tokensSinceFired]).toEqual([0, 1, 0, 103, 4, 5, 6, 107, 8]);
    const nothing = await resample(config, [0, 0, 0, 0, 0, 0]);
    expect(nothing.after).toEqual(nothing.before);
  });

  test("gets what seed and step say, and at another step something else", async () => {
    const config = configOf({ architecture: "relu", l1Coefficient: 1 });
    const errors = [1, 1, 1, 1, 1, 1];
    const first = await resample(config, errors, 50);
    expect((await resample(config, errors, 50)).after).toEqual(first.after);
    const others = await Promise.all([51, 52, 53].map((step) => resample(config, errors, step)));
    expect(others.some(({ after }) => after.encoder!.some((value, i) => value !== first.after.encoder![i]))).toBe(true);
  });

  test("gets a token with a probability that grows with the square of its error", async () => {
    const config = configOf({ architecture: "relu", l1Coefficient: 1 });
    const draws = 150;
    let larger = 0;
    for (let step = 1; step <= draws; step++) {
      // of errors 1 and 3, the first latent takes the second with probability 9/10
      const { after, input } = await resample(config, [0, 1, 0, 3, 0, 0], step);
      const direction = unit(row(after.encoder!, 2));
      if (Math.abs(direction[0]! - unit(row(input, 3, tokens))[0]!) < 1e-4) larger++;
    }
    expect(larger / draws).toBeGreaterThan(0.83);
    expect(larger / draws).toBeLessThan(0.97);
  });
});

test("resampling comes before every resampleEvery-th step, never before the first", () => {
  const every = (resampleEvery?: number) => {
    const config = { ...configOf({ architecture: "relu", l1Coefficient: 1 }), resampleEvery };
    return Array.from({ length: 9 }, (_, step) => isResampled(config, step));
  };
  expect(every(4).flatMap((resampled, step) => (resampled ? [step] : []))).toEqual([4, 8]);
  for (const never of [every(0), every(undefined)]) expect(never).not.toContain(true);
});

describe("a run", () => {
  const { activations } = sparseMixtures({ features: 24, dIn: runWidth, active: 2, rows: 512, seed: 4 });
  const small = { dIn: runWidth, dSae: 32, deadAfterTokens: 256 };
  const annealedOver = (steps: number): [string, object][] => [
    ["relu with p-annealing", { architecture: "relu", l1Coefficient: 0.5, pEnd: 0.6, pAnnealSteps: steps }],
    ["topk with k annealing", { architecture: "topk", k: 3, initialK: 8, kAnnealSteps: steps }],
    ["batchtopk", { architecture: "batchtopk", k: 6 }],
    ["matryoshka", { architecture: "matryoshka", k: 6, widths: [8] }],
    ["gated", { architecture: "gated", l1Coefficient: 0.5 }],
    ["jumprelu", { architecture: "jumprelu", l0Coefficient: 0.5, targetL0: 2 }],
  ];

  test.each(annealedOver(57))("brings dead latents to life: %s", async (_, own) => {
    const deadAtTheEnd = async (resampleEvery: number): Promise<number> => {
      const sae = configOf({ ...small, ...own, resampleEvery });
      const trainer = await Trainer.create({
        sae,
        training: { ...training, batchSize: 64, steps: 58, lr: 3e-3, logEvery: 58 },
        source: new ArraySource(activations, runWidth, device),
        device,
      });
      const p = trainer.sae.parameters;
      const bias = p.encoderBias ?? p.gateBias!;
      bias.write(Float32Array.from({ length: 32 }, (_, latent) => (latent % 2 ? -10 : 0))); // half cannot fire
      let dead = Number.NaN;
      for await (const { deadFraction } of trainer.run()) dead = 32 * deadFraction;
      trainer.dispose();
      return dead;
    };
    expect(await deadAtTheEnd(0)).toBe(16);
    // once, at step 30: by the end, what has not fired since would be dead again
    expect(await deadAtTheEnd(30)).toBeLessThanOrEqual(4);
  });

  test.each(annealedOver(11))("is resumed bit for bit before, at and after a resampling: %s", async (_, own) => {
    const sae = configOf({ ...small, deadAfterTokens: 32, ...own, resampleEvery: 5 });
    await expectBitExactResume(sae, [4, 5, 6, 10], 12, device);
  });
});
