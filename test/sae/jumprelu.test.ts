import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Device } from "../../lib/engine/device.js";
import { parseSaeConfig, type SaeTrainingConfig } from "../../lib/sae/config.js";
import type { JumpReluTrainingOptions } from "../../lib/sae/jumprelu.js";
import { Sae } from "../../lib/sae/sae.js";
import { parseConfig } from "../../lib/training/config.js";
import { Trainer } from "../../lib/training/trainer.js";
import { testDevice } from "../testDevice.js";
import { ArraySource } from "../training/arraySource.js";
import { training } from "../training/smallRun.js";
import {
  expectSlopes,
  type HostParameters,
  hostParameters,
  type LossFunction,
  noise,
  noisyBatch,
  onDevice,
} from "./float64Step.js";
import { relativeError } from "./goldens.js";
import { sparseMixtures } from "./sparseMixtures.js";

let device: Device;
beforeAll(async () => {
  device = await Device.open(testDevice, { threads: 2 });
});
afterAll(() => device.close());

type JumpReluConfig = Extract<SaeTrainingConfig, { architecture: "jumprelu" }>;

const jumprelu: JumpReluConfig = {
  architecture: "jumprelu",
  dIn: 5,
  dSae: 11,
  bandwidth: 0.8,
  initialThreshold: 0.01,
  sparsityLoss: "quadratic",
  l0Coefficient: 0.7,
  targetL0: 3,
  tanhScale: 1.5,
  preActivationCoefficient: 0,
  applyBDecToInput: true,
  decoderUnitNorm: false,
  deadAfterTokens: 1,
  bDecInit: "zero",
  normalizeActivations: "none",
};
const tanh = { ...jumprelu, sparsityLoss: "tanh" } as const;
const everything = { ...tanh, preActivationCoefficient: 0.3 } as const;
const dead = [1, 4, 9];
const cases: [string, JumpReluConfig, (readonly number[])?][] = [
  ["quadratic", jumprelu],
  ["quadratic below its target", { ...jumprelu, targetL0: 9 }],
  ["step", { ...jumprelu, sparsityLoss: "step" }],
  ["tanh", tanh],
  ["tanh, unit decoder", { ...tanh, decoderUnitNorm: true }],
  ["quadratic, decoder bias not subtracted", { ...jumprelu, applyBDecToInput: false }],
  ["pre-activation loss", { ...jumprelu, preActivationCoefficient: 0.3 }, dead],
  ["pre-activation loss and tanh", everything, dead],
  ["pre-activation loss, unit decoder", { ...jumprelu, preActivationCoefficient: 0.3, decoderUnitNorm: true }, dead],
  ["pre-activation loss, nothing dead", everything],
  ["shifted, quadratic", { ...jumprelu, shifted: true }],
  ["shifted, step, pre-activation loss", { ...everything, sparsityLoss: "step", shifted: true }, dead],
  ["shifted, tanh, pre-activation loss", { ...everything, shifted: true }, dead],
  ["transcoder", { ...everything, applyBDecToInput: false, transcoder: true, dOut: 3 }, dead],
  ["skip transcoder", { ...jumprelu, applyBDecToInput: false, transcoder: true, dOut: 8, skip: true }],
  ["crosscoder", { ...everything, hookWidths: [2, 3] }, dead],
];

/** Parameters with thresholds from 0 to 0.6. */
function parametersOf(config: JumpReluConfig): HostParameters {
  const p = hostParameters(config);
  return { ...p, threshold: p.threshold!.map((value) => Math.fround(Math.max(0, value + 0.2))) };
}

/**
 * arXiv:2407.14435. Jump and step are written as they are at the frozen parameters, plus the slope in θ that their
 * straight-through estimators define: -(θ/ε) K((z - θ)/ε) and -(1/ε) K((z - θ)/ε).
 */
const loss: LossFunction = (p, frozen, step) => {
  const { bandwidth, sparsityLoss, l0Coefficient, targetL0, tanhScale, preActivationCoefficient, shifted } =
    step.config as JumpReluConfig;
  const threshold = p.threshold!;
  const frozenThreshold = frozen.threshold!;
  const preActivations = (q: HostParameters) =>
    step.product(q, q.encoder!).map((row) => row.map((value, i) => value + q.encoderBias![i]!));
  const z = preActivations(p);
  const frozenZ = preActivations(frozen);
  const above = (t: number, i: number) => frozenZ[t]![i]! > frozenThreshold[i]!;
  /** K / ε, times how far θ has moved. */
  const windowed = (t: number, i: number) =>
    Math.abs(frozenZ[t]![i]! - frozenThreshold[i]!) < bandwidth / 2
      ? (threshold[i]! - frozenThreshold[i]!) / bandwidth
      : 0;

  const f = z.map((row, t) =>
    row.map((value, i) => {
      if (shifted) return Math.max(value - threshold[i]!, 0);
      return (above(t, i) ? value : 0) - frozenThreshold[i]! * windowed(t, i);
    }),
  );
  const norms = step.norms(p);
  const sumOver = (term: (t: number, i: number) => number) =>
    step.mean(z.map((row, t) => row.reduce((sum, _, i) => sum + term(t, i), 0)));
  const l0 = sumOver((t, i) => Number(above(t, i)) - windowed(t, i));
  const penalty = {
    step: l0,
    quadratic: (l0 / targetL0! - 1) ** 2,
    tanh: sumOver((t, i) => Math.tanh(tanhScale * f[t]![i]! * norms[i]!)),
  }[sparsityLoss];
  const isDead = (i: number) => Number(step.batch.dead.includes(i));
  const depth = sumOver((t, i) => isDead(i) * Math.max(threshold[i]! - z[t]![i]!, 0) * norms[i]!);
  return {
    reconstruction: step.squaredError(step.decode(f, p), step.target(p)),
    sparsity: l0Coefficient * step.batch.sparsityScale * penalty,
    ...(preActivationCoefficient > 0 ? { preActivation: preActivationCoefficient * depth } : {}),
  };
};

describe("losses and gradients are those of the papers, straight-through estimators included", () => {
  test.each(cases)("%s", async (_, config, deadLatents = []) => {
    const slopes = await expectSlopes(config, loss, parametersOf(config), noisyBatch(config, deadLatents), device);
    expect(slopes.threshold!.filter((slope) => slope !== 0).length).toBeGreaterThan(2);
  });
});

describe("latents", () => {
  const tokens = 40;
  const x = noise(tokens * 5, 9);

  test.each([
    ["z 1[z > θ]", jumprelu],
    ["ReLU(z - θ) where shifted", { ...jumprelu, shifted: true }],
  ])("are %s", async (_, config) => {
    const p = parametersOf(config);
    const sae = new Sae(parseSaeConfig(config), onDevice(p, config, device), device);
    const codes = sae.encode(device.tensor(Float32Array.from(x), [tokens, 5]));
    const expected: number[] = [];
    for (let t = 0; t < tokens; t++) {
      for (let i = 0; i < 11; i++) {
        let z = p.encoderBias![i]!;
        for (let d = 0; d < 5; d++) z += (x[t * 5 + d]! - p.decoderBias![d]!) * p.encoder![i * 5 + d]!;
        const threshold = p.threshold![i]!;
        expected.push(config.shifted ? Math.max(z - threshold, 0) : z > threshold ? z : 0);
      }
    }
    const latents = await device.kernels.densify(codes).readFloat32();
    expect(relativeError(latents, Float32Array.from(expected))).toBeLessThan(1e-6);
  });

  test("a pre-activation at its threshold is inactive", async () => {
    const config = { ...jumprelu, dIn: 1, dSae: 2, applyBDecToInput: false };
    const one = (values: number[], shape: number[]) => device.tensor(Float32Array.from(values), shape);
    const parameters = {
      encoder: one([1, 1], [2, 1]),
      encoderBias: one([0, 0], [2]),
      threshold: one([0.5, 0], [2]),
      decoder: one([1, 1], [2, 1]),
      decoderBias: one([0], [1]),
    };
    for (const shifted of [false, true]) {
      const sae = new Sae(parseSaeConfig({ ...config, shifted }), parameters, device);
      const latents = await device.kernels.densify(sae.encode(one([0.5, 0, -1], [3, 1]))).readFloat32();
      expect([...latents]).toEqual([0, 0.5, 0, 0, 0, 0]);
    }
  });

  test.each(cases)("folding the decoder norms changes no reconstruction: %s", async (_, config) => {
    const { dIn, dSae, hookWidths: blockWidths } = config;
    const sae = new Sae(parseSaeConfig(config), onDevice(parametersOf(config), config, device), device);
    const rows = device.tensor(Float32Array.from(noise(30 * dIn, 9)), [30, dIn]);
    const before = await sae.reconstruct(rows).readFloat32();
    sae.foldDecoderNorm();
    expect(relativeError(await sae.reconstruct(rows).readFloat32(), before)).toBeLessThan(2e-6);
    const norms = await device.kernels.rowNorms(sae.parameters.decoder, { blockWidths }).readFloat32();
    expect(relativeError(norms, new Float32Array(dSae).fill(1))).toBeLessThan(1e-6);
  });
});

describe("training", () => {
  const shape = { dIn: 16, dSae: 32, deadAfterTokens: 2048 };
  const data = sparseMixtures({ features: 24, dIn: 16, active: 2, rows: 4096, seed: 3 });

  async function train(sae: Partial<JumpReluTrainingOptions & JumpReluConfig>, steps: number) {
    const trainer = await Trainer.create({
      sae: { ...jumprelu, ...shape, bandwidth: 0.1, ...sae },
      training: { ...training, batchSize: 256, steps, lr: 1e-2, logEvery: 10, lrDecaySteps: steps / 5 },
      source: new ArraySource(data.activations, 16, device),
      device,
    });
    const l0: number[] = [];
    let last: { explainedVariance: number; losses: Readonly<Record<string, number>> } | undefined;
    for await (const progress of trainer.run()) {
      l0.push(progress.l0);
      last = progress;
    }
    const recent = l0.slice(-10);
    const threshold = await trainer.sae.parameters.threshold!.readFloat32();
    return { trainer, l0: recent.reduce((sum, value) => sum + value, 0) / recent.length, threshold, ...last! };
  }

  test.each([
    ["2", { targetL0: 2 }],
    ["4", { targetL0: 4 }],
    ["4, unit decoder", { targetL0: 4, decoderUnitNorm: true }],
  ])("with the quadratic penalty L0 goes to its target: %s", async (_, sae) => {
    const { trainer, l0, explainedVariance } = await train({ l0Coefficient: 10, ...sae }, 400);
    expect(Math.abs(l0 / sae.targetL0 - 1)).toBeLessThan(0.05);
    expect(explainedVariance).toBeGreaterThan(0.9);
    if (sae.targetL0 === 2) expect(await data.meanBestCosine(trainer.sae)).toBeGreaterThan(0.9);
  });

  test("the tanh penalty makes shifted latents sparse", async () => {
    const shifted = { sparsityLoss: "tanh", shifted: true } as const;
    const dense = await train({ ...shifted, l0Coefficient: 0 }, 200);
    const sparse = await train({ ...shifted, l0Coefficient: 0.1 }, 200);
    expect(sparse.l0).toBeLessThan(dense.l0 / 2);
    expect(sparse.explainedVariance).toBeGreaterThan(0.9);
  });

  test("thresholds never go below 0", async () => {
    const { threshold } = await train({ targetL0: 30, l0Coefficient: 10, initialThreshold: 0.05 }, 60);
    expect(Math.min(...threshold)).toBe(0);
  });

  test("the pre-activation loss brings dead latents back", async () => {
    const start = { sparsityLoss: "tanh", l0Coefficient: 0, initialThreshold: 1 } as const; // nothing fires
    const without = await train(start, 100);
    expect(without.l0).toBe(0);
    const revived = await train({ ...start, preActivationCoefficient: 0.01 }, 300);
    expect(revived.l0).toBeGreaterThan(1);
    expect(revived.losses.preActivation).toBeGreaterThanOrEqual(0);
  });

  test("refuses NaN among the activations in the step in which it appears", async () => {
    const activations = data.activations.slice();
    activations[300 * 16] = Number.NaN;
    const trainer = await Trainer.create({
      sae: { ...jumprelu, ...shape },
      training: { ...training, batchSize: 256, steps: 5 },
      source: new ArraySource(activations, 16, device),
      device,
    });
    await expect(async () => {
      for await (const _ of trainer.run());
    }).rejects.toThrow(/step 2/);
  });
});

describe("in a file", () => {
  test("shifted latents have an architecture name of their own, which others refuse", async () => {
    const config = { ...jumprelu, shifted: true };
    const sae = new Sae(parseSaeConfig(config), onDevice(parametersOf(config), config, device), device);
    const folder = await mkdtemp(join(tmpdir(), "monosem-"));
    await sae.save(folder);
    expect(JSON.parse(await readFile(join(folder, "cfg.json"), "utf8")).architecture).toBe("shifted-jumprelu");
    const loaded = await Sae.load(folder, device);
    expect(loaded.config).toEqual(sae.config);
    const x = device.tensor(Float32Array.from(noise(30 * 5, 9)), [30, 5]);
    expect(await loaded.reconstruct(x).readFloat32()).toEqual(await sae.reconstruct(x).readFloat32());
    await rm(folder, { recursive: true });
  });

  const file = (sae: object) =>
    parseConfig({
      sae: { architecture: "jumprelu", dIn: 4, dSae: 8, l0Coefficient: 1, ...sae },
      data: { activations: "a" },
      training: { steps: 1 },
      output: "o",
    }).sae;

  test("the defaults of a configuration", () => {
    expect(file({ targetL0: 3 })).toMatchObject({
      bandwidth: 0.05,
      initialThreshold: 0.01,
      sparsityLoss: "quadratic",
      tanhScale: 4,
      preActivationCoefficient: 0,
      shifted: false,
      decoderUnitNorm: true,
    });
  });

  test("targetL0 is asked for by the quadratic penalty alone, and is at most dSae", () => {
    expect(() => file({})).toThrow(/sae\.targetL0: is needed by sparsityLoss "quadratic"/);
    expect(file({ sparsityLoss: "step" })).not.toHaveProperty("targetL0");
    expect(() => file({ targetL0: 9 })).toThrow(/sae\.targetL0: must be at most dSae \(8\)/);
  });

  test("other options are checked too", () => {
    expect(() => file({ targetL0: 2, bandwidth: 0 })).toThrow(/sae\.bandwidth/);
    expect(() => file({ targetL0: 2, initialThreshold: -1 })).toThrow(/sae\.initialThreshold/);
    expect(() => file({ targetL0: 2, sparsityLoss: "l1" })).toThrow(/sae\.sparsityLoss/);
  });
});
