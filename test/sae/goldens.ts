import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import type { Device } from "../../lib/engine/device.js";
import { SafetensorsFile } from "../../lib/formats/safetensors.js";
import { parameterNames, type SaeParameters } from "../../lib/sae/architecture.js";
import type { SaeTrainingConfig } from "../../lib/sae/config.js";
import type { TrainingConfig } from "../../lib/training/config.js";
import { parseConfig } from "../../lib/training/config.js";

/** One case of test/fixtures/sae/make_goldens.py, where the meaning of each number is written. */
export interface Golden {
  readonly sae: SaeTrainingConfig;
  readonly training: TrainingConfig;
  readonly batch: number;
  /** [batches * batch, dIn]: step t trains on batch t modulo their number. */
  readonly batches: Float32Array;
  readonly losses: readonly Readonly<Record<string, number>>[];
  readonly deadLatents: readonly number[];
  readonly gradientNorms: readonly number[];
  readonly tokensSinceFired: readonly number[];
  array(name: string): Float32Array;
  initialParameters(device: Device): SaeParameters;
}

export const goldenShapes = ["13x37x11", "16x64x32"] as const;
export const goldenCases = [
  "relu-norm-weighted",
  "relu-unit-norm",
  "topk",
  "topk-free-decoder",
  "topk-aux",
  "topk-aux-free-decoder",
] as const;

export async function loadGolden(shape: string, name: string): Promise<Golden> {
  const path = fileURLToPath(new URL(`../fixtures/sae/goldens-${shape}`, import.meta.url));
  const report = JSON.parse(readFileSync(`${path}.json`, "utf8"));
  const { config, ...recorded } = report.cases[name];
  await using file = await SafetensorsFile.open(`${path}.safetensors`);
  const arrays = new Map<string, Float32Array>();
  for (const key of file.entries.keys()) arrays.set(key, await file.readFloat32(key));
  const array = (key: string): Float32Array => {
    const found = arrays.get(key) ?? arrays.get(`${name}.${key}`);
    if (found === undefined) throw new Error(`golden ${name} has no ${key}`);
    return found;
  };
  const { dIn, dSae, batch, steps, lr, lrWarmupSteps, lrDecaySteps, l1WarmupSteps, clipGradNorm, deadAfterTokens } =
    report;
  const { sae, training } = parseConfig({
    sae: { dIn, dSae, deadAfterTokens, ...config },
    data: { activations: "goldens" },
    training: { batchSize: batch, steps, lr, lrWarmupSteps, lrDecaySteps, l1WarmupSteps, clipGradNorm, logEvery: 1 },
    output: "none",
  });
  const shapes = { encoder: [dSae, dIn], encoderBias: [dSae], decoder: [dSae, dIn], decoderBias: [dIn] };
  return {
    sae,
    training,
    batch,
    batches: array("batches"),
    ...recorded,
    array,
    initialParameters(device) {
      const initial = (key: keyof SaeParameters) =>
        array(key === "decoder" && !sae.decoderUnitNorm ? "initial.freeDecoder" : `initial.${key}`);
      return Object.fromEntries(
        parameterNames.map((key) => [key, device.tensor(initial(key), shapes[key])]),
      ) as unknown as SaeParameters;
    },
  };
}

/** max |a - b| / max |b|: how far `actual` is from `expected`, in units of the expected array's largest element. */
export function relativeError(actual: Float32Array, expected: Float32Array): number {
  if (actual.length !== expected.length) return Number.POSITIVE_INFINITY;
  let largestDifference = 0;
  let largest = 0;
  expected.forEach((value, i) => {
    // a NaN must not hide behind Math.max
    const difference = Math.abs(actual[i]! - value);
    if (!(difference <= largestDifference)) largestDifference = difference;
    largest = Math.max(largest, Math.abs(value));
  });
  return largestDifference / largest;
}
