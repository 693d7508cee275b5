/** The algebra of entries through the facade: that arguments arrive, that derived codes share, that places are kept apart. */
import { afterAll, beforeAll, expect, test } from "vitest";
import type { Codes, EntryValues } from "../../lib/engine/codes.js";
import { Device } from "../../lib/engine/device.js";
import type { EntryFunction } from "../../lib/engine/entryKernels.js";
import type { Selection } from "../../lib/engine/selection.js";
import type { Tensor } from "../../lib/engine/tensor.js";
import { reachableBytes } from "../reachableBytes.js";
import { testDevice } from "../testDevice.js";

let device: Device;
beforeAll(async () => {
  device = await Device.open(testDevice, { threads: 2 });
});
afterAll(() => device.close());

const code = (name: string) => expect.objectContaining({ code: name });
const vector = (values: readonly number[], on = device): Tensor => on.tensor(new Float32Array(values), [values.length]);

/** Codes whose pre-activations are the rows of x themselves: the encoder is the identity. */
function codesOf(x: readonly (readonly number[])[], selection: Selection, on = device): Codes {
  const width = x[0]!.length;
  const identity = new Float32Array(width * width);
  for (let i = 0; i < width; i++) identity[i * width + i] = 1;
  return on.kernels.encode(
    on.tensor(new Float32Array(x.flat()), [x.length, width]),
    on.tensor(identity, [width, width]),
    on.zeros([width]),
    selection,
  );
}

// Two rows of three features, two entries each: (0, 0, 3), (0, 2, 2); (1, 0, -5 -> 0), (1, 1, -2 -> 0).
const topTwo = (): Codes =>
  codesOf(
    [
      [3, -1, 2],
      [-5, -2, -9],
    ],
    { select: "topk", k: 2 },
  );
const preActivations = [3, 2, -5, -2];
const values = [3, 2, 0, 0];
const features = [0, 2, 0, 1];

async function expectEntries(entries: EntryValues, expected: readonly number[]): Promise<void> {
  const found = await entries.read();
  expect(found).toHaveLength(expected.length);
  for (const [i, value] of expected.entries()) expect(found[i], `entry ${i}`).toBeCloseTo(value, 5);
}

test("entries gives values or pre-activations of codes, without a copy", async () => {
  await using own = await Device.open(testDevice, { threads: 1 });
  const codes = codesOf([[3, -1, 2]], { select: "topk", k: 3 }, own);
  const before = await reachableBytes(own);
  const [z, f] = [own.kernels.entries(codes, "preActivations"), own.kernels.entries(codes, "values")];
  await expectEntries(z, [3, -1, 2]);
  await expectEntries(f, [3, 0, 2]);
  expect(await reachableBytes(own)).toBe(before);
  for (const held of [codes, z, f]) held.dispose(); // held until here
  const positive = codesOf([[3, -1, 2]], { select: "positive" }, own);
  await expectEntries(own.kernels.entries(positive, "values"), [3, 2]);
});

test("entryProduct multiplies what is given and adds the summand", async () => {
  const { kernels } = device;
  const codes = topTwo();
  const z = kernels.entries(codes, "preActivations");
  const f = kernels.entries(codes, "values");
  const perFeature = [10, 20, 30];
  await expectEntries(
    kernels.entryProduct(codes, { a: z, b: f, perFeature: vector(perFeature), scale: 0.5, plus: z }),
    preActivations.map((value, e) => 0.5 * perFeature[features[e]!]! * value * values[e]! + value),
  );
  await expectEntries(kernels.entryProduct(codes, { a: z, scale: -1 }), [-3, -2, 5, 2]);
  await expectEntries(kernels.entryProduct(codes, { perFeature: vector(perFeature) }), [10, 30, 10, 20]);
  await expectEntries(kernels.entryProduct(codes, { b: f, plus: z }), [6, 4, -5, -2]);
  await expectEntries(kernels.entryProduct(codes, {}), [1, 1, 1, 1]);
});

test("entryFunction applies each function to each value", async () => {
  const { kernels } = device;
  const z = kernels.entries(topTwo(), "preActivations");
  const functions: [EntryFunction, (x: number) => number][] = [
    ["tanh", Math.tanh],
    ["exp", Math.exp],
    ["sigmoid", (x) => 1 / (1 + Math.exp(-x))],
    ["heaviside", (x) => (x > 0 ? 1 : 0)],
  ];
  for (const [name, exact] of functions) await expectEntries(kernels.entryFunction(z, name), preActivations.map(exact));
  await expectEntries(kernels.entryFunction(z, "power", { exponent: 0.5 }), [Math.sqrt(3), Math.sqrt(2), 0, 0]);
});

test("entryFunction refuses unknown functions, a power without exponent, and an exponent without power", () => {
  const z = device.kernels.entries(topTwo(), "preActivations");
  const refused = (call: () => unknown, message: RegExp) => {
    expect(call).toThrow(code("ERR_INVALID_ARGUMENT"));
    expect(call).toThrow(message);
  };
  refused(() => device.kernels.entryFunction(z, "cosh" as "tanh"), /must be one of tanh, exp,.* found cosh/);
  refused(() => device.kernels.entryFunction(z, "power"), /power needs an exponent/);
  refused(() => device.kernels.entryFunction(z, "power", { exponent: Number.NaN }), /exponent must be a finite number/);
  refused(() => device.kernels.entryFunction(z, "tanh", { exponent: 2 }), /tanh takes no exponent, found 2/);
  refused(() => device.kernels.entries(topTwo(), "features" as "values"), /"values" or "preActivations"/);
});

test("withValues replaces numbers and keeps places; values are max(pre-activation, 0) unless given", async () => {
  const { kernels } = device;
  const codes = topTwo();
  const z = kernels.entries(codes, "preActivations");
  const negated = kernels.entryProduct(codes, { a: z, scale: -1 });
  const original = await codes.read();
  expect(await kernels.withValues(codes, { values: z }).read()).toEqual({
    ...original,
    values: new Float32Array(preActivations),
  });
  expect(await kernels.withValues(codes, { preActivations: negated }).read()).toEqual({
    ...original,
    preActivations: new Float32Array([-3, -2, 5, 2]),
    values: new Float32Array([0, 0, 5, 2]),
  });
  expect(await kernels.withValues(kernels.withValues(codes, { values: negated }), {}).read()).toEqual(original);
  expect(await kernels.withValues(codes, { preActivations: negated, values: z }).read()).toEqual({
    ...original,
    preActivations: new Float32Array([-3, -2, 5, 2]),
    values: new Float32Array(preActivations),
  });
});

test("codes made by withValues share memory: only numbers that did not exist take some", async () => {
  await using own = await Device.open(testDevice, { threads: 1 });
  const codes = codesOf([Array.from({ length: 300 }, (_, i) => i - 150)], { select: "all" }, own);
  const z = own.kernels.entries(codes, "preActivations");
  const before = await reachableBytes(own);
  const shared = own.kernels.withValues(codes, { values: z });
  expect(await reachableBytes(own)).toBe(before);
  const rectified = own.kernels.withValues(codes, {});
  expect((await reachableBytes(own)) - before).toBeLessThan(2 * 300 * 4);
  codes.dispose();
  z.dispose();
  expect((await shared.read()).values[0]).toBe(-150);
  expect((await rectified.read()).values[0]).toBe(0);
});

test("entry values serve all codes with the same places", async () => {
  const { kernels } = device;
  const codes = topTwo();
  const derived = kernels.withValues(codes, { values: kernels.entries(codes, "preActivations") });
  const squares = kernels.entryProduct(derived, {
    a: kernels.entries(derived, "values"),
    b: kernels.entries(codes, "preActivations"),
  });
  await expectEntries(squares, [9, 4, 25, 4]);
  const sums = kernels.featureSums(codes, { coefficients: squares });
  expect([...(await sums.read())]).toEqual([34, 4, 4]);
  const dense = device.tensor(new Float32Array([1, 1]), [2, 1]);
  const gradient = kernels.rowGradient(
    { terms: [{ codes, coefficients: squares, dense }] },
    device.tensor(new Float32Array(3), [3, 1]),
  );
  expect([...(await gradient.read())]).toEqual([34, 4, 4]);
});

test("codes that hold all features of all rows have the same places, of whatever they were encoded", async () => {
  const { kernels } = device;
  const gate = codesOf([[1, -1, 2]], { select: "all" });
  const magnitude = codesOf([[5, 6, -7]], { select: "all" });
  const open = kernels.entryFunction(kernels.entries(gate, "preActivations"), "heaviside");
  await expectEntries(kernels.entryProduct(magnitude, { a: kernels.entries(magnitude, "values"), b: open }), [5, 0, 0]);
  const wider = codesOf([[5, 6, -7, 8]], { select: "all" });
  expect(() => kernels.entryProduct(wider, { a: open })).toThrow(code("ERR_SHAPE_MISMATCH"));
});

test("entry values at other places, or of another device, are refused with both codes named", async () => {
  const { kernels } = device;
  const codes = topTwo();
  const other = kernels.entries(topTwo(), "values");
  expect(() => kernels.entryProduct(codes, { a: other })).toThrow(code("ERR_SHAPE_MISMATCH"));
  expect(() => kernels.entryProduct(codes, { a: other })).toThrow(
    /entryProduct: a belongs to codes \[2, 3\] with their entries at other places than the codes \[2, 3\]/,
  );
  expect(() => kernels.withValues(codes, { values: other })).toThrow(/withValues: values belongs to/);
  const range = kernels.featureRange(codes, 0, 3);
  expect(() => kernels.entryProduct(range, { a: kernels.entries(codes, "values") })).toThrow(
    code("ERR_SHAPE_MISMATCH"),
  );
  expect(() => kernels.entryProduct(codes, { perFeature: vector([1, 2]) })).toThrow(/perFeature must be \[dSae\]/);

  await using elsewhere = await Device.open(testDevice, { threads: 1 });
  const foreign = elsewhere.kernels.entries(codesOf([[1]], { select: "all" }, elsewhere), "values");
  expect(() => kernels.entryProduct(codesOf([[1]], { select: "all" }), { a: foreign })).toThrow(
    code("ERR_DEVICE_MISMATCH"),
  );
});

test("featureRange keeps the features of a range, and its codes decode like any", async () => {
  const { kernels } = device;
  const codes = topTwo();
  const range = kernels.featureRange(codes, 0, 2);
  expect([range.rows, range.dSae]).toEqual([2, 3]);
  expect(await range.read()).toEqual({
    rowOffsets: new Float64Array([0, 1, 3]),
    features: new Uint32Array([0, 0, 1]),
    preActivations: new Float32Array([3, -5, -2]),
    values: new Float32Array([3, 0, 0]),
  });
  const decoder = device.tensor(new Float32Array([1, 10, 100]), [3, 1]);
  expect([...(await kernels.decode(range, decoder).read())]).toEqual([3, 0]);
  expect([...(await kernels.decode(kernels.featureRange(codes, 2, 3), decoder).read())]).toEqual([200, 0]);
  expect((await kernels.featureRange(codes, 1, 1).read()).rowOffsets).toEqual(new Float64Array(3));
  expect(() => kernels.featureRange(codes, 2, 1)).toThrow(code("ERR_INVALID_ARGUMENT"));
  expect(() => kernels.featureRange(codes, 0, 4)).toThrow(/featureRange: to must be <= dSae = 3, found 4/);
});

test("windowSums adds up what lies strictly within half a bandwidth of the threshold", async () => {
  const { kernels } = device;
  const codes = codesOf(
    [
      [1.5, 0.75, 2],
      [1.25, 1, -1],
      [0.5, 1.25, 0],
    ],
    { select: "all" },
  );
  const thresholds = vector([1, 1, 1]);
  expect([...(await kernels.windowSums(codes, thresholds, 1).read())]).toEqual([1, 3, 0]);
  const sums = kernels.windowSums(codes, thresholds, 1, {
    coefficients: kernels.entries(codes, "preActivations"),
    scale: -2,
  });
  expect([...(await sums.read())]).toEqual([-2.5, -6, -0]);
  expect([...(await kernels.windowSums(codes, thresholds, 0).read())]).toEqual([0, 0, 0]);
  expect(() => kernels.windowSums(codes, thresholds, -1)).toThrow(/bandwidth must be a finite number >= 0/);
  expect(() => kernels.windowSums(codes, vector([1, 1]), 1)).toThrow(/thresholds must be \[dSae\]/);
});

test("an entry is active where its value is not 0, of either sign", async () => {
  const { kernels } = device;
  const codes = topTwo();
  const signed = kernels.withValues(codes, { values: kernels.entries(codes, "preActivations") });
  expect([...(await kernels.featureCounts(codes).read())]).toEqual([1, 0, 1]);
  expect([...(await kernels.featureCounts(signed).read())]).toEqual([2, 1, 1]);
  const decoder = device.tensor(new Float32Array([1, 10, 100]), [3, 1]);
  const dOutput = device.tensor(new Float32Array([1, 2]), [2, 1]);
  await expectEntries(kernels.decodeGradient(codes, decoder, dOutput), [1, 100, 0, 0]);
  await expectEntries(kernels.decodeGradient(signed, decoder, dOutput), [1, 100, 2, 20]);
  await expectEntries(kernels.decodeGradient(codes, decoder, dOutput, { every: true }), [1, 100, 2, 20]);
  const since = device.tensor(new Float64Array([5, 5, 5]), [3]);
  kernels.updateTokensSinceFired(codesOf([[1, -2, 0]], { select: "topk", k: 2, by: "magnitude" }), 7, since);
  expect([...(await since.read())]).toEqual([0, 0, 12]);
});

test("entries of codes that were never computed are not computed either", async () => {
  const { kernels } = device;
  const codes = codesOf([[1, Number.NaN]], { select: "positive" });
  const squares = kernels.entryProduct(codes, { a: kernels.entries(codes, "values") });
  await expect(squares.read()).rejects.toThrow(code("ERR_NON_FINITE"));
  await expect(squares.read()).rejects.toThrow(code("ERR_NOT_COMPUTED"));
  await expect(kernels.withValues(codes, {}).read()).rejects.toThrow(code("ERR_NOT_COMPUTED"));
});
