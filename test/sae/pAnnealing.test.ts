import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Device } from "../../lib/engine/device.js";
import type { SaeTrainingConfig } from "../../lib/sae/config.js";
import { trainingOf } from "../../lib/sae/config.js";
import { exponentAt } from "../../lib/sae/pAnnealing.js";
import { parseConfig } from "../../lib/training/config.js";
import { Trainer, type TrainingProgress } from "../../lib/training/trainer.js";
import { testDevice } from "../testDevice.js";
import { ArraySource } from "../training/arraySource.js";
import { expectBitExactResume } from "../training/bitExactResume.js";
import { activations, dIn as runWidth, training } from "../training/smallRun.js";
import { expectSlopes, hostParameters, type LossFunction, noisyBatch } from "./float64Step.js";

let device: Device;
beforeAll(async () => {
  device = await Device.open(testDevice, { threads: 2 });
});
afterAll(() => device.close());

type ReluConfig = Extract<SaeTrainingConfig, { architecture: "relu" }>;

/** p is pEnd from the first step on. */
const relu: ReluConfig = {
  architecture: "relu",
  dIn: 5,
  dSae: 11,
  l1Coefficient: 0.7,
  pEnd: 0.5,
  pAnnealStart: 0,
  pAnnealSteps: 0,
  pAnnealUpdates: 10,
  ghostGradients: false,
  applyBDecToInput: true,
  decoderUnitNorm: false,
  deadAfterTokens: 1000,
  bDecInit: "zero",
  normalizeActivations: "none",
};

describe("p", () => {
  const schedule = { pEnd: 0.2, pAnnealStart: 100, pAnnealSteps: 40, pAnnealUpdates: 4 };

  test("falls from 1 to pEnd in equal decrements, the j-th at start + j steps / updates", () => {
    const expected = [
      [0, 1],
      [109, 1],
      [110, 0.8],
      [119, 0.8],
      [120, 0.6],
      [130, 0.4],
      [139, 0.4],
      [140, 0.2],
      [1e9, 0.2],
    ] as const;
    for (const [step, p] of expected) expect(exponentAt(schedule, step), `step ${step}`).toBeCloseTo(p, 15);
  });

  test("falls in whole steps where updates do not divide the steps, several times at once where they are more", () => {
    const at = (pAnnealSteps: number, pAnnealUpdates: number) =>
      Array.from({ length: 7 }, (_, step) =>
        Math.round(100 * exponentAt({ pEnd: 0.4, pAnnealStart: 1, pAnnealSteps, pAnnealUpdates }, step)),
      );
    expect(at(5, 3)).toEqual([100, 100, 80, 80, 60, 60, 40]);
    expect(at(2, 6)).toEqual([100, 80, 50, 40, 40, 40, 40]);
    expect(at(0, 3)).toEqual([100, 40, 40, 40, 40, 40, 40]);
  });

  test("stays 1 with pEnd 1", () => {
    expect(exponentAt({ ...schedule, pEnd: 1 }, 1000)).toBe(1);
  });

  test("below 1 at the end needs to be told in how many steps: without that it would be p from the first step on", () => {
    const { pAnnealSteps: _, ...sae } = relu;
    expect(() => trainingOf(sae)).toThrow(/pAnnealSteps is needed to anneal p to pEnd \(0.5\)/);
    expect(() => trainingOf({ ...sae, pEnd: 1 })).not.toThrow();
    expect(() => trainingOf(relu)).not.toThrow();
  });

  test.each([0, -0.5, 1.5])("of %s at the end is refused", (pEnd) => {
    const sae = { architecture: "relu", dIn: 2, dSae: 4, l1Coefficient: 1, pEnd };
    const config = { sae, data: { activations: "a" }, training: { steps: 1 }, output: "o" };
    expect(() => parseConfig(config)).toThrow(/sae.pEnd/);
  });
});

describe("loss terms and gradients are those of float64 loops and central differences", () => {
  test.each<[string, ReluConfig]>([
    ["free decoder", relu],
    ["unit decoder", { ...relu, decoderUnitNorm: true }],
    ["p near 0", { ...relu, pEnd: 0.05, l1Coefficient: 0.1 }],
    ["p = 1", { ...relu, pEnd: 1 }],
    ["skip transcoder", { ...relu, transcoder: true, dOut: 4, skip: true, applyBDecToInput: false }],
    ["crosscoder", { ...relu, hookWidths: [2, 3] }],
  ])("%s", async (_, config) => {
    const losses: LossFunction = (p, __, step) => {
      const z = step.product(p, p.encoder!).map((row) => row.map((value, i) => value + p.encoderBias![i]!));
      const f = z.map((row) => row.map((value) => Math.max(value, 0)));
      const norms = step.norms(p);
      const penalties = f.map((row) =>
        row.reduce((sum, value, i) => sum + (value > 0 ? (value * norms[i]!) ** config.pEnd : 0), 0),
      );
      return {
        reconstruction: step.squaredError(step.decode(f, p), step.target(p)),
        sparsity: config.l1Coefficient * step.batch.sparsityScale * step.mean(penalties),
      };
    };
    await expectSlopes(config, losses, hostParameters(config), noisyBatch(config), device);
  });
});

describe("the coefficient", () => {
  const annealed: ReluConfig = { ...relu, dIn: runWidth, dSae: 24, pEnd: 0.3, pAnnealSteps: 30, pAnnealStart: 3 };

  async function train(sae: ReluConfig, options: { steps: number; lr: number; batchSize: number }, data = activations) {
    const trainer = await Trainer.create({
      sae,
      training: { ...training, ...options, l1WarmupSteps: 0, lrWarmupSteps: 0, logEvery: 1 },
      source: new ArraySource(data, runWidth, device),
      device,
    });
    const progress: TrainingProgress[] = [];
    for await (const line of trainer.run()) progress.push(line);
    trainer.dispose();
    trainer.sae.dispose();
    return progress.map(({ losses }) => losses.sparsity!);
  }

  test.each([
    ["every 3 steps", { pAnnealSteps: 30 }],
    ["every 13 steps", { pAnnealSteps: 39, pAnnealUpdates: 3 }],
    ["with every step", { pAnnealSteps: 10 }],
    ["once", { pAnnealSteps: 17, pAnnealUpdates: 1 }],
  ])("keeps the penalty as large as it was when p changes %s", async (_, schedule) => {
    // one batch over and over and a learning rate of next to nothing: the latents stay
    const batchSize = activations.length / runWidth;
    const losses = await train({ ...annealed, ...schedule }, { steps: 50, lr: 1e-12, batchSize });
    for (const loss of losses) expect(Math.abs(loss / losses[0]! - 1)).toBeLessThan(1e-5);
  });

  test("is from the latents of the last 10 steps before the change alone", async () => {
    // steps 0 and 1 see the first batch, whose latents are 3 times those of the second in all other steps
    const rows = 10;
    const small = activations.subarray(0, rows * runWidth);
    const data = new Float32Array(14 * rows * runWidth);
    for (let step = 0; step < 14; step++) {
      data.set(step < 2 ? small.map((value) => 3 * value) : small, step * rows * runWidth);
    }
    const schedule = { pAnnealStart: 0, pAnnealSteps: 12, pAnnealUpdates: 1 };
    const losses = await train({ ...annealed, ...schedule }, { steps: 14, lr: 1e-12, batchSize: rows }, data);
    expect(Math.abs(losses[0]! / losses[2]! - 3)).toBeLessThan(1e-5);
    expect(Math.abs(losses[12]! / losses[2]! - 1)).toBeLessThan(1e-5);
  });

  test("stays where no latent is active", async () => {
    const zeros = new Float32Array(activations.length);
    expect(await train(annealed, { steps: 40, lr: 1e-3, batchSize: 32 }, zeros)).toEqual(new Array(40).fill(0));
  });

  test.each([{ decoderUnitNorm: false }, { decoderUnitNorm: true }])(
    "continues bit for bit when a run is resumed, with %o",
    async (unitNorm) => {
      const end = await expectBitExactResume({ ...annealed, ...unitNorm }, [1, 5, 6, 13], 40, device);
      expect(end["state.coefficient"]![0]).toBeGreaterThan(0);
    },
  );
});
