import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Device } from "../../lib/engine/device.js";
import type { SaeTrainingConfig } from "../../lib/sae/config.js";
import { testDevice } from "../testDevice.js";
import { expectBitExactResume } from "../training/bitExactResume.js";
import { dIn as runWidth } from "../training/smallRun.js";
import {
  expectSlopes,
  type HostParameters,
  type HostStep,
  hostParameters,
  noisyBatch,
  onDevice,
} from "./float64Step.js";
import { gradientStep } from "./gradientStep.js";

let device: Device;
beforeAll(async () => {
  device = await Device.open(testDevice, { threads: 2 });
});
afterAll(() => device.close());

type ReluConfig = Extract<SaeTrainingConfig, { architecture: "relu" }>;

const relu: ReluConfig = {
  architecture: "relu",
  dIn: 5,
  dSae: 11,
  l1Coefficient: 0.7,
  pEnd: 1,
  pAnnealStart: 0,
  pAnnealSteps: 0,
  pAnnealUpdates: 10,
  ghostGradients: true,
  applyBDecToInput: true,
  decoderUnitNorm: false,
  deadAfterTokens: 1,
  bDecInit: "zero",
  normalizeActivations: "none",
};
const dead = [1, 4, 9];

function preActivations(p: HostParameters, step: HostStep): number[][] {
  return step.product(p, p.encoder!).map((row) => row.map((value, i) => value + p.encoderBias![i]!));
}

/** The definition, with α, w and r of the frozen parameters. */
function ghostLoss(p: HostParameters, frozen: HostParameters, step: HostStep): number {
  const { dead: latents, tokens } = step.batch;
  const output = (q: HostParameters): number[][] => {
    const exponentials = preActivations(q, step).map((row) =>
      row.map((z, i) => (latents.includes(i) ? Math.exp(z) : 0)),
    );
    return step.decode(exponentials, { ...q, decoderBias: q.decoderBias!.map(() => 0) });
  };
  const f = preActivations(frozen, step).map((row) => row.map((z) => Math.max(z, 0)));
  const reconstruction = step.decode(f, frozen);
  const r = step.target(frozen).map((row, t) => row.map((value, d) => value - reconstruction[t]![d]!));
  const [constant, moving] = [output(frozen), output(p)];
  let sum = 0;
  for (let t = 0; t < tokens; t++) {
    const alpha = Math.hypot(...r[t]!) / (1e-6 + 2 * Math.hypot(...constant[t]!));
    for (const [d, residual] of r[t]!.entries()) {
      const weight = residual ** 2 / ((alpha * constant[t]![d]! - residual) ** 2 + 1e-6);
      sum += weight * (alpha * moving[t]![d]! - residual) ** 2;
    }
  }
  return sum / (tokens * r[0]!.length);
}

describe("loss and gradient are those of the historic code", () => {
  test.each<[string, ReluConfig]>([
    ["free decoder", relu],
    ["unit decoder, decoder bias not subtracted", { ...relu, decoderUnitNorm: true, applyBDecToInput: false }],
    ["with p-annealing", { ...relu, pEnd: 0.5 }],
    ["skip transcoder", { ...relu, transcoder: true, dOut: 4, skip: true, applyBDecToInput: false }],
  ])("%s", async (_, config) => {
    await expectSlopes(
      config,
      (p, frozen, step) => {
        const f = preActivations(p, step).map((row) => row.map((z) => Math.max(z, 0)));
        const norms = step.norms(p);
        const penalties = f.map((row) =>
          row.reduce((sum, value, i) => sum + (value > 0 ? (value * norms[i]!) ** config.pEnd : 0), 0),
        );
        return {
          reconstruction: step.squaredError(step.decode(f, p), step.target(p)),
          sparsity: config.l1Coefficient * step.batch.sparsityScale * step.mean(penalties),
          ghost: ghostLoss(p, frozen, step),
        };
      },
      hostParameters(config),
      noisyBatch(config, dead),
      device,
    );
  });
});

describe("without dead latents", () => {
  test.each<[string, { dead?: number[] }]>([
    ["because none can be yet", {}],
    ["although some could be", { dead: [] }],
  ])("the loss is 0 and has no gradient, %s", async (_, options) => {
    const config = { ...relu, deadAfterTokens: 1000 };
    const parameters = onDevice(hostParameters(config), config, device);
    const x = device.tensor(Float32Array.from(noisyBatch(config).x), [7, 5]);
    const ghost = await gradientStep(config, parameters, x, device, options);
    const none = await gradientStep({ ...config, ghostGradients: false }, parameters, x, device, options);
    expect(ghost.losses).toEqual({ ...none.losses, ghost: 0 });
    expect(ghost.gradients).toEqual(none.gradients);
  });
});

test("only dead latents feel them, in encoder, its bias and decoder", async () => {
  const config = { ...relu, applyBDecToInput: false };
  const parameters = onDevice(hostParameters(config), config, device);
  const x = device.tensor(Float32Array.from(noisyBatch(config).x), [7, 5]);
  const ghost = await gradientStep(config, parameters, x, device, { dead });
  const none = await gradientStep({ ...config, ghostGradients: false }, parameters, x, device, { dead });
  expect(ghost.gradients.decoderBias).toEqual(none.gradients.decoderBias);
  for (const [name, width] of [
    ["encoder", 5],
    ["encoderBias", 1],
    ["decoder", 5],
  ] as const) {
    for (let latent = 0; latent < config.dSae; latent++) {
      const row = (gradients: Record<string, Float32Array>) =>
        gradients[name]!.subarray(latent * width, (latent + 1) * width);
      const same = row(ghost.gradients).every((value, i) => value === row(none.gradients)[i]);
      expect(same, `${name} of latent ${latent}`).toBe(!dead.includes(latent));
    }
  }
});

test("a resumed run continues bit for bit", async () => {
  await expectBitExactResume({ ...relu, dIn: runWidth, dSae: 24, deadAfterTokens: 64 }, [3, 8], 12, device);
});
