import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Device } from "../../lib/engine/device.js";
import { type SaeTrainingConfig, trainingOf } from "../../lib/sae/config.js";
import { testDevice } from "../testDevice.js";
import { expectBitExactResume } from "../training/bitExactResume.js";
import { dIn as runWidth } from "../training/smallRun.js";
import { deadLatentLoss, topkLatents } from "./batchSelectionReference.js";
import { expectSlopes, hostParameters, type LossFunction, noisyBatch, onDevice } from "./float64Step.js";
import { gradientStep } from "./gradientStep.js";

let device: Device;
beforeAll(async () => {
  device = await Device.open(testDevice, { threads: 2 });
});
afterAll(() => device.close());

type TopkConfig = Extract<SaeTrainingConfig, { architecture: "topk" }>;

const topk: TopkConfig = {
  architecture: "topk",
  dIn: 5,
  dSae: 11,
  k: 2,
  auxK: 0,
  auxCoefficient: 0.3,
  kAnnealSteps: 0,
  multiTopkCoefficient: 0,
  applyBDecToInput: true,
  decoderUnitNorm: true,
  deadAfterTokens: 1,
  bDecInit: "zero",
  normalizeActivations: "none",
};
const multi: TopkConfig = { ...topk, multiTopkCoefficient: 1 / 8 };
const dead = [1, 4, 9];

describe("Multi-TopK", () => {
  test.each<[string, TopkConfig, (readonly number[])?]>([
    ["adds the reconstruction by the 4k largest", multi],
    ["by all latents where 4k are more than there are", { ...multi, k: 3 }],
    ["of one latent, in a free decoder", { ...multi, k: 1, decoderUnitNorm: false, applyBDecToInput: false }],
    ["together with AuxK, which models the error of the k largest", { ...multi, auxK: 2 }, dead],
    [
      "of a skip transcoder",
      { ...multi, auxK: 2, transcoder: true, dOut: 4, skip: true, applyBDecToInput: false },
      dead,
    ],
    ["of a crosscoder", { ...multi, hookWidths: [2, 3], decoderUnitNorm: false }],
  ])("%s; its gradients are the loss's slopes", async (_, config, deadLatents = []) => {
    const losses: LossFunction = (p, frozen, step) => {
      const error = (k: number) => step.squaredError(step.decode(topkLatents(step, p, k), p), step.target(p));
      return {
        reconstruction: error(config.k),
        multiTopk: config.multiTopkCoefficient * error(4 * config.k),
        ...deadLatentLoss(step, p, frozen, config, topkLatents(step, frozen, config.k)),
      };
    };
    await expectSlopes(config, losses, hostParameters(config), noisyBatch(config, deadLatents), device);
  });

  test("leaves the latents as they are", async () => {
    const x = device.tensor(Float32Array.from(noisyBatch(topk).x), [7, 5]);
    const codes = async (config: TopkConfig) => {
      const result = await gradientStep(config, onDevice(hostParameters(config), config, device), x, device);
      return result.codes.read();
    };
    expect(await codes(multi)).toEqual(await codes(topk));
  });

  test("reaches the encoder of latents that the k largest leave without gradient", async () => {
    const x = device.tensor(Float32Array.from(noisyBatch(topk).x), [7, 5]);
    const moved = async (config: TopkConfig) => {
      const result = await gradientStep(config, onDevice(hostParameters(config), config, device), x, device);
      return result.gradients.encoderBias!.filter((value) => value !== 0).length;
    };
    expect(await moved({ ...multi, k: 1 })).toBeGreaterThan(await moved({ ...topk, k: 1 }));
  });
});

describe("k annealing", () => {
  const latentsPerToken = async (config: TopkConfig, step: number): Promise<number> => {
    const x = device.tensor(Float32Array.from(noisyBatch(config).x), [7, 5]);
    const { codes } = await gradientStep(config, onDevice(hostParameters(config), config, device), x, device, { step });
    const { rowOffsets } = await codes.read();
    const counts = new Set(rowOffsets.slice(1).map((end, row) => end - rowOffsets[row]!));
    expect(counts.size).toBe(1);
    return [...counts][0]!;
  };

  test("goes from initialK to k in a straight line, rounded, and stays there", async () => {
    const config = { ...topk, initialK: 10, kAnnealSteps: 12 };
    const found: number[] = [];
    for (const step of [0, 1, 2, 6, 11, 12, 1000]) found.push(await latentsPerToken(config, step));
    expect(found).toEqual([10, 9, 9, 6, 3, 2, 2]);
  });

  test("can go up", async () => {
    const config = { ...topk, k: 6, initialK: 1, kAnnealSteps: 5 };
    const found: number[] = [];
    for (let step = 0; step < 7; step++) found.push(await latentsPerToken(config, step));
    expect(found).toEqual([1, 2, 3, 4, 5, 6, 6]);
  });

  test("steps without initialK, and the reverse, have no effect and are refused", () => {
    expect(() => trainingOf({ ...topk, initialK: 9 })).toThrow(/initialK has no effect without kAnnealSteps/);
    expect(() => trainingOf({ ...topk, kAnnealSteps: 9 })).toThrow(/kAnnealSteps has no effect without initialK/);
  });

  test("of options that are no such numbers is refused with what they must be", () => {
    expect(() => trainingOf({ ...topk, k: -3 })).toThrow("SAE configuration: k: must be greater than 0");
    expect(() => trainingOf({ ...topk, initialK: 1.5 })).toThrow("SAE configuration: initialK: must be an integer");
  });

  test("Multi-TopK's 4k follow", async () => {
    const losses: LossFunction = (p, _, step) => {
      const error = (k: number) => step.squaredError(step.decode(topkLatents(step, p, k), p), step.target(p));
      return { reconstruction: error(2), multiTopk: error(8) / 8 };
    };
    await expectSlopes(
      { ...multi, k: 1, initialK: 2, kAnnealSteps: 10 },
      losses,
      hostParameters(multi),
      noisyBatch(multi),
      device,
    );
  });

  test("an initialK above dSae is refused", () => {
    expect(() => trainingOf({ ...topk, initialK: 12, kAnnealSteps: 5 })).toThrow(
      /initialK must be at most dSae \(11\)/,
    );
  });

  test("a resumed run continues bit for bit", async () => {
    const config = { ...multi, dIn: runWidth, dSae: 24, auxK: 4, deadAfterTokens: 64, initialK: 12, kAnnealSteps: 10 };
    await expectBitExactResume(config, [3, 8], 14, device);
  });
});
