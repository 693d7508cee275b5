import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import type { ActivationHook } from "../../lib/activations/source.js";
import type { Device } from "../../lib/engine/device.js";
import { SafetensorsFile } from "../../lib/formats/safetensors.js";
import type { SaeParameters } from "../../lib/sae/architecture.js";
import { parseSaeConfig, type SaeTrainingConfig } from "../../lib/sae/config.js";
import { parameterLayout } from "../../lib/sae/parameterLayout.js";
import type { TrainingConfig } from "../../lib/training/config.js";
import { parseConfig } from "../../lib/training/config.js";

/** One case of test/fixtures/sae/make_goldens.py, where the meaning of each number is written. */
export interface Golden {
  readonly sae: SaeTrainingConfig;
  readonly training: TrainingConfig;
  /** Batches one after the other, as a source hands them out: of a transcoder the input and beside it the target. */
  readonly activations: Float32Array;
  readonly hooks: readonly ActivationHook[];
  /** What is encoded in the first step, [batch, dIn]. */
  readonly x: Float32Array;
  /** What a transcoder reconstructs there, [batch, dOut]. */
  readonly y: Float32Array;
  readonly firstLosses: Readonly<Record<string, number>>;
  /** For latents, reconstruction and gradients of the first step. */
  readonly stepTolerance: number;
  /** For parameters and losses in the course of the training. */
  readonly finalTolerance: number;
  readonly parameterNames: readonly string[];
  has(name: string): boolean;
  array(name: string): Float32Array;
  /** What the trainer logs: numbers in float64. */
  series(name: string): Float64Array;
  initialParameters(device: Device): SaeParameters;
}

interface Report {
  readonly batch: number;
  readonly lr: number;
  readonly lrWarmupSteps: number;
  readonly lrDecaySteps: number;
  readonly l1WarmupSteps: number;
  readonly clipGradNorm: number;
  readonly logEvery: number;
  readonly cases: Readonly<
    Record<
      string,
      {
        readonly config: { readonly architecture: string; readonly transcoder?: boolean };
        readonly steps: number;
        readonly firstColumnScale: number;
        readonly firstLosses: Readonly<Record<string, number>>;
        readonly stepTolerance: number;
        readonly finalTolerance: number;
      }
    >
  >;
}

const fixture = (name: string): string => fileURLToPath(new URL(`../fixtures/sae/${name}`, import.meta.url));

function reportOf(shape: string): Report {
  return JSON.parse(readFileSync(fixture(`goldens-${shape}.json`), "utf8"));
}

/** dIn x dSae x batch */
export const goldenShapes: readonly string[] = ["13x37x11", "16x64x32"];
export const goldenCases: readonly string[] = Object.keys(reportOf("13x37x11").cases);

const files = new Map<string, Promise<ReadonlyMap<string, Float32Array | Float64Array>>>();

async function arraysOf(shape: string): Promise<ReadonlyMap<string, Float32Array | Float64Array>> {
  await using file = await SafetensorsFile.open(fixture(`goldens-${shape}.safetensors`));
  const arrays = new Map<string, Float32Array | Float64Array>();
  for (const key of file.entries.keys()) arrays.set(key, (await file.read(key)).data as Float32Array | Float64Array);
  return arrays;
}

export async function loadGolden(shape: string, name: string): Promise<Golden> {
  const report = reportOf(shape);
  const golden = report.cases[name];
  if (golden === undefined) throw new Error(`there is no golden case ${name}`);
  if (!files.has(shape)) files.set(shape, arraysOf(shape));
  const arrays = await files.get(shape)!;
  const found = (key: string): Float32Array | Float64Array => {
    const array = arrays.get(`${name}.${key}`) ?? arrays.get(key);
    if (array === undefined) throw new Error(`golden ${name} has no ${key}`);
    return array;
  };
  const array = (key: string): Float32Array => found(key) as Float32Array;

  const { batch, cases: _, ...schedule } = report;
  const { transcoder = false } = golden.config;
  const run = parseConfig({
    sae: { ...golden.config, ...(transcoder ? { hook: "input", targetHook: "output" } : {}) },
    data: { activations: "goldens" },
    training: { ...schedule, batchSize: batch, steps: 100 },
    output: "none",
  });
  const training = { ...run.training, steps: golden.steps }; // some are shorter than the decay, and begin amid it
  const sae = run.sae as SaeTrainingConfig;
  const { dIn, dOut = dIn, hookWidths = [dIn] } = sae;
  const scaled = array("x").map((value, i) => (i % dIn === 0 ? value * golden.firstColumnScale : value));
  const layout = parameterLayout(parseSaeConfig(sae));
  return {
    sae,
    training,
    activations: transcoder ? sideBySide(scaled, dIn, array("y"), dOut) : scaled,
    hooks: transcoder
      ? [
          { name: "input", width: dIn },
          { name: "output", width: dOut },
        ]
      : hookWidths.map((width, hook) => ({ name: `hook ${hook}`, width })),
    x: scaled.slice(0, batch * dIn),
    y: transcoder ? array("y").slice(0, batch * dOut) : scaled.slice(0, batch * dIn),
    firstLosses: golden.firstLosses,
    stepTolerance: golden.stepTolerance,
    finalTolerance: golden.finalTolerance,
    parameterNames: layout.filter(({ trained }) => trained).map((parameter) => parameter.name),
    has: (key) => arrays.has(`${name}.${key}`),
    array,
    series: (key) => found(key) as Float64Array,
    initialParameters(device) {
      const initial = (parameter: string): Float32Array | undefined => {
        const stored = parameter === "decoder" && !sae.decoderUnitNorm ? "freeDecoder" : parameter;
        const own = transcoder ? arrays.get(`initial.transcoder.${stored}`) : undefined;
        return (own ?? arrays.get(`initial.${stored}`)) as Float32Array | undefined;
      };
      const tensors = layout.map(({ name: parameter, shape: size, trained }) => [
        parameter,
        trained ? device.tensor(initial(parameter)!, size) : device.zeros(size),
      ]);
      return Object.fromEntries(tensors) as SaeParameters;
    },
  };
}

function sideBySide(left: Float32Array, leftWidth: number, right: Float32Array, rightWidth: number): Float32Array {
  const width = leftWidth + rightWidth;
  const rows = left.length / leftWidth;
  const both = new Float32Array(rows * width);
  for (let row = 0; row < rows; row++) {
    both.set(left.subarray(row * leftWidth, (row + 1) * leftWidth), row * width);
    both.set(right.subarray(row * rightWidth, (row + 1) * rightWidth), row * width + leftWidth);
  }
  return both;
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
