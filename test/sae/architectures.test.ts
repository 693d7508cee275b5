import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Device } from "../../lib/engine/device.js";
import type { SaeParameters } from "../../lib/sae/architecture.js";
import { parseSaeConfig, type SaeTrainingConfig } from "../../lib/sae/config.js";
import { parameterLayout } from "../../lib/sae/parameterLayout.js";
import { parseConfig } from "../../lib/training/config.js";
import { testDevice } from "../testDevice.js";
import { stepDeviations } from "./goldenStep.js";
import { goldenCases, goldenShapes, loadGolden } from "./goldens.js";
import { gradientStep } from "./gradientStep.js";

let device: Device;
beforeAll(async () => {
  device = await Device.open(testDevice, { threads: 2 });
});
afterAll(() => device.close());

describe.each(goldenShapes)("the first step equals PyTorch's autograd in float64, %s (dIn x dSae x batch)", (shape) => {
  test.each(goldenCases)("%s: latents, reconstruction, loss terms, every parameter's gradient", async (name) => {
    const golden = await loadGolden(shape, name);
    for (const [what, error] of Object.entries(await stepDeviations(golden, device))) {
      expect(error, what).toBeLessThan(golden.stepTolerance);
    }
  });
});

interface Exceptions {
  /** Losses that contain a constant copy of some parameters, through which there is no gradient. */
  readonly constant?: Readonly<Record<string, readonly string[]>>;
  /** Parameters with a straight-through gradient, which is no slope. */
  readonly straightThrough?: readonly string[];
  /** AuxK takes the error as a constant, which it is for dead latents alone. */
  readonly deadLatentsOnly?: boolean;
}

describe("gradients are the slopes of the loss, where the definition does not say otherwise", () => {
  const free = { decoderUnitNorm: false };
  const plainInput = { applyBDecToInput: false };
  const transcoder = { transcoder: true, targetHook: "output", dOut: 4, ...plainInput };
  const gate: Exceptions = { constant: { auxiliary: ["decoder", "decoderBias", "skip"] } };
  const jump = { architecture: "jumprelu", bandwidth: 0.3, l0Coefficient: 0.4 };
  const smooth = { ...jump, sparsityLoss: "tanh", shifted: true, preActivationCoefficient: 0.3 };
  const theta: Exceptions = { straightThrough: ["threshold"] };

  const cases: [string, object, Exceptions?][] = [
    ["relu", { architecture: "relu", l1Coefficient: 0.7 }],
    ["relu, unit decoder", { architecture: "relu", l1Coefficient: 0.7, decoderUnitNorm: true }],
    ["relu, p = 1/2", { architecture: "relu", l1Coefficient: 0.7, pEnd: 0.5, pAnnealSteps: 0 }],
    ["relu, crosscoder", { architecture: "relu", l1Coefficient: 0.7, hookWidths: [2, 3] }],
    ["relu, skip transcoder", { architecture: "relu", l1Coefficient: 0.7, ...transcoder, skip: true }],
    ["topk", { architecture: "topk", k: 3 }],
    ["topk, decoder bias not subtracted", { architecture: "topk", k: 3, ...plainInput }],
    ["topk, Multi-TopK", { architecture: "topk", k: 2, multiTopkCoefficient: 0.5, ...free }],
    [
      "topk, Multi-TopK, skip transcoder",
      { architecture: "topk", k: 2, multiTopkCoefficient: 0.5, ...transcoder, skip: true },
    ],
    [
      "topk, AuxK, dead latents",
      { architecture: "topk", k: 1, auxK: 3, auxCoefficient: 0.5 },
      { deadLatentsOnly: true },
    ],
    ["batchtopk", { architecture: "batchtopk", k: 2.5 }],
    ["matryoshka", { architecture: "matryoshka", k: 3, widths: [2, 5], levelWeights: [0.5, 2, 1] }],
    ["matryoshka, transcoder", { architecture: "matryoshka", k: 3, widths: [4], ...transcoder }],
    ["gated", { architecture: "gated", l1Coefficient: 0.5, ...plainInput }, gate],
    ["gated, free decoder", { architecture: "gated", l1Coefficient: 0.5, ...plainInput, ...free }, gate],
    ["gated, skip transcoder", { architecture: "gated", l1Coefficient: 0.5, ...transcoder, skip: true }, gate],
    ["soft-gated", { architecture: "soft-gated", l1Coefficient: 0.5 }],
    ["soft-gated, crosscoder", { architecture: "soft-gated", l1Coefficient: 0.5, ...free, hookWidths: [2, 3] }],
    ["jumprelu, step, but for the thresholds", { ...jump, sparsityLoss: "step" }, theta],
    ["jumprelu, quadratic, but for the thresholds", { ...jump, targetL0: 2 }, theta],
    ["jumprelu, tanh, but for the thresholds", { ...jump, sparsityLoss: "tanh" }, theta],
    [
      "jumprelu, pre-activation loss, but for the thresholds",
      { ...jump, sparsityLoss: "step", preActivationCoefficient: 0.3 },
      theta,
    ],
    ["jumprelu, shifted, tanh: also the thresholds", smooth],
    ["jumprelu, shifted, tanh, crosscoder", { ...smooth, hookWidths: [2, 3] }],
  ];

  test.each(cases)("%s", async (_, options, { constant = {}, straightThrough = [], deadLatentsOnly = false } = {}) => {
    const config = configured({ dIn: 5, dSae: 9, deadAfterTokens: 7, ...options });
    const { dIn, dOut = dIn } = config;
    const host = randomParameters(config);
    const x = device.tensor(noise(7 * dIn, 15), [7, dIn]);
    const y = device.tensor(noise(7 * dOut, 16), [7, dOut]);
    const evaluate = async (values: HostParameters) => {
      const result = await gradientStep(config, onDevice(values, config), x, device, config.transcoder ? { y } : {});
      const latents = await device.kernels.densify(result.codes).readFloat32();
      return { ...result, pattern: latents.map((value) => Number(value > 0)).join("") };
    };

    const { gradients, pattern } = await evaluate(host);
    const fires = (latent: number): boolean => [...pattern].some((bit, i) => i % 9 === latent && bit === "1");
    const step = 2 ** -10;
    let [compared, skipped] = [0, 0];
    for (const { name, trained } of parameterLayout(parseSaeConfig(config))) {
      if (!trained || straightThrough.includes(name)) continue;
      const tolerance = 1e-3 * Math.max(...gradients[name]!.map(Math.abs));
      const elements = [...host[name]!.keys()].filter((i) => {
        if (!deadLatentsOnly) return true;
        return name !== "decoderBias" && !fires(Math.floor((9 * i) / host[name]!.length));
      });
      for (const i of elements.filter((_, at) => at % Math.ceil(elements.length / 6) === 0)) {
        const moved = (by: number) => {
          const values = Float32Array.from(host[name]!);
          values[i]! += by;
          return evaluate({ ...host, [name]: values });
        };
        const [above, below] = [await moved(step), await moved(-step)];
        if (above.pattern !== below.pattern) {
          skipped++; // a latent fires on one side only: there the loss has a kink or a jump
          continue;
        }
        compared++;
        const slope = Object.keys(above.losses)
          .filter((term) => !constant[term]?.includes(name))
          .reduce((sum, term) => sum + (above.losses[term]! - below.losses[term]!) / (2 * step), 0);
        expect(Math.abs(gradients[name]![i]! - slope), `${name}[${i}]`).toBeLessThan(tolerance);
      }
    }
    expect(skipped).toBeLessThan(compared / 4);
  });
});

describe("AuxK", () => {
  const aux = { auxK: 3, auxCoefficient: 0.5 };
  const shape = { architecture: "topk", dIn: 6, dSae: 12, k: 2, applyBDecToInput: false, deadAfterTokens: 1 };
  const config = configured({ ...shape, ...aux });
  const withoutAux = configured(shape);
  const dead = [1, 4, 5, 9];

  test("adds gradients to dead latents alone, and none to the decoder bias", async () => {
    const parameters = onDevice(randomParameters(config), config);
    const x = device.tensor(noise(20 * 6, 8), [20, 6]);
    const without = await gradientStep(withoutAux, parameters, x, device);
    const withAux = await gradientStep(config, parameters, x, device, { dead });
    expect(withAux.gradients.decoderBias).toEqual(without.gradients.decoderBias);
    for (const name of ["encoder", "decoder"] as const) {
      for (let latent = 0; latent < 12; latent++) {
        const row = [latent * 6, latent * 6 + 6] as const;
        const [a, b] = [withAux.gradients[name]!.slice(...row), without.gradients[name]!.slice(...row)];
        if (dead.includes(latent)) expect(a).not.toEqual(b);
        else expect(a).toEqual(b);
      }
    }
  });

  test("is |e - ê|² with ê from the top dead latents, fewer of them when fewer are dead", async () => {
    const host = randomParameters(config);
    const parameters = onDevice(host, config);
    const values = noise(20 * 6, 8);
    const x = device.tensor(values, [20, 6]);
    for (const set of [dead, [7], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]]) {
      const { losses } = await gradientStep(config, parameters, x, device, { dead: set });
      expect(losses.aux).toBeCloseTo(scalarAuxLoss(host, values, set, { dIn: 6, dSae: 12, k: 2, ...aux }), 4);
    }
  });

  test("no dead latents: no gradient", async () => {
    const parameters = onDevice(randomParameters(config), config);
    const x = device.tensor(noise(20 * 6, 8), [20, 6]);
    const without = await gradientStep(withoutAux, parameters, x, device);
    const withNone = await gradientStep(config, parameters, x, device, { dead: [] });
    expect(withNone.gradients).toEqual(without.gradients);
  });
});

test("the projected decoder gradient is orthogonal to every row", async () => {
  const golden = await loadGolden("13x37x11", "topk");
  const parameters = golden.initialParameters(device);
  const x = device.tensor(golden.x, [11, 13]);
  const { gradients } = await gradientStep(golden.sae, parameters, x, device, { project: true });
  const decoder = golden.array("initial.decoder");
  for (let latent = 0; latent < 37; latent++) {
    let product = 0;
    for (let d = 0; d < 13; d++) product += gradients.decoder![latent * 13 + d]! * decoder[latent * 13 + d]!;
    expect(product).toBeCloseTo(0, 5);
  }
});

test("latents that fire on no token have gradient zero", async () => {
  const golden = await loadGolden("16x64x32", "topk");
  const x = device.tensor(golden.x, [32, 16]);
  const { gradients } = await gradientStep(golden.sae, golden.initialParameters(device), x, device);
  const latents = golden.array("latents");
  let silent = 0;
  for (let latent = 0; latent < 64; latent++) {
    if (latents.some((value, i) => i % 64 === latent && value > 0)) continue;
    silent++;
    expect(gradients.encoderBias![latent]).toBe(0);
    expect(gradients.encoder!.slice(latent * 16, latent * 16 + 16).every((value) => value === 0)).toBe(true);
    expect(gradients.decoder!.slice(latent * 16, latent * 16 + 16).every((value) => value === 0)).toBe(true);
  }
  expect(silent).toBeGreaterThan(0);
});

/** A configuration as `monosem train` would read it. */
function configured(sae: object): SaeTrainingConfig {
  const run = parseConfig({ sae, data: { activations: "none" }, training: { steps: 1 }, output: "none" });
  return run.sae as SaeTrainingConfig;
}

type HostParameters = Record<string, Float32Array>;

/** Reproducible values in about (-1.5, 1.5). */
function noise(length: number, seed: number): Float32Array {
  return Float32Array.from({ length }, (_, i) => 1.5 * Math.sin(12.9898 * (i + 1) + 78.233 * seed + i * i * 0.37));
}

function noiseFor(name: string, size: number, seed: number): Float32Array {
  const values = noise(size, seed);
  if (name === "threshold") return values.map((value) => Math.abs(value) / 4);
  return name.endsWith("Bias") || name === "magnitudeScale" ? values.map((value) => value / 4) : values;
}

function randomParameters(config: SaeTrainingConfig): HostParameters {
  const layout = parameterLayout(parseSaeConfig(config));
  return Object.fromEntries(
    layout.map(({ name, shape }, i) => [
      name,
      noiseFor(
        name,
        shape.reduce((a, b) => a * b),
        i + 1,
      ),
    ]),
  );
}

function onDevice(values: HostParameters, config: SaeTrainingConfig): SaeParameters {
  const layout = parameterLayout(parseSaeConfig(config));
  return Object.fromEntries(
    layout.map(({ name, shape }) => [name, device.tensor(values[name]!, shape)]),
  ) as SaeParameters;
}

/** The AuxK loss as its definition reads, one number at a time. */
function scalarAuxLoss(
  p: HostParameters,
  x: Float32Array,
  dead: readonly number[],
  {
    dIn,
    dSae,
    k,
    auxK,
    auxCoefficient,
  }: { dIn: number; dSae: number; k: number; auxK: number; auxCoefficient: number },
): number {
  const tokens = x.length / dIn;
  let sum = 0;
  for (let t = 0; t < tokens; t++) {
    const z = Array.from({ length: dSae }, (_, i) => {
      let value = p.encoderBias![i]!;
      for (let d = 0; d < dIn; d++) value += x[t * dIn + d]! * p.encoder![i * dIn + d]!;
      return value;
    });
    const top = (among: readonly number[], count: number): number[] =>
      [...among].sort((a, b) => z[b]! - z[a]! || a - b).slice(0, count);
    const decode = (latents: readonly number[], d: number): number =>
      latents.reduce((value, i) => value + Math.max(z[i]!, 0) * p.decoder![i * dIn + d]!, 0);
    const chosen = top([...z.keys()], k);
    const auxiliary = top(dead, auxK);
    for (let d = 0; d < dIn; d++) {
      const error = x[t * dIn + d]! - decode(chosen, d) - p.decoderBias![d]!;
      sum += (error - decode(auxiliary, d)) ** 2;
    }
  }
  return (auxCoefficient * sum) / tokens;
}
