import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Codes } from "../../lib/engine/codes.js";
import { Device } from "../../lib/engine/device.js";
import type { GradientStep } from "../../lib/sae/architecture.js";
import { type SaeTrainingConfig, trainingOf } from "../../lib/sae/config.js";
import { Sae } from "../../lib/sae/sae.js";
import { Trainer } from "../../lib/training/trainer.js";
import { testDevice } from "../testDevice.js";
import { ArraySource } from "../training/arraySource.js";
import { expectBitExactResume } from "../training/bitExactResume.js";
import { dIn as runWidth, training } from "../training/smallRun.js";
import { batchTopkLatents, deadLatentLoss } from "./batchSelectionReference.js";
import { expectSlopes, hostParameters, type LossFunction, noisyBatch, onDevice } from "./float64Step.js";
import { gradientStep } from "./gradientStep.js";
import { sparseMixtures } from "./sparseMixtures.js";

let device: Device;
beforeAll(async () => {
  device = await Device.open(testDevice, { threads: 2 });
});
afterAll(() => device.close());

type BatchTopkConfig = Extract<SaeTrainingConfig, { architecture: "batchtopk" }>;

const batchtopk: BatchTopkConfig = {
  architecture: "batchtopk",
  dIn: 5,
  dSae: 11,
  k: 2.5,
  auxK: 0,
  auxCoefficient: 0.3,
  thresholdDecay: 0.9,
  applyBDecToInput: true,
  decoderUnitNorm: true,
  deadAfterTokens: 1,
  bDecInit: "zero",
  normalizeActivations: "none",
};
const dead = [1, 4, 9];

describe("loss terms and gradients are those of float64 loops and central differences", () => {
  test.each<[string, BatchTopkConfig, (readonly number[])?]>([
    ["2.5 latents per token", batchtopk],
    ["free decoder, decoder bias not subtracted", { ...batchtopk, decoderUnitNorm: false, applyBDecToInput: false }],
    ["less than one latent per token", { ...batchtopk, k: 0.3 }],
    ["more than are positive", { ...batchtopk, k: 11 }],
    ["AuxK", { ...batchtopk, auxK: 2 }, dead],
    ["AuxK with fewer dead latents than auxK", { ...batchtopk, auxK: 5 }, dead],
    [
      "skip transcoder with AuxK",
      { ...batchtopk, auxK: 2, transcoder: true, dOut: 4, skip: true, applyBDecToInput: false },
      dead,
    ],
    ["crosscoder", { ...batchtopk, hookWidths: [2, 3], decoderUnitNorm: false }],
  ])("%s", async (_, config, deadLatents = []) => {
    const losses: LossFunction = (p, frozen, step) => {
      const f = batchTopkLatents(step, p, config.k);
      const reconstruction = step.squaredError(step.decode(f, p), step.target(p));
      return { reconstruction, ...deadLatentLoss(step, p, frozen, config, batchTopkLatents(step, frozen, config.k)) };
    };
    await expectSlopes(config, losses, hostParameters(config), noisyBatch(config, deadLatents), device);
  });
});

describe("in training", () => {
  test.each([
    [1, 7],
    [2.5, 17],
    [1 / 3, 2],
    [0.1, 0],
  ])("k = %s on 7 tokens selects exactly %i latents, wherever in the batch they are", async (k, expected) => {
    const config = { ...batchtopk, k };
    const { x } = noisyBatch(config);
    const parameters = onDevice(hostParameters(config), config, device);
    const { codes } = await gradientStep(config, parameters, device.tensor(Float32Array.from(x), [7, 5]), device);
    const { rowOffsets, values } = await codes.read();
    expect(values).toHaveLength(expected);
    expect(values.every((value) => value > 0)).toBe(true);
    if (k === 2.5)
      expect(new Set(rowOffsets.slice(1).map((end, row) => end - rowOffsets[row]!)).size).toBeGreaterThan(1);
  });

  test("the threshold is the running mean of the smallest selected value, without bias towards 0", async () => {
    const parameters = onDevice({ ...hostParameters(batchtopk), threshold: new Float64Array(11) }, batchtopk, device);
    const state = { threshold: device.zeros([2], "f64") };
    const architecture = trainingOf(batchtopk);
    const minima = [0.75, 0.25, undefined, 2];
    let [sum, weight] = [0, 0];
    for (const minimum of minima) {
      const step = { kernels: device.kernels, parameters, state, codes: codesWithMinimum(minimum) };
      architecture.afterStep(step as unknown as GradientStep);
      if (minimum !== undefined) {
        sum = 0.9 * sum + 0.1 * minimum;
        weight = 0.9 * weight + 0.1;
      }
      const threshold = await parameters.threshold!.readFloat32();
      expect(new Set(threshold)).toEqual(new Set([Math.fround(sum / weight)]));
    }
  });

  test("a resumed run continues bit for bit, the threshold too", async () => {
    const config = { ...batchtopk, dIn: runWidth, dSae: 24, auxK: 4, deadAfterTokens: 64 };
    const end = await expectBitExactResume(config, [3, 10], 16, device);
    expect(end["state.threshold"]).toHaveLength(2);
    expect(end.threshold![0]).toBeGreaterThan(0);
  });
});

test("once trained, the SAE is saved as a JumpReLU whose L0 is that of the training", async () => {
  const { activations, meanBestCosine } = sparseMixtures({ features: 24, dIn: 16, active: 3, rows: 1024, seed: 2 });
  const directory = await mkdtemp(join(tmpdir(), "monosem-"));
  try {
    const trainer = await Trainer.create({
      sae: { ...batchtopk, dIn: 16, dSae: 32, k: 3, thresholdDecay: 0.95, deadAfterTokens: 1024, auxK: 8 },
      training: { ...training, batchSize: 128, steps: 200, lr: 1e-2, logEvery: 50 },
      source: new ArraySource(activations, 16, device),
      device,
      output: join(directory, "run"),
    });
    for await (const { l0 } of trainer.run()) expect(l0).toBe(3);
    expect(await meanBestCosine(trainer.sae)).toBeGreaterThan(0.85);

    const folder = join(directory, "run", "sae");
    expect(JSON.parse(await readFile(join(folder, "cfg.json"), "utf8")).architecture).toBe("jumprelu");
    using loaded = await Sae.load(folder, device);
    expect(loaded.config.architecture).toBe("jumprelu");
    const x = device.tensor(activations, [1024, 16]);
    const codes = await loaded.encode(x).read();
    expect(codes).toEqual(await trainer.sae.encode(x).read());
    expect(codes.values.length / 1024).toBeGreaterThan(2.8);
    expect(codes.values.length / 1024).toBeLessThan(3.2);
  } finally {
    await rm(directory, { recursive: true });
  }
});

test("k above dSae is refused", () => {
  expect(() => trainingOf({ ...batchtopk, k: 11.5 })).toThrow(/k must be at most dSae \(11\)/);
});

/** One token's codes with this smallest value, and none at all without it. */
function codesWithMinimum(minimum: number | undefined): Codes {
  const encoder = device.tensor(Float32Array.of(minimum ?? -1, 3), [2, 1]);
  const one = device.tensor(Float32Array.of(1), [1, 1]);
  return device.kernels.encode(one, encoder, device.zeros([2]), {
    select: "batchtopk",
    k: minimum === undefined ? 0 : 2,
  });
}
