import { afterAll, beforeAll, expect, test } from "vitest";
import { Device } from "../../lib/engine/device.js";
import { MonosemError } from "../../lib/errors.js";

let device: Device;
beforeAll(async () => {
  device = await Device.open("cpu", { threads: 2 });
});
afterAll(() => device.close());

const code = (name: string) => expect.objectContaining({ code: name });

/** Queues an encode that must fail: x holds NaN. */
function failingEncode() {
  const x = device.tensor(new Float32Array([1, Number.NaN, 3, 4, 5, 6]), [2, 3]);
  const encoder = device.tensor(new Float32Array(12).fill(1), [4, 3]);
  const bias = device.zeros([4]);
  return device.kernels.encode(x, encoder, bias, { select: "topk", k: 2 });
}

test("an error of queued work rejects the next read with the kernel's name, its operands and their shapes", async () => {
  using fine = device.tensor(new Float32Array([1]), [1]);
  failingEncode();
  const error: unknown = await fine.read().catch((error: unknown) => error);
  expect(error).toBeInstanceOf(MonosemError);
  expect(error).toMatchObject({ code: "ERR_NON_FINITE" });
  expect((error as Error).message).toMatch(
    /^encode\(x \[2, 3\], encoder \[4, 3\], bias \[4\], codes \[2, 4\], topk 2\): /,
  );
});

test("the error is received once, and the device goes on", async () => {
  using fine = device.tensor(new Float32Array([1]), [1]);
  failingEncode();
  await expect(device.synchronize()).rejects.toThrow(code("ERR_NON_FINITE"));
  await device.synchronize();
  expect(await device.kernels.scale(fine, 3).readScalar()).toBe(3);
});

test("what is made from a failed result is not computed, what existed keeps its content", async () => {
  using counts = device.tensor(new Float32Array([1, 2, 3, 4]), [4]);
  const codes = failingEncode();
  const sums = device.kernels.featureSums(codes);
  device.kernels.add(counts, sums, { out: counts });
  await expect(device.synchronize()).rejects.toThrow(code("ERR_NON_FINITE"));

  expect(await counts.readFloat32()).toEqual(new Float32Array([1, 2, 3, 4]));
  await expect(sums.read()).rejects.toThrow(code("ERR_NOT_COMPUTED"));
  await expect(codes.read()).rejects.toThrow(code("ERR_NOT_COMPUTED"));
  const later = device.kernels.add(counts, sums);
  await expect(later.read()).rejects.toThrow(/^add\(a \[4\], b \[4\], out \[4\]\): b was never computed/);
});

test("work that reads nothing of a failed kernel goes on", async () => {
  using weights = device.tensor(new Float32Array([1, 2]), [2]);
  failingEncode();
  const scaled = device.kernels.scale(weights, 100, { out: weights });
  const sum = device.kernels.add(scaled, weights);
  await expect(device.synchronize()).rejects.toThrow(code("ERR_NON_FINITE"));
  expect(await sum.readFloat32()).toEqual(new Float32Array([200, 400]));
});

test("a step is not taken where a part of its gradient failed", async () => {
  using weights = device.tensor(new Float32Array([1, 2, 3, 4]), [4, 1]);
  const moments = { m: device.zeros([4, 1]), v: device.zeros([4, 1]) };
  const gradient = { terms: [{ codes: failingEncode(), dense: device.zeros([2, 1]) }] };
  const adam = { learningRate: 1, beta1: 0.9, beta2: 0.999, epsilon: 1e-8, step: 1 };
  device.kernels.stepRows(gradient, weights, moments, adam);
  await expect(device.synchronize()).rejects.toThrow(code("ERR_NON_FINITE"));
  expect(await weights.readFloat32()).toEqual(new Float32Array([1, 2, 3, 4]));
  expect(await moments.v.readFloat32()).toEqual(new Float32Array(4));
});

test("a tensor that a kernel failed to write is zeros again for one that writes a part of it", async () => {
  using table = device.tensor(new Float32Array([1, 2]), [2, 1]);
  using rows = device.tensor(new Int32Array([0, 5]), [2]);
  const gathered = device.kernels.gatherRows(table, rows);
  await expect(gathered.read()).rejects.toThrow(code("ERR_INVALID_ARGUMENT"));
  device.kernels.copyRows(device.tensor(new Float32Array([9]), [1, 1]), gathered, 1);
  expect(await gathered.readFloat32()).toEqual(new Float32Array([0, 9]));
});

test("an empty tensor that nothing wrote is not read as if it held numbers", async () => {
  using empty = device.empty([3]);
  await expect(empty.read()).rejects.toThrow(code("ERR_NOT_COMPUTED"));
  device.kernels.fill(empty, 2);
  expect(await empty.readFloat32()).toEqual(new Float32Array([2, 2, 2]));
});

test("a kernel that writes a part of a new tensor leaves zeros in the rest", async () => {
  using rows = device.tensor(new Float32Array([1, 2]), [1, 2]);
  using out = device.empty([3, 2]);
  device.kernels.copyRows(rows, out, 1);
  expect(await out.readFloat32()).toEqual(new Float32Array([0, 0, 1, 2, 0, 0]));
});

test("the first error is the one that is kept", async () => {
  failingEncode();
  device.kernels.scale(device.empty([1]), 2);
  await expect(device.synchronize()).rejects.toThrow(code("ERR_NON_FINITE"));
  await device.synchronize();
});

test("reads resolve in the order in which they were asked for", async () => {
  using tensor = device.tensor(new Float32Array([1]), [1]);
  const order: number[] = [];
  const reads: Promise<void>[] = [];
  for (let i = 0; i < 20; i++) {
    device.kernels.scale(tensor, 2, { out: tensor });
    reads.push(
      tensor.readScalar().then((value) => {
        order.push(value);
      }),
    );
  }
  await Promise.all(reads);
  expect(order).toEqual(Array.from({ length: 20 }, (_, i) => 2 ** (i + 1)));
});

test("queued work completes though its operands were disposed right after the call", async () => {
  const a = device.tensor(new Float32Array([1, 2]), [2]);
  const b = device.kernels.scale(a, 2);
  a.dispose();
  const c = device.kernels.add(b, b);
  b.dispose();
  const read = c.readFloat32();
  c.dispose();
  expect(await read).toEqual(new Float32Array([4, 8]));
});
