import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Device } from "../../lib/engine/device.js";
import { parseSaeConfig, type SaeTrainingConfig } from "../../lib/sae/config.js";
import { Sae } from "../../lib/sae/sae.js";
import { parseConfig } from "../../lib/training/config.js";
import { Trainer } from "../../lib/training/trainer.js";
import { testDevice } from "../testDevice.js";
import { ArraySource } from "../training/arraySource.js";
import { training } from "../training/smallRun.js";
import { expectSlopes, hostParameters, type LossFunction, noise, noisyBatch, onDevice } from "./float64Step.js";
import { relativeError } from "./goldens.js";
import { sparseMixtures } from "./sparseMixtures.js";

let device: Device;
beforeAll(async () => {
  device = await Device.open(testDevice, { threads: 2 });
});
afterAll(() => device.close());

const gated: SaeTrainingConfig = {
  architecture: "gated",
  dIn: 5,
  dSae: 11,
  l1Coefficient: 0.7,
  applyBDecToInput: true,
  decoderUnitNorm: true,
  deadAfterTokens: 1,
  bDecInit: "zero",
  normalizeActivations: "none",
};
const free = { ...gated, decoderUnitNorm: false };
const cases: [string, SaeTrainingConfig][] = [
  ["unit decoder", gated],
  ["free decoder: the penalty is weighted by its norms", free],
  ["decoder bias not subtracted", { ...gated, applyBDecToInput: false }],
  ["transcoder", { ...free, applyBDecToInput: false, transcoder: true, dOut: 3 }],
  ["skip transcoder", { ...gated, applyBDecToInput: false, transcoder: true, dOut: 8, skip: true }],
  ["crosscoder", { ...free, hookWidths: [2, 3] }],
];

/** The loss of arXiv:2404.16014; the auxiliary term sees decoder, its bias and the skip as constants. */
const loss: LossFunction = (p, frozen, step) => {
  const { l1Coefficient } = step.config as { l1Coefficient: number };
  const z = step.product(p, p.encoder!);
  const gate = z.map((row) => row.map((value, i) => value + p.gateBias![i]!));
  const f = z.map((row, t) =>
    row.map((value, i) => {
      const magnitude = Math.exp(p.magnitudeScale![i]!) * value + p.magnitudeBias![i]!;
      return gate[t]![i]! > 0 ? Math.max(magnitude, 0) : 0;
    }),
  );
  const open = gate.map((row) => row.map((value) => Math.max(value, 0)));
  const norms = step.norms(p);
  const l1 = step.mean(open.map((row) => row.reduce((sum, value, i) => sum + value * norms[i]!, 0)));
  return {
    reconstruction: step.squaredError(step.decode(f, p), step.target(p)),
    sparsity: l1Coefficient * step.batch.sparsityScale * l1,
    auxiliary: step.squaredError(step.decode(open, frozen), step.target(frozen)),
  };
};

describe("losses and gradients are those of the paper", () => {
  test.each(cases)("%s", async (_, config) => {
    await expectSlopes(config, loss, hostParameters(config), noisyBatch(config), device);
  });
});

test("latents are 1[π > 0] ReLU(exp(r_mag) z + b_mag), one encoder product away from the input", async () => {
  const p = hostParameters(gated);
  const sae = new Sae(parseSaeConfig(gated), onDevice(p, gated, device), device);
  const x = noise(40 * 5, 9);
  const rows = device.tensor(Float32Array.from(x), [40, 5]);
  const codes = sae.encode(rows);
  const expected: number[] = [];
  let closed = 0;
  let negative = 0;
  for (let t = 0; t < 40; t++) {
    for (let i = 0; i < 11; i++) {
      let z = 0;
      for (let d = 0; d < 5; d++) z += (x[t * 5 + d]! - p.decoderBias![d]!) * p.encoder![i * 5 + d]!;
      const magnitude = Math.exp(p.magnitudeScale![i]!) * z + p.magnitudeBias![i]!;
      const open = z + p.gateBias![i]! > 0;
      if (!open && magnitude > 0) closed++;
      if (open && magnitude < 0) negative++;
      expected.push(open ? Math.max(magnitude, 0) : 0);
    }
  }
  expect(relativeError(await device.kernels.densify(codes).readFloat32(), Float32Array.from(expected))).toBeLessThan(
    1e-6,
  );
  expect(closed).toBeGreaterThan(0); // both ways of being inactive occur
  expect(negative).toBeGreaterThan(0);
  const counts = await device.kernels.featureCounts(codes).readFloat32();
  expect(counts.reduce((sum, count) => sum + count, 0)).toBe(expected.filter((value) => value > 0).length);
});

test.each(cases)("folding the decoder norms changes no reconstruction: %s", async (_, config) => {
  const { dIn, dSae } = config;
  const sae = new Sae(parseSaeConfig(config), onDevice(hostParameters(config), config, device), device);
  const x = device.tensor(Float32Array.from(noise(30 * dIn, 9)), [30, dIn]);
  const before = await sae.reconstruct(x).readFloat32();
  sae.foldDecoderNorm();
  expect(relativeError(await sae.reconstruct(x).readFloat32(), before)).toBeLessThan(2e-6);
  const { hookWidths: blockWidths } = config;
  const norms = await device.kernels.rowNorms(sae.parameters.decoder, { blockWidths }).readFloat32();
  expect(relativeError(norms, new Float32Array(dSae).fill(1))).toBeLessThan(1e-6);
});

describe("training", () => {
  const shape = { dIn: 16, dSae: 32 };
  const data = sparseMixtures({ features: 24, dIn: 16, active: 2, rows: 4096, seed: 3 });

  test("finds the features that the data are made of, and keeps decoder rows at norm 1", async () => {
    const steps = 400;
    const trainer = await Trainer.create({
      sae: { ...gated, ...shape, l1Coefficient: 1 },
      training: { ...training, batchSize: 256, steps, lr: 1e-2, logEvery: steps, l1WarmupSteps: 50 },
      source: new ArraySource(data.activations, 16, device),
      device,
    });
    for await (const { l0, explainedVariance } of trainer.run()) {
      expect(l0).toBeGreaterThan(1.5);
      expect(l0).toBeLessThan(2.5); // two features per activation
      expect(explainedVariance).toBeGreaterThan(0.9);
    }
    expect(await data.meanBestCosine(trainer.sae)).toBeGreaterThan(0.95);
    const norms = await device.kernels.rowNorms(trainer.sae.parameters.decoder).readFloat32();
    for (const norm of norms) expect(norm).toBeCloseTo(1, 5);
  });

  test("refuses NaN among the activations in the step in which it appears", async () => {
    const activations = data.activations.slice();
    activations[300 * 16] = Number.NaN;
    const trainer = await Trainer.create({
      sae: { ...gated, ...shape },
      training: { ...training, batchSize: 256, steps: 5 },
      source: new ArraySource(activations, 16, device),
      device,
    });
    await expect(async () => {
      for await (const _ of trainer.run());
    }).rejects.toThrow(/step 2/);
  });
});

test("the configuration file needs l1Coefficient, and has the unit-norm decoder as default", () => {
  const file = (sae: object) =>
    parseConfig({
      sae: { architecture: "gated", dIn: 4, dSae: 8, ...sae },
      data: { activations: "a" },
      training: { steps: 1 },
      output: "o",
    });
  expect(file({ l1Coefficient: 2 }).sae).toMatchObject({ l1Coefficient: 2, decoderUnitNorm: true });
  expect(() => file({})).toThrow(/sae\.l1Coefficient/);
});
