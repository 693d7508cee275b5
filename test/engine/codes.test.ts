import { afterAll, beforeAll, expect, test } from "vitest";
import { Device } from "../../lib/engine/device.js";
import { testDevice } from "../testDevice.js";

let device: Device;
beforeAll(async () => {
  device = await Device.open(testDevice, { threads: 2 });
});
afterAll(() => device.close());

/** Codes whose pre-activations are the rows of x themselves: the encoder is the identity. */
function identityCodes(x: readonly (readonly number[])[], selection: Parameters<Device["kernels"]["encode"]>[3]) {
  const width = x[0]!.length;
  using input = device.tensor(new Float32Array(x.flat()), [x.length, width]);
  const identity = new Float32Array(width * width);
  for (let i = 0; i < width; i++) identity[i * width + i] = 1;
  using encoder = device.tensor(identity, [width, width]);
  using bias = device.zeros([width]);
  return device.kernels.encode(input, encoder, bias, selection);
}

test("codes hold the selected entries by row, features ascending, with pre-activations and values", async () => {
  using codes = identityCodes(
    [
      [3, -1, 2],
      [-5, -2, -9],
    ],
    { select: "topk", k: 2 },
  );
  expect([codes.rows, codes.dSae]).toEqual([2, 3]);
  expect(await codes.read()).toEqual({
    rowOffsets: new Float64Array([0, 2, 4]),
    features: new Uint32Array([0, 2, 0, 1]),
    preActivations: new Float32Array([3, 2, -5, -2]),
    values: new Float32Array([3, 2, 0, 0]),
  });
});

test("a batch without entries, and one without rows, read as empty", async () => {
  using none = identityCodes([[-1, -2]], { select: "positive" });
  expect(await none.read()).toEqual({
    rowOffsets: new Float64Array([0, 0]),
    features: new Uint32Array(0),
    preActivations: new Float32Array(0),
    values: new Float32Array(0),
  });
  using codes = device.kernels.encode(device.zeros([0, 2]), device.zeros([3, 2]), device.zeros([3]), {
    select: "topk",
    k: 1,
  });
  expect((await codes.read()).rowOffsets).toEqual(new Float64Array([0]));
});

test("a feature set restricts the selection, and reads as ascending features", async () => {
  using since = device.tensor(new Float64Array([5, 0, 7]), [3]);
  using dead = device.kernels.featuresNotFiredFor(since, 5);
  expect(await dead.read()).toEqual(new Uint32Array([0, 2]));
  using codes = identityCodes([[1, 9, 2]], { select: "topk", k: 3, features: dead });
  expect((await codes.read()).features).toEqual(new Uint32Array([0, 2]));
});

test("entry values stand in the order of the entries, and outlive the handle of their codes", async () => {
  const codes = identityCodes([[3, -1, 2]], { select: "positive" });
  using decoder = device.tensor(new Float32Array([1, 10, 100]), [3, 1]);
  using dOutput = device.tensor(new Float32Array([2]), [1, 1]);
  using gradient = device.kernels.decodeGradient(codes, decoder, dOutput);
  codes.dispose();
  expect(await gradient.read()).toEqual(new Float32Array([2, 200]));
});

test("codes can be read again, and while other work waits", async () => {
  using codes = identityCodes([[1, 2]], { select: "positive" });
  const reads = [codes.read(), codes.read(), codes.read()];
  const [first, second, third] = await Promise.all(reads);
  expect(second).toEqual(first);
  expect(third).toEqual(first);
});

test("a read that was asked for before dispose is answered", async () => {
  const codes = identityCodes([[1, 2]], { select: "positive" });
  const read = codes.read();
  codes.dispose();
  expect((await read).values).toEqual(new Float32Array([1, 2]));
});
