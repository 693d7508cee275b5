import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Device } from "../../lib/engine/device.js";
import { parameterNames, type SaeParameters } from "../../lib/sae/architecture.js";
import { parseSaeConfig, type SaeTrainingConfig } from "../../lib/sae/config.js";
import { Sae } from "../../lib/sae/sae.js";
import { goldenCases, goldenShapes, loadGolden, relativeError } from "./goldens.js";
import { gradientStep } from "./gradientStep.js";

let device: Device;
beforeAll(async () => {
  device = await Device.open("cpu", { threads: 2 });
});
afterAll(() => device.close());

describe.each(goldenShapes)("against PyTorch's autograd in float64, %s (dIn x dSae x batch)", (shape) => {
  test.each(goldenCases)(
    "%s: latents, reconstruction, loss terms and all gradients of the first step",
    async (name) => {
      const golden = await loadGolden(shape, name);
      const { dIn } = golden.sae;
      const parameters = golden.initialParameters(device);
      const sae = new Sae(parseSaeConfig(golden.sae), parameters, device);
      const x = device.tensor(golden.batches.slice(0, golden.batch * dIn), [golden.batch, dIn]);

      const latents = await device.kernels.densify(sae.encode(x)).readFloat32();
      expect(relativeError(latents, golden.array("latents"))).toBeLessThan(1e-6);
      expect(relativeError(await sae.reconstruct(x).readFloat32(), golden.array("reconstruction"))).toBeLessThan(1e-6);

      const { losses, gradients } = await gradientStep(golden.sae, parameters, x, device, {
        sparsityScale: 1 / golden.training.l1WarmupSteps,
      });
      for (const [term, value] of Object.entries(golden.losses[0]!)) {
        expect(losses[term], term).toBeCloseTo(value, 4);
      }
      for (const parameter of parameterNames) {
        const error = relativeError(gradients[parameter], golden.array(`gradient.${parameter}`));
        expect(error, parameter).toBeLessThan(2e-6);
      }
    },
  );
});

describe("gradients are the slopes of the loss", () => {
  const shape = { dIn: 5, dSae: 9, applyBDecToInput: true };
  const common = { ...shape, deadAfterTokens: 1, bDecInit: "zero", normalizeActivations: "none" } as const;
  const cases: [string, SaeTrainingConfig][] = [
    ["relu, free decoder", { ...common, architecture: "relu", l1Coefficient: 0.7, decoderUnitNorm: false }],
    ["relu, unit decoder", { ...common, architecture: "relu", l1Coefficient: 0.7, decoderUnitNorm: true }],
    [
      "topk, decoder bias not subtracted",
      {
        ...common,
        applyBDecToInput: false,
        architecture: "topk",
        k: 3,
        auxK: 0,
        auxCoefficient: 0,
        decoderUnitNorm: true,
      },
    ],
    ["topk", { ...common, architecture: "topk", k: 3, auxK: 0, auxCoefficient: 0, decoderUnitNorm: true }],
  ];

  test.each(cases)("%s", async (_, config) => {
    const host = randomParameters(config.dIn, config.dSae);
    const x = device.tensor(noise(7 * config.dIn, 5), [7, config.dIn]);
    const evaluate = async (values: HostParameters) => {
      const result = await gradientStep(config, onDevice(values, config), x, device);
      return { ...result, loss: Object.values(result.losses).reduce((sum, value) => sum + value, 0) };
    };
    const { gradients } = await evaluate(host);
    const step = 2 ** -10;
    for (const name of parameterNames) {
      const tolerance = 1e-3 * Math.max(...gradients[name].map(Math.abs));
      for (let i = 0; i < host[name].length; i += 2) {
        const moved = async (by: number): Promise<number> => {
          const values = Float32Array.from(host[name]);
          values[i]! += by;
          return (await evaluate({ ...host, [name]: values })).loss;
        };
        const slope = ((await moved(step)) - (await moved(-step))) / (2 * step);
        expect(Math.abs(gradients[name][i]! - slope), `${name}[${i}]`).toBeLessThan(tolerance);
      }
    }
  });
});

describe("AuxK", () => {
  const config: SaeTrainingConfig = {
    architecture: "topk",
    dIn: 6,
    dSae: 12,
    k: 2,
    auxK: 3,
    auxCoefficient: 0.5,
    applyBDecToInput: false,
    decoderUnitNorm: true,
    deadAfterTokens: 1,
    bDecInit: "zero",
    normalizeActivations: "none",
  };
  const dead = [1, 4, 5, 9];

  test("adds gradients to dead latents alone, and none to the decoder bias", async () => {
    const parameters = onDevice(randomParameters(6, 12), config);
    const x = device.tensor(noise(20 * 6, 8), [20, 6]);
    const without = await gradientStep({ ...config, auxK: 0 }, parameters, x, device);
    const withAux = await gradientStep(config, parameters, x, device, { dead });
    expect(withAux.gradients.decoderBias).toEqual(without.gradients.decoderBias);
    for (const name of ["encoder", "decoder"] as const) {
      for (let latent = 0; latent < 12; latent++) {
        const row = [latent * 6, latent * 6 + 6] as const;
        const [a, b] = [withAux.gradients[name].slice(...row), without.gradients[name].slice(...row)];
        if (dead.includes(latent)) expect(a).not.toEqual(b);
        else expect(a).toEqual(b);
      }
    }
  });

  test("is |e - ê|² with ê from the top dead latents, fewer of them when fewer are dead", async () => {
    const host = randomParameters(6, 12);
    const parameters = onDevice(host, config);
    const values = noise(20 * 6, 8);
    const x = device.tensor(values, [20, 6]);
    for (const set of [dead, [7], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]]) {
      const { losses } = await gradientStep(config, parameters, x, device, { dead: set });
      expect(losses.aux).toBeCloseTo(scalarAuxLoss(host, values, set, config), 4);
    }
  });

  test("no dead latents: no gradient", async () => {
    const parameters = onDevice(randomParameters(6, 12), config);
    const x = device.tensor(noise(20 * 6, 8), [20, 6]);
    const without = await gradientStep({ ...config, auxK: 0 }, parameters, x, device);
    const withNone = await gradientStep(config, parameters, x, device, { dead: [] });
    expect(withNone.gradients).toEqual(without.gradients);
  });
});

test("the projected decoder gradient is orthogonal to every row", async () => {
  const golden = await loadGolden("13x37x11", "topk");
  const parameters = golden.initialParameters(device);
  const x = device.tensor(golden.batches.slice(0, 11 * 13), [11, 13]);
  const { gradients } = await gradientStep(golden.sae, parameters, x, device, { project: true });
  const decoder = golden.array("initial.decoder");
  for (let latent = 0; latent < 37; latent++) {
    let product = 0;
    for (let d = 0; d < 13; d++) product += gradients.decoder[latent * 13 + d]! * decoder[latent * 13 + d]!;
    expect(product).toBeCloseTo(0, 5);
  }
});

test("latents that fire on no token have gradient zero", async () => {
  const golden = await loadGolden("16x64x32", "topk");
  const x = device.tensor(golden.batches.slice(0, 32 * 16), [32, 16]);
  const { gradients } = await gradientStep(golden.sae, golden.initialParameters(device), x, device);
  const latents = golden.array("latents");
  let silent = 0;
  for (let latent = 0; latent < 64; latent++) {
    if (latents.some((value, i) => i % 64 === latent && value > 0)) continue;
    silent++;
    expect(gradients.encoderBias[latent]).toBe(0);
    expect(gradients.encoder.slice(latent * 16, latent * 16 + 16).every((value) => value === 0)).toBe(true);
    expect(gradients.decoder.slice(latent * 16, latent * 16 + 16).every((value) => value === 0)).toBe(true);
  }
  expect(silent).toBeGreaterThan(0);
});

type HostParameters = Record<keyof SaeParameters, Float32Array>;

/** Reproducible values in about (-1.5, 1.5). */
function noise(length: number, seed: number): Float32Array {
  return Float32Array.from({ length }, (_, i) => 1.5 * Math.sin(12.9898 * (i + 1) + 78.233 * seed + i * i * 0.37));
}

function randomParameters(dIn: number, dSae: number): HostParameters {
  return {
    encoder: noise(dSae * dIn, 1),
    encoderBias: noise(dSae, 2).map((value) => value / 4),
    decoder: noise(dSae * dIn, 3),
    decoderBias: noise(dIn, 4),
  };
}

function onDevice(values: HostParameters, { dIn, dSae }: { dIn: number; dSae: number }): SaeParameters {
  return {
    encoder: device.tensor(values.encoder, [dSae, dIn]),
    encoderBias: device.tensor(values.encoderBias, [dSae]),
    decoder: device.tensor(values.decoder, [dSae, dIn]),
    decoderBias: device.tensor(values.decoderBias, [dIn]),
  };
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
      let value = p.encoderBias[i]!;
      for (let d = 0; d < dIn; d++) value += x[t * dIn + d]! * p.encoder[i * dIn + d]!;
      return value;
    });
    const top = (among: readonly number[], count: number): number[] =>
      [...among].sort((a, b) => z[b]! - z[a]! || a - b).slice(0, count);
    const decode = (latents: readonly number[], d: number): number =>
      latents.reduce((value, i) => value + Math.max(z[i]!, 0) * p.decoder[i * dIn + d]!, 0);
    const chosen = top([...z.keys()], k);
    const auxiliary = top(dead, auxK);
    for (let d = 0; d < dIn; d++) {
      const error = x[t * dIn + d]! - decode(chosen, d) - p.decoderBias[d]!;
      sum += (error - decode(auxiliary, d)) ** 2;
    }
  }
  return (auxCoefficient * sum) / tokens;
}
