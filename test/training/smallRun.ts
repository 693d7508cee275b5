/** A small training run, for tests that need the same one in this process and in another. */

import { Device } from "../../lib/engine/device.js";
import type { SaeTrainingConfig } from "../../lib/sae/config.js";
import type { TrainingConfig } from "../../lib/training/config.js";
import { Trainer } from "../../lib/training/trainer.js";
import { testDevice } from "../testDevice.js";
import { ArraySource } from "./arraySource.js";

export const dIn = 8;
export const rows = 96;
export const activations: Float32Array = Float32Array.from(
  { length: rows * dIn },
  (_, i) => Math.sin(i * 0.7) + Math.cos(i * i * 0.13) + 0.5,
);

export const sae: SaeTrainingConfig = {
  architecture: "topk",
  dIn,
  dSae: 24,
  k: 3,
  auxK: 4,
  auxCoefficient: 1 / 32,
  kAnnealSteps: 0,
  multiTopkCoefficient: 0,
  applyBDecToInput: true,
  decoderUnitNorm: true,
  deadAfterTokens: 64,
  bDecInit: "zero",
  normalizeActivations: "none",
};

export const training: TrainingConfig = {
  batchSize: 32,
  steps: 20,
  lr: 1e-2,
  adamBeta1: 0.9,
  adamBeta2: 0.999,
  adamEpsilon: 1e-8,
  lrWarmupSteps: 3,
  lrDecaySteps: 0,
  lrSchedule: "constant",
  l1WarmupSteps: 5,
  clipGradNorm: 1,
  seed: 1,
  logEvery: 4,
  checkpointEvery: 6,
};

/** Trains (or resumes) in a child process, printing every logged step, and a failure as its code and message. */
export async function trainAndReport(output: string, steps: number): Promise<void> {
  const device = await Device.open(testDevice, { threads: 1 });
  try {
    const source = new ArraySource(activations, dIn, device);
    const trainer = await Trainer.create({
      sae,
      training: { ...training, steps },
      source,
      device,
      output,
      resume: true,
    });
    for await (const { step } of trainer.run()) process.stdout.write(`${step}\n`);
  } catch (error) {
    process.stdout.write(`${(error as { code?: string }).code}: ${(error as Error).message}\n`);
  }
}
