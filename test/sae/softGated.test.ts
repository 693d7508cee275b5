import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Device } from "../../lib/engine/device.js";
import { parseSaeConfig, type SaeTrainingConfig } from "../../lib/sae/config.js";
import { Sae } from "../../lib/sae/sae.js";
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

const softGated: SaeTrainingConfig = {
  architecture: "soft-gated",
  dIn: 5,
  dSae: 11,
  l1Coefficient: 0.7,
  applyBDecToInput: true,
  decoderUnitNorm: true,
  deadAfterTokens: 1,
  bDecInit: "zero",
  normalizeActivations: "none",
};
const free = { ...softGated, decoderUnitNorm: false };
const cases: [string, SaeTrainingConfig][] = [
  ["unit decoder", softGated],
  ["free decoder: the penalty is weighted by its norms", free],
  ["decoder bias not subtracted", { ...softGated, applyBDecToInput: false }],
  ["transcoder", { ...free, applyBDecToInput: false, transcoder: true, dOut: 3 }],
  ["skip transcoder", { ...softGated, applyBDecToInput: false, transcoder: true, dOut: 8, skip: true }],
  ["crosscoder", { ...free, hookWidths: [2, 3] }],
];

const loss: LossFunction = (p, _, step) => {
  const { l1Coefficient } = step.config as { l1Coefficient: number };
  const gate = step
    .product(p, p.gateEncoder!)
    .map((row) => row.map((value, i) => 1 / (1 + Math.exp(-value - p.gateBias![i]!))));
  const f = step
    .product(p, p.encoder!)
    .map((row, t) => row.map((value, i) => gate[t]![i]! * Math.max(value + p.encoderBias![i]!, 0)));
  const norms = step.norms(p);
  const l1 = step.mean(gate.map((row) => row.reduce((sum, value, i) => sum + value * norms[i]!, 0)));
  return {
    reconstruction: step.squaredError(step.decode(f, p), step.target(p)),
    sparsity: l1Coefficient * step.batch.sparsityScale * l1,
  };
};

describe("losses and gradients are the formulas' and their slopes", () => {
  test.each(cases)("%s", async (_, config) => {
    await expectSlopes(config, loss, hostParameters(config), noisyBatch(config), device);
  });
});

test.each(cases)("folding the decoder norms changes no reconstruction: %s", async (_, config) => {
  const { dIn, dSae, hookWidths: blockWidths } = config;
  const sae = new Sae(parseSaeConfig(config), onDevice(hostParameters(config), config, device), device);
  const x = device.tensor(Float32Array.from(noise(30 * dIn, 9)), [30, dIn]);
  const before = await sae.reconstruct(x).readFloat32();
  sae.foldDecoderNorm();
  expect(relativeError(await sae.reconstruct(x).readFloat32(), before)).toBeLessThan(2e-6);
  const norms = await device.kernels.rowNorms(sae.parameters.decoder, { blockWidths }).readFloat32();
  expect(relativeError(norms, new Float32Array(dSae).fill(1))).toBeLessThan(1e-6);
});

test("the gate starts as a copy of the encoder", async () => {
  const sae = Sae.create(softGated, device, 4);
  const { encoder, gateEncoder } = sae.parameters;
  expect(await gateEncoder!.readFloat32()).toEqual(await encoder.readFloat32());
});

test("training learns to reconstruct, and the penalty makes the gates smaller", async () => {
  const data = sparseMixtures({ features: 24, dIn: 16, active: 2, rows: 2048, seed: 3 });
  const results: { explainedVariance: number; gates: number }[] = [];
  for (const l1Coefficient of [0.01, 0.2]) {
    const trainer = await Trainer.create({
      sae: { ...softGated, dIn: 16, dSae: 32, l1Coefficient },
      training: { ...training, batchSize: 256, steps: 200, lr: 1e-2, logEvery: 200 },
      source: new ArraySource(data.activations, 16, device),
      device,
    });
    for await (const { explainedVariance, losses } of trainer.run()) {
      results.push({ explainedVariance, gates: losses.sparsity! / l1Coefficient });
    }
  }
  for (const { explainedVariance } of results) expect(explainedVariance).toBeGreaterThan(0.9);
  expect(results[1]!.gates).toBeLessThan(results[0]!.gates / 2);
});
