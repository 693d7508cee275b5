import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Device } from "../../lib/engine/device.js";
import type { Tensor } from "../../lib/engine/tensor.js";
import { SafetensorsFile } from "../../lib/formats/safetensors.js";
import type { SaeParameters } from "../../lib/sae/architecture.js";
import { parseSaeConfig, type SaeTrainingConfig } from "../../lib/sae/config.js";
import { parameterLayout } from "../../lib/sae/parameterLayout.js";
import { normalisedRows, Sae } from "../../lib/sae/sae.js";
import { parseConfig, type TrainingConfig } from "../../lib/training/config.js";
import { Trainer } from "../../lib/training/trainer.js";
import { testDevice } from "../testDevice.js";
import { ArraySource } from "../training/arraySource.js";
import { relativeError } from "./goldens.js";
import { gradientStep } from "./gradientStep.js";

/** What make_peer_goldens.py made of SAELens, dictionary_learning and sparsify; the conversions are written there. */
interface Report {
  readonly tokens: number;
  readonly cases: readonly {
    readonly label: string;
    readonly config: object;
    readonly arrays: readonly string[];
    /** How the peer's own trainer was run, on the same batch in every step. */
    readonly training: object | null;
    /** The arrays in which the peer differs from the definition, and why. */
    readonly differs: readonly string[];
    readonly why: string | null;
  }[];
  readonly saeLensThreshold: { readonly smallestSelected: number; readonly afterTenSteps: number };
}

const fixture = (name: string): string => fileURLToPath(new URL(`../fixtures/sae/${name}`, import.meta.url));
const report: Report = JSON.parse(readFileSync(fixture("peers.json"), "utf8"));

let device: Device;
let arrays: ReadonlyMap<string, Float32Array>;
beforeAll(async () => {
  device = await Device.open(testDevice, { threads: 1 });
  await using file = await SafetensorsFile.open(fixture("peers.safetensors"));
  const read = new Map<string, Float32Array>();
  for (const key of file.entries.keys()) read.set(key, await file.readFloat32(key));
  arrays = read;
});
afterAll(() => device.close());

const agreeing = report.cases.filter(({ differs }) => differs.length === 0).map((one) => [one.label, one] as const);
const differing = report.cases
  .filter(({ differs }) => differs.length > 0)
  .map((one) => [`${one.label}: ${one.why} (${one.differs.join(", ")})`, one] as const);

describe("where a published implementation agrees with the paper, its first step is ours", () => {
  test.each(agreeing)("%s", async (label, { config, arrays: names }) => {
    const found = await firstStep(config);
    for (const key of names.filter((name) => !name.startsWith("trained."))) {
      expect(relativeError(found[key]!, peer(label, key)), key).toBeLessThan(2e-6);
    }
  });
});

describe("and its own trainer, with its own optimizer, ends where ours ends", () => {
  test.each(agreeing.filter(([, { training }]) => training !== null))("%s", async (label, { config, training }) => {
    for (const [name, values] of Object.entries(await trained(config, training!))) {
      if (!arrays.has(`${label}.trained.${name}`))
        expect(name).toBe("threshold"); // which is not trained
      else expect(relativeError(values, peer(label, `trained.${name}`)), name).toBeLessThan(1e-5);
    }
  });
});

describe("where a published implementation departs from the paper, we do not", () => {
  test.each(differing)("%s", async (_, { label, config, arrays: names, differs }) => {
    const found = await firstStep(config);
    for (const key of names) {
      const error = relativeError(found[key]!, peer(label, key));
      if (differs.includes(key)) expect(error, key).toBeGreaterThan(1e-3);
      else expect(error, key).toBeLessThan(2e-6);
    }
  });

  test("SAELens' BatchTopK threshold starts at 0 without correction: after 10 steps it is 10 % of ours", async () => {
    const { smallestSelected, afterTenSteps } = report.saeLensThreshold;
    const config = { architecture: "batchtopk", k: 2.5, thresholdDecay: 0.99, decoderUnitNorm: false };
    const { threshold } = await trained({ ...config, dIn: 6, dSae: 20 }, { steps: 10, lr: 1e-12 });
    for (const value of threshold!) expect(value).toBeCloseTo(smallestSelected, 6);
    expect(afterTenSteps / threshold![0]!).toBeCloseTo(1 - 0.99 ** 10, 5);
  });
});

function peer(label: string, key: string): Float32Array {
  return arrays.get(`${label}.${key}`)!;
}

function activations(name: "x" | "y"): Tensor {
  return device.tensor(arrays.get(name)!, [report.tokens, 6]);
}

function configured(
  sae: object & { readonly transcoder?: boolean },
  training: object,
): { config: SaeTrainingConfig; training: TrainingConfig } {
  const run = parseConfig({
    sae: { ...sae, ...(sae.transcoder ? { targetHook: "y" } : {}) },
    data: { activations: "peers" },
    training: { batchSize: report.tokens, ...training },
    output: "none",
  });
  return { config: run.sae as SaeTrainingConfig, training: run.training };
}

function initialParameters(config: SaeTrainingConfig): SaeParameters {
  const tensors = parameterLayout(parseSaeConfig(config)).map(({ name, shape, trained: isTrained }) => {
    const stored = name === "decoder" && !config.decoderUnitNorm ? "freeDecoder" : name;
    return [name, isTrained ? device.tensor(arrays.get(`initial.${stored}`)!, shape) : device.zeros(shape)];
  });
  return Object.fromEntries(tensors) as SaeParameters;
}

/** Our latents, reconstruction and gradients, named as the fixture names the peer's. */
async function firstStep(options: object): Promise<Record<string, Float32Array>> {
  const { config } = configured(options, { steps: 1 });
  const parameters = initialParameters(config);
  const x = activations("x");
  const scaled = config.normalizeActivations === "layer-norm" ? normalisedRows(x, device) : x;
  const y = config.transcoder ? { y: activations("y") } : {};
  const { codes, gradients } = await gradientStep(config, parameters, scaled, device, y);
  const sae = new Sae(parseSaeConfig(config), parameters, device);
  return {
    latents: await device.kernels.densify(codes).readFloat32(),
    reconstruction: await sae.decode(codes, x).readFloat32(),
    ...Object.fromEntries(Object.entries(gradients).map(([name, gradient]) => [`gradient.${name}`, gradient])),
  };
}

/** Our parameters after training on the same batch in every step. */
async function trained(options: object, schedule: object): Promise<Record<string, Float32Array>> {
  const { config, training } = configured(options, schedule);
  const source = new ArraySource(arrays.get("x")!, config.dIn, device);
  const trainer = await Trainer.create({ sae: config, training, source, device });
  const { parameters } = trainer.sae;
  for (const [name, tensor] of Object.entries(initialParameters(config))) {
    device.kernels.scale(tensor!, 1, { out: parameters[name]! });
  }
  for await (const _ of trainer.run());
  const values = Object.entries(parameters).map(async ([name, tensor]) => [name, await tensor!.readFloat32()]);
  return Object.fromEntries(await Promise.all(values));
}
