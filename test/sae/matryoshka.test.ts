import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Device } from "../../lib/engine/device.js";
import { type SaeTrainingConfig, trainingOf } from "../../lib/sae/config.js";
import { Sae } from "../../lib/sae/sae.js";
import { Trainer } from "../../lib/training/trainer.js";
import { testDevice } from "../testDevice.js";
import { ArraySource } from "../training/arraySource.js";
import { expectBitExactResume } from "../training/bitExactResume.js";
import { dIn as runWidth, training } from "../training/smallRun.js";
import { batchTopkLatents, deadLatentLoss } from "./batchSelectionReference.js";
import { expectSlopes, hostParameters, type LossFunction, noisyBatch, onDevice } from "./float64Step.js";
import { relativeError } from "./goldens.js";
import { gradientStep } from "./gradientStep.js";
import { sparseMixtures } from "./sparseMixtures.js";

let device: Device;
beforeAll(async () => {
  device = await Device.open(testDevice, { threads: 2 });
});
afterAll(() => device.close());

type MatryoshkaConfig = Extract<SaeTrainingConfig, { architecture: "matryoshka" }>;

const matryoshka: MatryoshkaConfig = {
  architecture: "matryoshka",
  dIn: 5,
  dSae: 11,
  k: 2.5,
  widths: [3, 7],
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
  test.each<[string, MatryoshkaConfig, (readonly number[])?]>([
    ["three levels", matryoshka],
    ["one inner level of one latent", { ...matryoshka, widths: [1] }],
    ["a level for every latent", { ...matryoshka, widths: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10] }],
    ["weights", { ...matryoshka, levelWeights: [0.5, 0, 2] }],
    ["free decoder, decoder bias not subtracted", { ...matryoshka, decoderUnitNorm: false, applyBDecToInput: false }],
    ["AuxK, of the full width's error", { ...matryoshka, auxK: 2, levelWeights: [1, 2, 3] }, dead],
    ["skip transcoder", { ...matryoshka, transcoder: true, dOut: 4, skip: true, applyBDecToInput: false }],
    ["crosscoder", { ...matryoshka, hookWidths: [2, 3], decoderUnitNorm: false }],
  ])("%s", async (_, config, deadLatents = []) => {
    const losses: LossFunction = (p, frozen, step) => {
      const f = batchTopkLatents(step, p, config.k);
      const level = (width: number, m: number): number => {
        const prefix = f.map((row) => row.map((value, i) => (i < width ? value : 0)));
        return (config.levelWeights?.[m] ?? 1) * step.squaredError(step.decode(prefix, p), step.target(p));
      };
      const { widths, k } = config;
      const prefixes = widths.map((width, m) => [`prefix${width}`, level(width, m)]);
      return {
        reconstruction: level(config.dSae, widths.length),
        ...Object.fromEntries(prefixes),
        ...deadLatentLoss(step, p, frozen, config, batchTopkLatents(step, frozen, k)),
      };
    };
    await expectSlopes(config, losses, hostParameters(config), noisyBatch(config, deadLatents), device);
  });
});

test("with weight on the full width alone it is BatchTopK", async () => {
  const { widths: _, levelWeights: __, ...shared } = matryoshka;
  const batchtopk = { ...shared, architecture: "batchtopk" } as const;
  const step = async (config: SaeTrainingConfig) => {
    const x = device.tensor(Float32Array.from(noisyBatch(config).x), [7, 5]);
    return gradientStep(config, onDevice(hostParameters(config), config, device), x, device);
  };
  const [nested, plain] = [await step({ ...matryoshka, levelWeights: [0, 0, 1] }), await step(batchtopk)];
  expect(nested.losses.reconstruction).toBeCloseTo(plain.losses.reconstruction!, 5);
  for (const [name, gradient] of Object.entries(nested.gradients)) {
    expect(relativeError(gradient, plain.gradients[name]!), name).toBeLessThan(1e-6);
  }
});

test.each<[string, object, RegExp]>([
  ["widths that do not ascend", { widths: [3, 3] }, /widths must be strictly ascending and below dSae \(11\)/],
  ["a width of dSae", { widths: [3, 11] }, /widths must be strictly ascending/],
  ["no inner width", { widths: [] }, /widths/],
  ["too few weights", { levelWeights: [1, 1] }, /levelWeights must be 3: one per inner width/],
  ["k above dSae", { k: 12 }, /k must be at most dSae/],
])("%s: refused", (_, change, message) => {
  expect(() => trainingOf({ ...matryoshka, ...change })).toThrow(message);
});

test("a resumed run continues bit for bit", async () => {
  const config = { ...matryoshka, dIn: runWidth, dSae: 24, widths: [4, 12], auxK: 4, deadAfterTokens: 64 };
  await expectBitExactResume(config, [3, 10], 16, device);
});

test("learns prefixes that reconstruct by themselves, and is saved as a JumpReLU", async () => {
  const { activations } = sparseMixtures({ features: 24, dIn: 16, active: 3, rows: 1024, seed: 2 });
  const directory = await mkdtemp(join(tmpdir(), "monosem-"));
  const errorOfPrefix = async (name: string, levelWeights: readonly number[]): Promise<number> => {
    const output = join(directory, name);
    const trainer = await Trainer.create({
      sae: { ...matryoshka, dIn: 16, dSae: 32, widths: [8], levelWeights, k: 3, deadAfterTokens: 1024 },
      training: { ...training, batchSize: 128, steps: 150, lr: 1e-2, logEvery: 50 },
      source: new ArraySource(activations, 16, device),
      device,
      output,
    });
    for await (const { l0 } of trainer.run()) expect(l0).toBe(3);
    const cfg = JSON.parse(await readFile(join(output, "sae", "cfg.json"), "utf8"));
    expect(cfg.architecture).toBe("jumprelu");
    using loaded = await Sae.load(join(output, "sae"), device);
    const x = device.tensor(activations, [1024, 16]);
    const prefix = device.kernels.featureRange(loaded.encode(x), 0, 8);
    const squaredError = device.zeros([1], "f64");
    const { decoder, decoderBias: bias } = loaded.parameters;
    device.kernels.decode(prefix, decoder, { bias, target: x, squaredError });
    return squaredError.readScalar();
  };
  try {
    expect(await errorOfPrefix("nested", [1, 1])).toBeLessThan(0.8 * (await errorOfPrefix("plain", [0, 1])));
  } finally {
    await rm(directory, { recursive: true });
  }
});
