/**
 * Every kernel through the facade, once, against a plain loop: that each argument arrives where it belongs. The
 * kernels' edges, instruction sets and thread counts are tested natively (test/native/kernels).
 */
import { afterAll, beforeAll, expect, test } from "vitest";
import type { Codes } from "../../lib/engine/codes.js";
import { Device } from "../../lib/engine/device.js";
import type { RowGradient } from "../../lib/engine/kernels.js";
import type { Selection } from "../../lib/engine/selection.js";
import type { Tensor } from "../../lib/engine/tensor.js";
import { testDevice } from "../testDevice.js";

let device: Device;
beforeAll(async () => {
  device = await Device.open(testDevice, { threads: 2 });
});
afterAll(() => device.close());

type Rows = readonly (readonly number[])[];

const vector = (values: readonly number[]): Tensor => device.tensor(new Float32Array(values), [values.length]);
const matrix = (rows: Rows): Tensor => device.tensor(new Float32Array(rows.flat()), [rows.length, rows[0]!.length]);
const integers = (values: readonly number[]): Tensor => device.tensor(new Int32Array(values), [values.length]);
const doubles = (values: readonly number[]): Tensor => device.tensor(new Float64Array(values), [values.length]);

/** Reads a tensor and compares it within f32 rounding. */
async function expectTensor(tensor: Tensor, shape: readonly number[], values: readonly number[]): Promise<void> {
  expect(tensor.shape).toEqual(shape);
  const content = await tensor.read();
  expect(content).toHaveLength(values.length);
  for (const [i, value] of values.entries()) {
    if (Number.isFinite(value)) expect(content[i], `element ${i}`).toBeCloseTo(value, 4);
    else expect(content[i], `element ${i}`).toBe(value);
  }
}

const dot = (a: readonly number[], b: readonly number[]): number => a.reduce((sum, value, i) => sum + value * b[i]!, 0);

// Three rows of x, two inputs, four features. Pre-activations:
//   row 0: 1, 2, 3, -3;  row 1: -1, 0.5, -0.5, 0.5;  row 2: 0, 0, 0, 0
const x: Rows = [
  [1, 2],
  [-1, 0.5],
  [0, 0],
];
const encoder: Rows = [
  [1, 0],
  [0, 1],
  [1, 1],
  [-1, -1],
];
const decoder: Rows = [
  [1, 2],
  [3, 4],
  [5, 6],
  [7, 8],
];
// The positive entries: (row, feature, value).
const entries = [
  [0, 0, 1],
  [0, 1, 2],
  [0, 2, 3],
  [1, 1, 0.5],
  [1, 3, 0.5],
] as const;

const encodePositive = (): Codes =>
  device.kernels.encode(matrix(x), matrix(encoder), vector([0, 0, 0, 0]), { select: "positive" });

test("encode adds the bias and selects", async () => {
  const codes = encodePositive();
  const { features, values } = await codes.read();
  expect([...features]).toEqual(entries.map(([, feature]) => feature));
  expect([...values]).toEqual(entries.map(([, , value]) => value));
  const biased = device.kernels.encode(matrix(x), matrix(encoder), vector([0, 0, 0, 10]), { select: "topk", k: 1 });
  const content = await biased.read();
  expect([...content.features]).toEqual([3, 3, 3]);
  expect([...content.values]).toEqual([7, 10.5, 10]);
});

// All entries with these biases, (row, feature, pre-activation): row 0: 1, 2, 3, -3; row 1: -1, 0.5, -0.5, 0.5; row 2: 0.
async function selected(selection: Selection): Promise<{ entries: number[][]; values: number[] }> {
  const codes = device.kernels.encode(matrix(x), matrix(encoder), vector([0, 0, 0, 0]), selection);
  const { rowOffsets, features, preActivations, values } = await codes.read();
  const rowOf = (entry: number): number => rowOffsets.findLastIndex((offset) => offset <= entry);
  return { entries: [...features].map((f, e) => [rowOf(e), f, preActivations[e]!]), values: [...values] };
}

test("encode selects by magnitude, over the batch, above thresholds, or all", async () => {
  expect(await selected({ select: "topk", k: 2, by: "magnitude" })).toEqual({
    entries: [
      [0, 2, 3],
      [0, 3, -3],
      [1, 0, -1],
      [1, 1, 0.5],
      [2, 0, 0],
      [2, 1, 0],
    ],
    values: [3, -3, -1, 0.5, 0, 0],
  });
  expect(await selected({ select: "batchtopk", k: 4 })).toEqual({
    entries: [
      [0, 0, 1],
      [0, 1, 2],
      [0, 2, 3],
      [1, 1, 0.5],
    ],
    values: [1, 2, 3, 0.5],
  });
  expect((await selected({ select: "batchtopk", k: 9 })).values).toEqual([1, 2, 3, 0.5, 0.5]);
  expect(await selected({ select: "batchtopk", k: 0 })).toEqual({ entries: [], values: [] });
  const thresholds = vector([1, 1.5, 2, -1]);
  expect(await selected({ select: "above", thresholds })).toEqual({
    entries: [
      [0, 1, 2],
      [0, 2, 3],
      [1, 3, 0.5],
      [2, 3, 0],
    ],
    values: [2, 3, 0.5, 0],
  });
  expect(await selected({ select: "above", thresholds, margin: 1 })).toEqual({
    entries: [
      [0, 0, 1],
      [0, 1, 2],
      [0, 2, 3],
      [1, 3, 0.5],
      [2, 3, 0],
    ],
    values: [0, 2, 3, 0.5, 0],
  });
  const all = await selected({ select: "all" });
  expect(all.entries.map(([row, feature]) => 4 * row! + feature!)).toEqual([...Array(12).keys()]);
  expect(all.values).toEqual([1, 2, 3, 0, 0, 0.5, 0, 0.5, 0, 0, 0, 0]);
});

test("encode restricts any selection to a feature set", async () => {
  const features = device.kernels.featuresNotFiredFor(doubles([1, 0, 0, 1]), 1); // features 0 and 3
  const pairs = async (selection: Selection): Promise<number[][]> =>
    (await selected({ ...selection, features })).entries.map(([row, feature]) => [row!, feature!]);
  expect(await pairs({ select: "positive" })).toEqual([
    [0, 0],
    [1, 3],
  ]);
  expect(await pairs({ select: "batchtopk", k: 1 })).toEqual([[0, 0]]);
  expect(await pairs({ select: "above", thresholds: vector([0.5, 0, 0, 0.5]) })).toEqual([[0, 0]]);
  expect(await pairs({ select: "topk", k: 1, by: "magnitude" })).toEqual([
    [0, 3],
    [1, 0],
    [2, 0],
  ]);
  expect(await pairs({ select: "all" })).toHaveLength(6);
});

test("encode refuses selections that say nothing", async () => {
  const encode = (selection: Selection): Codes =>
    device.kernels.encode(matrix(x), matrix(encoder), vector([0, 0, 0, 0]), selection);
  for (const selection of [
    { select: "most" },
    { select: "topk", k: 0 },
    { select: "topk", k: 1, by: "size" },
    { select: "batchtopk", k: 1.5 },
    { select: "batchtopk", k: -1 },
    { select: "above", thresholds: vector([0, 0, 0, 0]), margin: -1 },
    { select: "above", thresholds: [0, 0, 0, 0] },
  ]) {
    const refused = expect.objectContaining({ code: "ERR_INVALID_ARGUMENT" });
    expect(() => encode(selection as unknown as Selection), selection.select).toThrow(refused);
  }
  expect(() => encode({ select: "above", thresholds: vector([0, 0]) })).toThrow(
    expect.objectContaining({ code: "ERR_SHAPE_MISMATCH" }),
  );
  const codes = encode({ select: "above", thresholds: vector([0, Number.NaN, 0, 0]) });
  await expect(codes.read()).rejects.toMatchObject({
    code: "ERR_NON_FINITE",
    message: expect.stringMatching(/encode.*threshold of feature 1/),
  });
});

test("selectTop narrows codes and keeps what they hold", async () => {
  const thresholds = vector([1, 1.5, 2, -1]);
  const codes = device.kernels.encode(matrix(x), matrix(encoder), vector([0, 0, 0, 0]), {
    select: "above",
    thresholds,
    margin: 1,
  });
  const { rowOffsets, features, preActivations, values } = await device.kernels.selectTop(codes, 2).read();
  expect([...rowOffsets]).toEqual([0, 2, 3, 4]);
  expect([...features]).toEqual([1, 2, 3, 3]);
  expect([...preActivations]).toEqual([2, 3, 0.5, 0]);
  expect([...values]).toEqual([2, 3, 0.5, 0]);
  const none = await device.kernels.selectTop(codes, 0).read();
  expect([...none.rowOffsets]).toEqual([0, 0, 0, 0]);
  expect(() => device.kernels.selectTop(codes, -1)).toThrow(expect.objectContaining({ code: "ERR_INVALID_ARGUMENT" }));
});

test("updateRunningMinimum follows the smallest active value, corrected for its start", async () => {
  const { kernels } = device;
  const state = doubles([0, 0]);
  const out = vector([7, 7, 7]);
  const codesOf = (selection: Selection): Codes =>
    kernels.encode(matrix(x), matrix(encoder), vector([0, 0, 0, 0]), selection);
  kernels.updateRunningMinimum(codesOf({ select: "batchtopk", k: 0 }), 0.9, state, out);
  await expectTensor(out, [3], [7, 7, 7]);
  kernels.updateRunningMinimum(codesOf({ select: "batchtopk", k: 3 }), 0.9, state, out);
  await expectTensor(out, [3], [1, 1, 1]);
  kernels.updateRunningMinimum(codesOf({ select: "topk", k: 4 }), 0.9, state, out);
  const mean = (0.9 * 0.1 * 1 + 0.1 * 0.5) / (0.9 * 0.1 + 0.1);
  await expectTensor(out, [3], [mean, mean, mean]);
  await expectTensor(state, [2], [0.9 * 0.1 + 0.1 * 0.5, 0.19]);
  const codes = codesOf({ select: "positive" });
  for (const decay of [1, -0.1, Number.NaN]) {
    expect(() => kernels.updateRunningMinimum(codes, decay, state, out)).toThrow(
      expect.objectContaining({ code: "ERR_INVALID_ARGUMENT" }),
    );
  }
});

test("decode adds the bias, subtracts the target and adds up the squared error", async () => {
  const { kernels } = device;
  const reconstruction = [
    [1 * 1 + 2 * 3 + 3 * 5, 1 * 2 + 2 * 4 + 3 * 6],
    [0.5 * 3 + 0.5 * 7, 0.5 * 4 + 0.5 * 8],
    [0, 0],
  ];
  await expectTensor(kernels.decode(encodePositive(), matrix(decoder)), [3, 2], reconstruction.flat());
  const squaredError = doubles([100]);
  const residual = reconstruction.map((row, r) => row.map((value, c) => value + [10, 20][c]! - x[r]![c]!));
  await expectTensor(
    kernels.decode(encodePositive(), matrix(decoder), { bias: vector([10, 20]), target: matrix(x), squaredError }),
    [3, 2],
    residual.flat(),
  );
  await expectTensor(squaredError, [1], [100 + dot(residual.flat(), residual.flat())]);
});

test("decodeGradient scales its two parts apart, and is 0 for entries without value", async () => {
  const { kernels } = device;
  const dOutput: Rows = [
    [1, -1],
    [2, 0.5],
    [3, 3],
  ];
  const perFeature = [1, 2, 3, 4];
  const gradient = kernels.decodeGradient(encodePositive(), matrix(decoder), matrix(dOutput), {
    scale: 2,
    perFeature: vector(perFeature),
    featureScale: 10,
  });
  const expected = entries.map(([row, f]) => 2 * dot(dOutput[row]!, decoder[f]!) + 10 * perFeature[f]!);
  expect([...(await gradient.read())]).toEqual(expected);

  const topk = kernels.encode(matrix(x), matrix(encoder), vector([0, 0, 0, 0]), { select: "topk", k: 4 });
  const all = await kernels.decodeGradient(topk, matrix(decoder), matrix(dOutput)).read();
  const { values } = await topk.read();
  for (const [i, value] of values.entries()) if (value === 0) expect(all[i]).toBe(0);
});

test("featureSums, featureCounts and densify", async () => {
  const { kernels } = device;
  const codes = encodePositive();
  await expectTensor(kernels.featureSums(codes), [4], [1, 2.5, 3, 0.5]);
  const coefficients = kernels.decodeGradient(
    codes,
    matrix(decoder),
    matrix([
      [1, 0],
      [1, 0],
      [1, 0],
    ]),
  );
  await expectTensor(kernels.featureSums(codes, { coefficients, scale: 2 }), [4], [2, 12, 10, 14]);
  await expectTensor(kernels.featureCounts(codes), [4], [1, 2, 1, 1]);
  await expectTensor(kernels.densify(codes), [3, 4], [1, 2, 3, 0, 0, 0.5, 0, 0.5, 0, 0, 0, 0]);
});

// A gradient with two terms, row coefficients and, optionally, projection; and the same in plain loops.
const dense: Rows = [
  [1, 2],
  [3, -4],
  [5, 6],
];
const rowCoefficients = [1, 0, 2, -1];
function rowGradientOf(codes: Codes, projectOutRow: boolean) {
  return {
    terms: [
      { codes, dense: matrix(dense), scale: 0.5 },
      { codes, coefficients: device.kernels.decodeGradient(codes, matrix(decoder), matrix(dense)), dense: matrix(x) },
    ],
    rowCoefficients: vector(rowCoefficients),
    rowScale: 3,
    projectOutRow,
  };
}
function rowGradientReference(projectOutRow: boolean): number[][] {
  const gradient = decoder.map((row, f) => {
    const norm = Math.sqrt(dot(row, row));
    return row.map((weight) => (rowCoefficients[f]! * 3 * weight) / norm);
  });
  for (const [row, feature, value] of entries) {
    const coefficient = dot(dense[row]!, decoder[feature]!);
    for (let c = 0; c < 2; c++) gradient[feature]![c]! += 0.5 * value * dense[row]![c]! + coefficient * x[row]![c]!;
  }
  if (projectOutRow) {
    for (const [f, row] of decoder.entries()) {
      const along = dot(gradient[f]!, row) / dot(row, row);
      for (let c = 0; c < 2; c++) gradient[f]![c]! -= along * row[c]!;
    }
  }
  return gradient;
}

const adam = { learningRate: 0.1, beta1: 0.9, beta2: 0.99, epsilon: 1e-3, step: 3 };
function adamReference(weight: number, gradient: number, m: number, v: number): [number, number, number] {
  const newM = adam.beta1 * m + (1 - adam.beta1) * gradient;
  const newV = adam.beta2 * v + (1 - adam.beta2) * gradient * gradient;
  const mHat = newM / (1 - adam.beta1 ** adam.step);
  const vHat = newV / (1 - adam.beta2 ** adam.step);
  return [weight - (adam.learningRate * mHat) / (Math.sqrt(vHat) + adam.epsilon), newM, newV];
}

test.each([false, true])("rowGradient and its norm, with projection: %s", async (projectOutRow) => {
  const { kernels } = device;
  const weights = matrix(decoder);
  const expected = rowGradientReference(projectOutRow).flat();
  await expectTensor(kernels.rowGradient(rowGradientOf(encodePositive(), projectOutRow), weights), [4, 2], expected);
  const squaredNorm = doubles([7]);
  kernels.rowGradientSquaredNorm(rowGradientOf(encodePositive(), projectOutRow), weights, squaredNorm);
  expect((await squaredNorm.readScalar()) / (7 + dot(expected, expected))).toBeCloseTo(1, 6);
});

test.each([false, true])("without clipping no step is made from codes of a failed encode (kept: %s)", async (keeps) => {
  const { kernels } = device;
  const values = new Float32Array(32).fill(1);
  values[3] = Number.NaN;
  const x = device.tensor(values, [16, 2]);
  const weights = device.tensor(new Float32Array([1, 2, 3, 4, 5, 6]), [3, 2]);
  const codes = kernels.encode(x, weights, device.zeros([3]), { select: "topk", k: 2 });
  const moments = { m: device.zeros([3, 2]), v: device.zeros([3, 2]) };
  const gradient = { terms: [{ codes, dense: device.zeros([16, 2]) }] };
  const kept = keeps ? kernels.rowGradientSquaredNorm(gradient, weights, doubles([0])) : undefined;
  kernels.stepRows(gradient, weights, moments, adam, { kept });
  await expect(device.synchronize()).rejects.toThrow(/^encode\(.*: x holds NaN or infinity, first in row 1/);
  expect(await weights.readFloat32()).toEqual(new Float32Array([1, 2, 3, 4, 5, 6]));
  expect(await moments.m.readFloat32()).toEqual(new Float32Array(6));
});

test("stepRows takes a kept gradient, from the same gradient and weights only", async () => {
  const zeros = (): Tensor => device.zeros([4, 2]);
  const gradient = rowGradientOf(encodePositive(), false);
  const weights = matrix(decoder);
  const alone = matrix(decoder);
  device.kernels.stepRows(gradient, alone, { m: zeros(), v: zeros() }, adam);
  const kept = device.kernels.rowGradientSquaredNorm(gradient, weights, doubles([0]));
  const refused = { code: "ERR_INVALID_ARGUMENT", message: expect.stringContaining("another gradient") };
  const step = (of: RowGradient, to: Tensor): void =>
    device.kernels.stepRows(of, to, { m: zeros(), v: zeros() }, adam, { kept });
  expect(() => step({ ...gradient }, weights)).toThrow(expect.objectContaining(refused));
  expect(() => step(gradient, alone)).toThrow(expect.objectContaining(refused));
  step(gradient, weights);
  expect(await weights.read()).toEqual(await alone.read());
  kept.dispose();
  kept.dispose();
  expect(() => step(gradient, weights)).toThrow(expect.objectContaining({ code: "ERR_DISPOSED" }));
});

test("stepRows: clipped Adam, then rows of unit norm", async () => {
  const moments = { m: matrix(decoder), v: matrix(encoder.map((row) => row.map((value) => value * value))) };
  const clip = { squaredNorm: doubles([400]), maxNorm: 5 };
  const weights = matrix(decoder);
  device.kernels.stepRows(rowGradientOf(encodePositive(), true), weights, moments, adam, { clip, unitNorm: true });
  const factor = 5 / (20 + 1e-6);
  const stepped = rowGradientReference(true).map((row, f) =>
    row.map((g, c) => adamReference(decoder[f]![c]!, g * factor, decoder[f]![c]!, encoder[f]![c]! ** 2)),
  );
  const unit = stepped.map((row) => {
    const norm = Math.hypot(...row.map(([weight]) => weight));
    return row.map(([weight]) => weight / norm);
  });
  await expectTensor(weights, [4, 2], unit.flat());
  await expectTensor(
    moments.m,
    [4, 2],
    stepped.flat().map(([, m]) => m),
  );
  await expectTensor(
    moments.v,
    [4, 2],
    stepped.flat().map(([, , v]) => v),
  );
});

test("stepVector: Adam", async () => {
  const weights = vector([1, 2]);
  const moments = { m: vector([0.5, 0]), v: vector([0.25, 1]) };
  device.kernels.stepVector(vector([3, -4]), weights, moments, adam);
  const expected = [adamReference(1, 3, 0.5, 0.25), adamReference(2, -4, 0, 1)];
  await expectTensor(
    weights,
    [2],
    expected.map(([weight]) => weight),
  );
  await expectTensor(
    moments.m,
    [2],
    expected.map(([, m]) => m),
  );
  await expectTensor(
    moments.v,
    [2],
    expected.map(([, , v]) => v),
  );
});

test("the norm penalty acts on each block of columns by itself", async () => {
  const weights: Rows = [
    [3, 4, 2],
    [0, 0, -5],
  ];
  const gradient = { terms: [], rowCoefficients: vector([10, 1]), rowScale: 2, blockWidths: [2, 1] };
  await expectTensor(device.kernels.rowGradient(gradient, matrix(weights)), [2, 3], [12, 16, 20, 0, 0, -2]);
  expect(() => device.kernels.rowGradient({ ...gradient, blockWidths: [2] }, matrix(weights))).toThrow(
    /rowGradient: blockWidths \[2\] must add up to width = 3; found 2/,
  );
});

test.each([Number.NaN, Infinity])("no step is taken where the squared norm of the gradient is %s", async (norm) => {
  for (const maxNorm of [1, Infinity]) {
    const clip = { squaredNorm: doubles([norm]), maxNorm };
    const [weights, m, v] = [matrix(decoder), device.zeros([4, 2]), device.zeros([4, 2])];
    const refused = { code: "ERR_NON_FINITE", message: expect.stringMatching(/the norm of the gradient is (NaN|inf)/) };
    device.kernels.stepRows(rowGradientOf(encodePositive(), false), weights, { m, v }, adam, { clip });
    await expect(device.synchronize()).rejects.toThrow(expect.objectContaining(refused));
    device.kernels.stepVector(matrix(decoder), weights, { m, v }, adam, { clip });
    await expect(device.synchronize()).rejects.toThrow(expect.objectContaining(refused));
    await expectTensor(weights, [4, 2], decoder.flat());
    await expectTensor(v, [4, 2], new Array(8).fill(0));
  }
});

test("an infinite maxNorm checks the norm and does not clip", async () => {
  const step = (options: { clip?: { squaredNorm: Tensor; maxNorm: number } }): Tensor => {
    const weights = vector([1, 2]);
    device.kernels.stepVector(vector([3, -4]), weights, { m: vector([0, 0]), v: vector([0, 0]) }, adam, options);
    return weights;
  };
  const clipped = step({ clip: { squaredNorm: doubles([1e12]), maxNorm: Infinity } });
  expect(await clipped.read()).toEqual(await step({}).read());
});

test("tokens since a feature fired, and the features that have not for long", async () => {
  const since = doubles([5, 5, 5, 5]);
  const codes = device.kernels.encode(matrix([[1, 0]]), matrix(encoder), vector([0, 0, 0, 0]), { select: "positive" });
  device.kernels.updateTokensSinceFired(codes, 10, since);
  await expectTensor(since, [4], [0, 15, 0, 15]);
  expect([...(await device.kernels.featuresNotFiredFor(since, 15).read())]).toEqual([1, 3]);
});

test("elementwise kernels, with and without out", async () => {
  const { kernels } = device;
  const a = matrix([
    [1, 2],
    [3, 4],
  ]);
  const b = matrix([
    [10, 20],
    [30, 40],
  ]);
  await expectTensor(kernels.add(a, b), [2, 2], [11, 22, 33, 44]);
  await expectTensor(kernels.add(a, b, { scale: -0.5 }), [2, 2], [-4, -8, -12, -16]);
  await expectTensor(kernels.scale(a, 3), [2, 2], [3, 6, 9, 12]);
  await expectTensor(kernels.addRow(a, vector([100, 200]), { scale: 2 }), [2, 2], [201, 402, 203, 404]);
  await expectTensor(kernels.scaleRows(a, vector([2, -1])), [2, 2], [2, 4, -3, -4]);
  expect(kernels.scaleRows(a, vector([2, 2]), { out: a })).toBe(a);
  expect(kernels.addRow(a, vector([1, 1]), { out: a })).toBe(a);
  expect(kernels.add(a, b, { out: b })).toBe(b);
  await expectTensor(b, [2, 2], [13, 25, 37, 49]);
  kernels.fill(b, -1.5);
  await expectTensor(b, [2, 2], [-1.5, -1.5, -1.5, -1.5]);
});

test("kernels of rows and columns", async () => {
  const { kernels } = device;
  const a = matrix([
    [3, 4],
    [0, 0],
    [6, 8],
  ]);
  await expectTensor(kernels.rowNorms(a), [3], [5, 0, 10]);
  await expectTensor(kernels.normaliseRows(a, 2), [3, 2], [1.2, 1.6, 0, 0, 1.2, 1.6]);
  await expectTensor(kernels.columnSums(a, { scale: 0.5 }), [2], [4.5, 6]);
  await expectTensor(kernels.weightedRowSum(vector([1, 5, -1]), a, { scale: 2 }), [2], [-6, -8]);
  await expectTensor(kernels.gatherRows(a, integers([2, 2, 0])), [3, 2], [6, 8, 6, 8, 3, 4]);
  await expectTensor(kernels.sliceRows(a, 1, 2), [2, 2], [0, 0, 6, 8]);
  await expectTensor(kernels.transpose(a), [2, 3], [3, 0, 6, 4, 0, 8]);
  const out = matrix([
    [1, 1],
    [2, 2],
    [3, 3],
    [4, 4],
  ]);
  kernels.copyRows(a, out, 1);
  await expectTensor(out, [4, 2], [1, 1, 3, 4, 0, 0, 6, 8]);
});

test("leading dimensions are rows, and results keep them where they have the same rows", async () => {
  const { kernels } = device;
  const a = matrix([
    [3, 4],
    [0, 0],
    [6, 8],
    [5, 12],
  ]).reshape([2, 2, 2]);
  await expectTensor(kernels.normaliseRows(a), [2, 2, 2], [0.6, 0.8, 0, 0, 0.6, 0.8, 5 / 13, 12 / 13]);
  await expectTensor(kernels.linear(a, matrix([[1, 1]])), [2, 2, 1], [7, 0, 14, 17]);
  const ids = device.tensor(new Int32Array([1, 0]), [1, 2]);
  await expectTensor(
    kernels.gatherRows(
      matrix([
        [1, 2],
        [3, 4],
      ]),
      ids,
    ),
    [1, 2, 2],
    [3, 4, 1, 2],
  );
});

test("sums in double precision are added to what is there", async () => {
  const { kernels } = device;
  const a = matrix([
    [1, 2],
    [3, 4],
  ]);
  const b = matrix([
    [2, 1],
    [0, -1],
  ]);
  const total = doubles([0.5]);
  kernels.dot(a, b, total);
  kernels.sum(a, total);
  kernels.sumOfRowCosines(a, b, total);
  await expectTensor(total, [1], [0.5 + 0 + 10 + 4 / 5 - 4 / 5]);
  const sums = doubles([1, 1]);
  kernels.accumulateColumnSums(a, sums);
  await expectTensor(sums, [2], [5, 7]);
});

test("half-precision floats become f32 exactly", async () => {
  const f16 = device.tensor(new Uint16Array([0x3c00, 0xc000, 0x0001, 0x7c00]), [4], "f16");
  expect([...(await device.kernels.toFloat32(f16).readFloat32())]).toEqual([1, -2, 2 ** -24, Number.POSITIVE_INFINITY]);
  const bf16 = device.tensor(new Uint16Array([0x3f80, 0xc000, 0x0001, 0xff80]), [4], "bf16");
  expect([...(await device.kernels.toFloat32(bf16).readFloat32())]).toEqual([
    1,
    -2,
    2 ** -133,
    Number.NEGATIVE_INFINITY,
  ]);
});

test("f64 becomes f32 rounded to nearest", async () => {
  const f64 = doubles([1 / 3, 1 + 2 ** -25, -1e300, 0]);
  const rounded = [Math.fround(1 / 3), 1, Number.NEGATIVE_INFINITY, 0];
  expect([...(await device.kernels.toFloat32(f64).readFloat32())]).toEqual(rounded);
});

const geluNew = (z: number): number => 0.5 * z * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (z + 0.044715 * z ** 3)));

test("linear: bias, activation, residual", async () => {
  const { kernels } = device;
  const weights: Rows = [
    [1, -1],
    [2, 0.5],
    [0, 1],
  ];
  const product = x.map((row) => weights.map((w, o) => dot(row, w) + [0.1, 0.2, 0.3][o]!));
  const residual: Rows = [
    [1, 2, 3],
    [4, 5, 6],
    [7, 8, 9],
  ];
  const bias = vector([0.1, 0.2, 0.3]);
  await expectTensor(kernels.linear(matrix(x), matrix(weights), { bias }), [3, 3], product.flat());
  await expectTensor(
    kernels.linear(matrix(x), matrix(weights), { bias, activation: "gelu_new", residual: matrix(residual) }),
    [3, 3],
    product.flatMap((row, r) => row.map((z, c) => geluNew(z) + residual[r]![c]!)),
  );
});

test("activations", async () => {
  const { kernels } = device;
  const values = [-2, -0.5, 0, 0.5, 3];
  await expectTensor(kernels.activation(vector(values), "relu"), [5], [0, 0, 0, 0.5, 3]);
  await expectTensor(kernels.activation(vector(values), "gelu_new"), [5], values.map(geluNew));
  await expectTensor(kernels.activation(vector(values), "gelu"), [5], [-0.0455, -0.15427, 0, 0.34573, 2.99595]);
  await expectTensor(kernels.activation(vector(values), "none"), [5], values);
});

test("layerNorm and its parts", async () => {
  const { kernels } = device;
  const row = [1, 2, 6];
  const scale = Math.sqrt((4 + 1 + 9) / 3 + 0.5);
  const normalized = row.map((value) => (value - 3) / scale);
  const parts = kernels.layerNormParts(matrix([row]), { epsilon: 0.5 });
  await expectTensor(parts.normalized, [1, 3], normalized);
  await expectTensor(parts.scale, [1], [scale]);
  await expectTensor(
    kernels.layerNorm(matrix([row]), { weight: vector([1, 2, 3]), bias: vector([10, 20, 30]), epsilon: 0.5 }),
    [1, 3],
    normalized.map((value, i) => value * (i + 1) + 10 * (i + 1)),
  );
  await expectTensor(kernels.layerNorm(matrix([row]), { epsilon: 0.5 }), [1, 3], normalized);
});

test("causal attention, whole and in parts, over a cache with room to spare", async () => {
  const { kernels } = device;
  const [batch, heads, dHead, capacity, keyPositions, queryPositions] = [2, 2, 2, 4, 3, 2];
  const wave = (size: number, phase: number): Float32Array =>
    Float32Array.from({ length: size }, (_, i) => Math.sin(i * 0.7 + phase));
  const q = wave(batch * queryPositions * heads * dHead, 0);
  const k = wave(batch * capacity * heads * dHead, 1);
  const v = wave(batch * capacity * heads * dHead, 2);
  const at = (array: Float32Array, positions: number, b: number, p: number, h: number, d: number): number =>
    array[((b * positions + p) * heads + h) * dHead + d]!;
  const scores: number[] = [];
  const pattern: number[] = [];
  const mixed = new Array<number>(q.length).fill(0);
  for (let b = 0; b < batch; b++) {
    for (let h = 0; h < heads; h++) {
      for (let i = 0; i < queryPositions; i++) {
        const row: number[] = [];
        for (let j = 0; j < keyPositions; j++) {
          let score = 0;
          for (let d = 0; d < dHead; d++) score += at(q, queryPositions, b, i, h, d) * at(k, capacity, b, j, h, d);
          row.push(j <= keyPositions - queryPositions + i ? score * 0.3 : Number.NEGATIVE_INFINITY);
        }
        const total = row.reduce((sum, score) => sum + Math.exp(score), 0);
        const weights = row.map((score) => Math.exp(score) / total);
        scores.push(...row);
        pattern.push(...weights);
        for (let d = 0; d < dHead; d++) {
          mixed[((b * queryPositions + i) * heads + h) * dHead + d] = dot(
            weights,
            weights.map((_, j) => at(v, capacity, b, j, h, d)),
          );
        }
      }
    }
  }
  const operands = {
    queries: device.tensor(q, [batch, queryPositions, heads, dHead]),
    keys: device.tensor(k, [batch, capacity, heads, dHead]),
    values: device.tensor(v, [batch, capacity, heads, dHead]),
    keyPositions,
    scale: 0.3,
  };
  const scoresShape = [batch, heads, queryPositions, keyPositions];
  const scoresTensor = kernels.attentionScores(operands);
  await expectTensor(scoresTensor, scoresShape, scores);
  const patternTensor = kernels.softmaxRows(scoresTensor);
  await expectTensor(patternTensor, scoresShape, pattern);
  await expectTensor(kernels.attentionMix(patternTensor, operands), operands.queries.shape, mixed);
  await expectTensor(kernels.attention(operands), operands.queries.shape, mixed);

  const { scale: _, ...unscaled } = operands;
  const byDefault = await kernels.attention(unscaled).read();
  expect(await kernels.attention({ ...operands, scale: 1 / Math.sqrt(dHead) }).read()).toEqual(byDefault);
});

test("appendPositions fills a cache", async () => {
  const cache = device.empty([2, 3, 1]);
  device.kernels.appendPositions(device.tensor(new Float32Array([1, 2, 3, 4]), [2, 2, 1]), cache, 0);
  device.kernels.appendPositions(device.tensor(new Float32Array([5, 6]), [2, 1, 1]), cache, 2);
  await expectTensor(cache, [2, 3, 1], [1, 2, 5, 3, 4, 6]);
});

test("log-softmax, cross-entropy, KL divergence", async () => {
  const { kernels } = device;
  const p: Rows = [
    [1, 2, 3],
    [0, 0, 0],
  ];
  const q: Rows = [
    [3, 1, 0],
    [0, 1, 2],
  ];
  const logSoftmax = (row: readonly number[]): number[] => {
    const total = Math.log(row.reduce((sum, value) => sum + Math.exp(value), 0));
    return row.map((value) => value - total);
  };
  await expectTensor(kernels.logSoftmax(matrix(p)), [2, 3], p.flatMap(logSoftmax));
  await expectTensor(kernels.crossEntropy(matrix(p), integers([2, -1])), [2], [-logSoftmax(p[0]!)[2]!, 0]);
  const divergence = p.map((row, r) => {
    const [a, b] = [logSoftmax(row), logSoftmax(q[r]!)];
    return a.reduce((sum, value, i) => sum + Math.exp(value) * (value - b[i]!), 0);
  });
  await expectTensor(kernels.klDivergence(matrix(p), matrix(q)), [2], divergence);
});

test("sampling: greedy at temperature 0, only among what topK and topP leave, the same for the same seed", async () => {
  const { kernels } = device;
  const logits = matrix([
    [0, 5, 5, 1],
    [9, 0, 0, 0],
  ]);
  const sample = async (options: object) => [
    ...(await kernels.sample(logits, { seed: 1, offset: 0, ...options }).read()),
  ];
  expect(await sample({ temperature: 0 })).toEqual([1, 0]);
  expect(await sample({ topK: 1 })).toEqual([1, 0]);
  for (let offset = 0; offset < 40; offset += 2) {
    const [first] = await sample({ topK: 2, temperature: 3, offset });
    expect([1, 2]).toContain(first);
    const [nucleus] = await sample({ topP: 0.9, offset });
    expect([1, 2]).toContain(nucleus);
    expect(await sample({ offset, temperature: 2 })).toEqual(await sample({ offset, temperature: 2 }));
  }
});
