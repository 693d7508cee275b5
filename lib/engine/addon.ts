import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";
import { MonosemError } from "../errors.js";

/** Opaque handles of the native module; only it can look inside. */
export interface NativeDevice {
  readonly kind: "native device";
}
export interface NativeTensor {
  readonly kind: "native tensor";
}
export interface NativeCodes {
  readonly kind: "native codes";
}
export interface NativeEntryValues {
  readonly kind: "native entry values";
}
export interface NativeFeatureSet {
  readonly kind: "native feature set";
}
export interface NativeKeptGradient {
  readonly kind: "native kept gradient";
}
/** Anything that a handle can stand for, but a device. */
export type NativeResult = NativeTensor | NativeCodes | NativeEntryValues | NativeFeatureSet | NativeKeptGradient;

/** Element types of tensors. */
export type DType = "f32" | "f16" | "bf16" | "i32" | "u32" | "f64";

/** Arrays that tensors are made from and read into; `Uint16Array` holds the bits of f16 or bf16. */
export type TypedArray = Float32Array | Uint16Array | Int32Array | Uint32Array | Float64Array;

/** Bytes of a device's memory. */
export interface MemoryUse {
  /** In live tensors, codes and scratch memory. */
  readonly currentBytes: number;
  /** The most that was live at once since the device was opened or `resetPeakMemory` was called. */
  readonly peakBytes: number;
  /** Freed, but kept for reuse. */
  readonly cachedBytes: number;
  /** The limit on live and kept bytes together; 0: none. */
  readonly limitBytes: number;
}

/** One term of a row gradient as the native module takes it: codes, coefficients, dense, scale. */
export type NativeRowGradient = readonly (NativeCodes | NativeEntryValues | NativeTensor | number | boolean | null)[];
/** How many, then the widths. */
export type NativeBlockWidths = readonly [count: number, ...widths: number[]];
type Absent = null;
/** A selection of `encode`: its name and what belongs to it. */
export type NativeSelection =
  | [select: "positive" | "all"]
  | [select: "topk", k: number, byMagnitude: boolean]
  | [select: "batchtopk", k: number]
  | [select: "above", thresholds: NativeTensor, margin: number];
type NativeAdam = readonly [learningRate: number, beta1: number, beta2: number, epsilon: number, step: number];
type NativeClip = readonly [squaredNorm: NativeTensor | Absent, maxNorm: number];
export type NativeAttention = readonly [
  queries: NativeTensor,
  keys: NativeTensor,
  values: NativeTensor,
  keyPositions: number,
  scale: number,
  softCap: number,
  window: number,
  firstKeys: NativeTensor | Absent,
];

/** Kernels as the native module exports them: outputs are made before and passed in; arguments are positional. */
export interface NativeKernels {
  encode(
    device: NativeDevice,
    x: NativeTensor,
    encoder: NativeTensor,
    bias: NativeTensor,
    ...operands: [...NativeSelection, features: NativeFeatureSet | Absent, codes: NativeCodes]
  ): void;
  decode(
    device: NativeDevice,
    codes: NativeCodes,
    decoder: NativeTensor,
    bias: NativeTensor | Absent,
    target: NativeTensor | Absent,
    squaredError: NativeTensor | Absent,
    out: NativeTensor,
  ): void;
  decodeGradient(
    device: NativeDevice,
    codes: NativeCodes,
    decoder: NativeTensor,
    dOutput: NativeTensor,
    scale: number,
    perFeature: NativeTensor | Absent,
    featureScale: number,
    every: boolean,
    out: NativeEntryValues,
  ): void;
  featureSums(
    device: NativeDevice,
    codes: NativeCodes,
    coefficients: NativeEntryValues | Absent,
    scale: number,
    out: NativeTensor,
  ): void;
  featureCounts(device: NativeDevice, codes: NativeCodes, out: NativeTensor): void;
  densify(device: NativeDevice, codes: NativeCodes, out: NativeTensor): void;
  entries(device: NativeDevice, codes: NativeCodes, which: "values" | "preActivations", out: NativeEntryValues): void;
  entryProduct(
    device: NativeDevice,
    codes: NativeCodes,
    a: NativeEntryValues | Absent,
    b: NativeEntryValues | Absent,
    perFeature: NativeTensor | Absent,
    scale: number,
    plus: NativeEntryValues | Absent,
    out: NativeEntryValues,
  ): void;
  entryActivation(device: NativeDevice, values: NativeEntryValues, activation: string, out: NativeEntryValues): void;
  entryPower(device: NativeDevice, values: NativeEntryValues, exponent: number, out: NativeEntryValues): void;
  withValues(
    device: NativeDevice,
    codes: NativeCodes,
    preActivations: NativeEntryValues | Absent,
    values: NativeEntryValues | Absent,
    out: NativeCodes,
  ): void;
  featureRange(device: NativeDevice, codes: NativeCodes, from: number, to: number, out: NativeCodes): void;
  windowSums(
    device: NativeDevice,
    codes: NativeCodes,
    thresholds: NativeTensor,
    bandwidth: number,
    coefficients: NativeEntryValues | Absent,
    scale: number,
    out: NativeTensor,
  ): void;
  selectTop(device: NativeDevice, codes: NativeCodes, k: number, out: NativeCodes): void;
  updateRunningMinimum(
    device: NativeDevice,
    codes: NativeCodes,
    decay: number,
    state: NativeTensor,
    out: NativeTensor,
  ): void;
  rowGradientSquaredNorm(
    device: NativeDevice,
    ...operands: [...NativeRowGradient, weights: NativeTensor, squaredNorm: NativeTensor, kept: NativeKeptGradient]
  ): void;
  rowGradient(
    device: NativeDevice,
    ...operands: [...NativeRowGradient, weights: NativeTensor, out: NativeTensor]
  ): void;
  stepRows(
    device: NativeDevice,
    ...operands: [
      ...NativeRowGradient,
      weights: NativeTensor,
      m: NativeTensor,
      v: NativeTensor,
      ...adam: NativeAdam,
      ...clip: NativeClip,
      unitNorm: boolean,
      kept: NativeKeptGradient | Absent,
    ]
  ): void;
  stepVector(
    device: NativeDevice,
    gradient: NativeTensor,
    weights: NativeTensor,
    m: NativeTensor,
    v: NativeTensor,
    ...adamAndClip: [...NativeAdam, ...NativeClip]
  ): void;
  updateTokensSinceFired(
    device: NativeDevice,
    codes: NativeCodes,
    tokens: number,
    tokensSinceFired: NativeTensor,
  ): void;
  featuresNotFiredFor(
    device: NativeDevice,
    tokensSinceFired: NativeTensor,
    threshold: number,
    out: NativeFeatureSet,
  ): void;

  fill(device: NativeDevice, out: NativeTensor, value: number): void;
  add(device: NativeDevice, a: NativeTensor, b: NativeTensor, scale: number, out: NativeTensor): void;
  scale(device: NativeDevice, a: NativeTensor, factor: number, out: NativeTensor): void;
  addRow(device: NativeDevice, a: NativeTensor, row: NativeTensor, scale: number, out: NativeTensor): void;
  scaleRows(device: NativeDevice, a: NativeTensor, factors: NativeTensor, out: NativeTensor): void;
  multiply(device: NativeDevice, a: NativeTensor, b: NativeTensor, out: NativeTensor): void;
  divide(device: NativeDevice, a: NativeTensor, b: NativeTensor, out: NativeTensor): void;
  scaleColumns(device: NativeDevice, a: NativeTensor, factors: NativeTensor, out: NativeTensor): void;
  affineRows(
    device: NativeDevice,
    a: NativeTensor,
    factors: NativeTensor,
    shifts: NativeTensor,
    out: NativeTensor,
  ): void;
  standardiseRows(
    device: NativeDevice,
    x: NativeTensor,
    epsilon: number,
    normalized: NativeTensor,
    mean: NativeTensor,
    standardDeviation: NativeTensor,
  ): void;
  rowNorms(device: NativeDevice, a: NativeTensor, ...blocksAndOut: [...NativeBlockWidths, out: NativeTensor]): void;
  normaliseRows(device: NativeDevice, a: NativeTensor, norm: number, out: NativeTensor): void;
  columnSums(device: NativeDevice, a: NativeTensor, scale: number, out: NativeTensor): void;
  weightedRowSum(device: NativeDevice, weights: NativeTensor, a: NativeTensor, scale: number, out: NativeTensor): void;
  gatherRows(device: NativeDevice, a: NativeTensor, rows: NativeTensor, out: NativeTensor): void;
  scatterRows(device: NativeDevice, a: NativeTensor, rows: NativeTensor, out: NativeTensor): void;
  sliceColumns(device: NativeDevice, a: NativeTensor, firstColumn: number, out: NativeTensor): void;
  copyColumns(device: NativeDevice, a: NativeTensor, out: NativeTensor, firstColumn: number): void;
  copyRows(device: NativeDevice, a: NativeTensor, out: NativeTensor, firstRow: number): void;
  sliceRows(device: NativeDevice, a: NativeTensor, firstRow: number, out: NativeTensor): void;
  transpose(device: NativeDevice, a: NativeTensor, out: NativeTensor): void;
  dot(device: NativeDevice, a: NativeTensor, b: NativeTensor, sum: NativeTensor): void;
  sum(device: NativeDevice, a: NativeTensor, sum: NativeTensor): void;
  accumulateColumnSums(device: NativeDevice, a: NativeTensor, sums: NativeTensor): void;
  sumOfRowCosines(device: NativeDevice, a: NativeTensor, b: NativeTensor, sum: NativeTensor): void;
  toFloat32(device: NativeDevice, a: NativeTensor, out: NativeTensor): void;
  randomUniform(device: NativeDevice, out: NativeTensor, seed: number, offset: number, low: number, high: number): void;
  randomNormal(device: NativeDevice, out: NativeTensor, seed: number, offset: number, standardDeviation: number): void;
  randomPermutation(device: NativeDevice, out: NativeTensor, seed: number, offset: number): void;
  drawFeatures(
    device: NativeDevice,
    probabilities: NativeTensor,
    factors: NativeTensor | Absent,
    means: NativeTensor,
    deviations: NativeTensor,
    roots: number,
    children: number,
    depth: number,
    seed: number,
    offset: number,
    codes: NativeCodes,
  ): void;

  linear(
    device: NativeDevice,
    x: NativeTensor,
    weights: NativeTensor,
    bias: NativeTensor | Absent,
    activation: string,
    residual: NativeTensor | Absent,
    exact: boolean,
    out: NativeTensor,
  ): void;
  activation(device: NativeDevice, x: NativeTensor, activation: string, out: NativeTensor): void;
  layerNorm(
    device: NativeDevice,
    x: NativeTensor,
    weight: NativeTensor | Absent,
    bias: NativeTensor | Absent,
    epsilon: number,
    out: NativeTensor,
  ): void;
  layerNormParts(
    device: NativeDevice,
    x: NativeTensor,
    epsilon: number,
    normalized: NativeTensor,
    scale: NativeTensor,
  ): void;
  rmsNorm(
    device: NativeDevice,
    x: NativeTensor,
    weight: NativeTensor | Absent,
    epsilon: number,
    out: NativeTensor,
  ): void;
  rmsNormParts(
    device: NativeDevice,
    x: NativeTensor,
    epsilon: number,
    normalized: NativeTensor,
    scale: NativeTensor,
  ): void;
  rotate(
    device: NativeDevice,
    x: NativeTensor,
    cosines: NativeTensor,
    sines: NativeTensor,
    interleaved: boolean,
    out: NativeTensor,
  ): void;
  gatedActivation(
    device: NativeDevice,
    gate: NativeTensor,
    x: NativeTensor,
    activation: string,
    out: NativeTensor,
  ): void;
  attention(device: NativeDevice, ...operands: [...NativeAttention, out: NativeTensor]): void;
  attentionScores(device: NativeDevice, ...operands: [...NativeAttention, out: NativeTensor]): void;
  softmaxRows(device: NativeDevice, scores: NativeTensor, out: NativeTensor): void;
  attentionMix(device: NativeDevice, ...operands: [...NativeAttention, pattern: NativeTensor, out: NativeTensor]): void;
  appendPositions(device: NativeDevice, rows: NativeTensor, cache: NativeTensor, first: number): void;
  logSoftmax(device: NativeDevice, logits: NativeTensor, out: NativeTensor): void;
  crossEntropy(device: NativeDevice, logits: NativeTensor, targets: NativeTensor, out: NativeTensor): void;
  klDivergence(device: NativeDevice, p: NativeTensor, q: NativeTensor, out: NativeTensor): void;
  sample(
    device: NativeDevice,
    logits: NativeTensor,
    temperature: number,
    topK: number,
    topP: number,
    seed: number,
    offset: number,
    out: NativeTensor,
  ): void;
}

/** The whole of the native module (native/addon). Nothing else in lib/ sees it untyped. */
export interface NativeModule extends NativeKernels {
  setErrorClass(errorClass: typeof MonosemError): void;

  openCpuDevice(threads: number, memoryLimitBytes: number): NativeDevice;
  openCudaDevice(ordinal: number, precision: string, cublasPath: string, memoryLimitBytes: number): NativeDevice;
  describeDevice(device: NativeDevice): string;
  deviceMemory(device: NativeDevice): MemoryUse;
  resetPeakMemory(device: NativeDevice): void;
  releaseCachedMemory(device: NativeDevice): void;
  synchronize(device: NativeDevice): Promise<void>;
  closeDevice(device: NativeDevice): void;

  tensorFromHost(device: NativeDevice, dtype: DType, shape: readonly number[], data: TypedArray): NativeTensor;
  emptyTensor(device: NativeDevice, dtype: DType, shape: readonly number[]): NativeTensor;
  zeroTensor(device: NativeDevice, dtype: DType, shape: readonly number[]): NativeTensor;
  reshapeTensor(tensor: NativeTensor, shape: readonly number[]): NativeTensor;
  writeTensor(tensor: NativeTensor, data: TypedArray): void;
  readTensor(tensor: NativeTensor): Promise<TypedArray>;
  disposeHandle(handle: NativeTensor | NativeCodes | NativeEntryValues | NativeFeatureSet | NativeKeptGradient): void;

  newCodes(device: NativeDevice, rows: number, dSae: number): NativeCodes;
  newEntryValues(codes: NativeCodes): NativeEntryValues;
  newEntryValuesLike(values: NativeEntryValues): NativeEntryValues;
  newFeatureSet(device: NativeDevice, dSae: number): NativeFeatureSet;
  newKeptGradient(device: NativeDevice): NativeKeptGradient;
  readCodes(
    codes: NativeCodes,
  ): Promise<[rowOffsets: Float64Array, features: Uint32Array, preActivations: Float32Array, values: Float32Array]>;
  readEntryValues(values: NativeEntryValues): Promise<[values: Float32Array]>;
  readFeatureSet(set: NativeFeatureSet): Promise<[indices: Uint32Array]>;
}

const REQUIRED_NODE_API = 9;

/**
 * Loads the native module: the one built in this folder if there is one, else the prebuilt one of this platform.
 * A Node.js that is too old would crash on it, so that is looked at first.
 *
 * @throws {MonosemError} ERR_UNSUPPORTED when Node.js is too old, or no binary for this platform can be loaded.
 */
function load(): NativeModule {
  const found = Number(process.versions.napi ?? 0);
  if (found < REQUIRED_NODE_API) {
    throw new MonosemError(
      "ERR_UNSUPPORTED",
      `monosem needs Node-API ${REQUIRED_NODE_API} (Node.js 20.19 or later); Node.js ${process.versions.node} has Node-API ${found}. Use a newer Node.js.`,
    );
  }
  const require = createRequire(import.meta.url);
  const root = fileURLToPath(new URL("../..", import.meta.url));
  try {
    const nodeGypBuild = require("node-gyp-build") as (directory: string) => NativeModule;
    const native = nodeGypBuild(root);
    native.setErrorClass(MonosemError);
    return native;
  } catch (cause) {
    throw new MonosemError(
      "ERR_UNSUPPORTED",
      `monosem's native module could not be loaded for ${process.platform}-${process.arch}: ${(cause as Error).message}. ` +
        "In a clone, run `npm run build:native`. From a package, this platform has no prebuilt binary, or bundling has moved " +
        "it; a package of your own is made by `npm run prebuild && npm pack`.",
      { cause },
    );
  }
}

/** The native module, loaded once. */
export const native: NativeModule = load();
