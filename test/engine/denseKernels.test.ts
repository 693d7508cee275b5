/** Kernels of dense vectors and matrices through the facade. */
import { afterAll, beforeAll, expect, test } from "vitest";
import { Device } from "../../lib/engine/device.js";
import type { Tensor } from "../../lib/engine/tensor.js";
import { testDevice } from "../testDevice.js";

let device: Device;
beforeAll(async () => {
  device = await Device.open(testDevice, { threads: 2 });
});
afterAll(() => device.close());

const code = (name: string) => expect.objectContaining({ code: name });
const vector = (values: readonly number[]): Tensor => device.tensor(new Float32Array(values), [values.length]);
const matrix = (rows: readonly (readonly number[])[]): Tensor =>
  device.tensor(new Float32Array(rows.flat()), [rows.length, rows[0]!.length]);
const integers = (values: readonly number[]): Tensor => device.tensor(new Int32Array(values), [values.length]);

async function expectTensor(tensor: Tensor, shape: readonly number[], values: readonly number[]): Promise<void> {
  expect(tensor.shape).toEqual(shape);
  const content = await tensor.read();
  expect(content).toHaveLength(values.length);
  for (const [i, value] of values.entries()) expect(content[i], `element ${i}`).toBeCloseTo(value, 5);
}

const a = [
  [1, 2, 3],
  [-4, 5, -6],
];

test("multiply and divide, element by element, also in place", async () => {
  const { kernels } = device;
  const b = [
    [2, 4, 8],
    [1, -1, 0.5],
  ];
  await expectTensor(kernels.multiply(matrix(a), matrix(b)), [2, 3], [2, 8, 24, -4, -5, -3]);
  const out = matrix(a);
  expect(kernels.divide(out, matrix(b), { out })).toBe(out);
  await expectTensor(out, [2, 3], [0.5, 0.5, 0.375, -4, -5, -12]);
  const zeros = kernels.divide(vector([1, -1, 0]), vector([0, 0, 0]));
  expect([...(await zeros.read())]).toEqual([Infinity, -Infinity, Number.NaN]);
  expect(() => kernels.multiply(matrix(a), vector([1, 2, 3]))).toThrow(/multiply: b must be \[2, 3\]; found \[3\]/);
});

test("scaleColumns and affineRows", async () => {
  const { kernels } = device;
  await expectTensor(kernels.scaleColumns(matrix(a), vector([1, 10, 100])), [2, 3], [1, 20, 300, -4, 50, -600]);
  const out = matrix(a);
  kernels.affineRows(out, vector([2, -1]), vector([1, 0.5]), { out });
  await expectTensor(out, [2, 3], [3, 5, 7, 4.5, -4.5, 6.5]);
  expect(() => kernels.scaleColumns(matrix(a), vector([1, 2]))).toThrow(code("ERR_SHAPE_MISMATCH"));
  expect(() => kernels.affineRows(matrix(a), vector([1, 2]), vector([1]))).toThrow(/shifts must be \[rows\]/);
});

test("concatenateColumns puts matrices of the same rows side by side", async () => {
  const { kernels } = device;
  const all = kernels.concatenateColumns([matrix(a), matrix([[7], [8]]), matrix(a).reshape([2, 1, 3])]);
  await expectTensor(all, [2, 7], [1, 2, 3, 7, 1, 2, 3, -4, 5, -6, 8, -4, 5, -6]);
  await expectTensor(kernels.concatenateColumns([matrix(a)]), [2, 3], a.flat());
  expect(() => kernels.concatenateColumns([matrix(a), matrix([[1]])])).toThrow(code("ERR_SHAPE_MISMATCH"));
});

test("sliceColumns takes columns out, copyColumns puts them in; leading dimensions stay", async () => {
  const { kernels } = device;
  await expectTensor(kernels.sliceColumns(matrix(a), 1, 2), [2, 2], [2, 3, 5, -6]);
  await expectTensor(kernels.sliceColumns(matrix(a).reshape([2, 1, 3]), 0, 1), [2, 1, 1], [1, -4]);
  const out = device.empty([2, 5]);
  kernels.copyColumns(matrix(a), out, 1);
  await expectTensor(out, [2, 5], [0, 1, 2, 3, 0, 0, -4, 5, -6, 0]);
  kernels.copyColumns(matrix([[7], [8]]), out, 4);
  await expectTensor(out, [2, 5], [0, 1, 2, 3, 7, 0, -4, 5, -6, 8]);
  expect(() => kernels.sliceColumns(matrix(a), 2, 2)).toThrow(/2 columns from column 2 on: a has 3/);
  expect(() => kernels.copyColumns(matrix(a), out, 3)).toThrow(/do not fit into out, which has 5/);
  expect(() => kernels.copyColumns(matrix([[1]]), out, 0)).toThrow(code("ERR_SHAPE_MISMATCH"));
});

test("scatterRows puts rows in their places, the last one where two meet; out of range nothing is written", async () => {
  const { kernels } = device;
  const out = device.zeros([3, 2]);
  const rows = matrix([
    [1, 2],
    [3, 4],
    [5, 6],
  ]);
  kernels.scatterRows(rows, integers([2, 0, 2]), out);
  await expectTensor(out, [3, 2], [3, 4, 0, 0, 5, 6]);
  kernels.scatterRows(rows, integers([0, 1, 3]), out);
  await expect(out.read()).rejects.toThrow(
    /^scatterRows\(.*Row 3 \(at position 2\) does not exist: the matrix has 3 rows/,
  );
  await expectTensor(out, [3, 2], [3, 4, 0, 0, 5, 6]);
  expect(() => kernels.scatterRows(rows, integers([0, 1]), out)).toThrow(code("ERR_SHAPE_MISMATCH"));
  expect(() => kernels.scatterRows(out, integers([0, 1, 2]), out)).toThrow(/must not share memory/);
});

test("standardiseRows, and affineRows that takes it back", async () => {
  const { kernels } = device;
  const x = matrix([
    [1, 2, 6],
    [4, 4, 4],
  ]);
  const { normalized, mean, standardDeviation } = kernels.standardiseRows(x, { epsilon: 1e-5 });
  await expectTensor(mean, [2], [3, 4]);
  await expectTensor(standardDeviation, [2], [Math.sqrt(7), 0]);
  await expectTensor(normalized, [2, 3], [...[-2, -1, 3].map((value) => value / (Math.sqrt(7) + 1e-5)), 0, 0, 0]);
  const { normalized: exact } = kernels.standardiseRows(kernels.sliceRows(x, 0, 1), { epsilon: 0 });
  const back = kernels.affineRows(exact, vector([Math.sqrt(7)]), vector([3]));
  await expectTensor(back, [1, 3], [1, 2, 6]);
  const single = kernels.standardiseRows(matrix([[5]]), { epsilon: 0.5 });
  await expectTensor(single.normalized, [1, 1], [0]);
  await expectTensor(single.standardDeviation, [1], [0]);
  expect(() => kernels.standardiseRows(x, { epsilon: -1 })).toThrow(code("ERR_INVALID_ARGUMENT"));
});

test("rowNorms of blocks of columns adds up the blocks' norms", async () => {
  const { kernels } = device;
  const rows = matrix([
    [3, 4, 12, 0, 5],
    [0, 0, 1, 2, 2],
  ]);
  await expectTensor(kernels.rowNorms(rows), [2], [Math.sqrt(194), 3]);
  await expectTensor(kernels.rowNorms(rows, { blockWidths: [2, 1, 2] }), [2], [22, 1 + Math.sqrt(8)]);
  await expectTensor(kernels.rowNorms(rows, { blockWidths: [5] }), [2], [Math.sqrt(194), 3]);
  expect(() => kernels.rowNorms(rows, { blockWidths: [2, 2] })).toThrow(
    /blockWidths \[2, 2\] must add up to columns = 5; found 4/,
  );
  expect(() => kernels.rowNorms(rows, { blockWidths: [5, 0] })).toThrow(/blockWidths\[1\] must be an integer >= 1/);
});

test("exp, sigmoid, tanh and heaviside are activations too", async () => {
  const { kernels } = device;
  const x = [-200, -1, 0, 0.5, 3];
  await expectTensor(kernels.activation(vector(x), "exp"), [5], x.map(Math.exp));
  await expectTensor(
    kernels.activation(vector(x), "sigmoid"),
    [5],
    x.map((value) => 1 / (1 + Math.exp(-value))),
  );
  await expectTensor(kernels.activation(vector(x), "tanh"), [5], x.map(Math.tanh));
  await expectTensor(kernels.activation(vector(x), "heaviside"), [5], [0, 0, 0, 1, 1]);
  expect(await kernels.activation(vector([200]), "exp").readScalar()).toBe(Infinity);
});
