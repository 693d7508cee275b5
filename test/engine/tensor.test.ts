import { afterAll, beforeAll, expect, test } from "vitest";
import { Device } from "../../lib/engine/device.js";
import { MonosemError } from "../../lib/errors.js";
import { testDevice } from "../testDevice.js";

let device: Device;
beforeAll(async () => {
  device = await Device.open(testDevice, { threads: 2 });
});
afterAll(() => device.close());

test("what does not fit into the process's memory is not read, and nothing ends", async () => {
  using tensor = device.empty([2 ** 40]);
  await expect((async () => await tensor.read())()).rejects.toMatchObject({
    code: "ERR_OUT_OF_MEMORY",
    message: expect.stringContaining("cannot allocate 4398046511104 bytes of the process's memory"),
  });
});

test("a tensor reads back what it was made from, for every dtype", async () => {
  const arrays = {
    f32: new Float32Array([1.5, -0, Number.NaN, Number.POSITIVE_INFINITY, 3, 4]),
    f16: new Uint16Array([0x3c00, 0, 1, 2, 3, 0xffff]),
    bf16: new Uint16Array([0x3f80, 0, 1, 2, 3, 0xffff]),
    i32: new Int32Array([-1, 0, 1, 2, 3, 2 ** 31 - 1]),
    u32: new Uint32Array([0, 1, 2, 3, 4, 2 ** 32 - 1]),
    f64: new Float64Array([0.1, 1e300, Number.NaN, -0, 5, 6]),
  } as const;
  for (const [dtype, array] of Object.entries(arrays)) {
    using tensor = device.tensor(array, [2, 3], dtype as keyof typeof arrays);
    expect(tensor.dtype).toBe(dtype);
    expect(tensor.shape).toEqual([2, 3]);
    expect(tensor.size).toBe(6);
    const content = await tensor.read();
    expect(content.constructor).toBe(array.constructor);
    expect(content).toEqual(array);
  }
});

test("the content is copied at the call: changing the array later changes nothing", async () => {
  const array = new Float32Array([1, 2, 3]);
  using tensor = device.tensor(array, [3]);
  array.fill(9);
  expect(await tensor.readFloat32()).toEqual(new Float32Array([1, 2, 3]));
});

test("the dtype follows from the array's class", () => {
  for (const [array, dtype] of [
    [new Float32Array(1), "f32"],
    [new Float64Array(1), "f64"],
    [new Int32Array(1), "i32"],
    [new Uint32Array(1), "u32"],
  ] as const) {
    using tensor = device.tensor(array, [1]);
    expect(tensor.dtype).toBe(dtype);
  }
});

test("tensors of no elements and of no dimensions are tensors", async () => {
  using empty = device.tensor(new Float32Array(0), [0, 5]);
  expect(await empty.read()).toEqual(new Float32Array(0));
  using scalar = device.tensor(new Float32Array([7]), []);
  expect(scalar.size).toBe(1);
  expect(await scalar.readScalar()).toBe(7);
});

test("zeros are zeros, and readScalar reads the one element", async () => {
  using zeros = device.zeros([3], "f64");
  expect(await zeros.read()).toEqual(new Float64Array(3));
  using one = device.tensor(new Int32Array([-4]), [1, 1]);
  expect(await one.readScalar()).toBe(-4);
  await expect(zeros.readScalar()).rejects.toMatchObject({ code: "ERR_SHAPE_MISMATCH" });
  await expect(zeros.readFloat32()).rejects.toMatchObject({ code: "ERR_DTYPE_MISMATCH" });
});

test("write replaces the content in the order of queued work, and copies at the call", async () => {
  using a = device.tensor(new Float32Array([1, 2]), [2]);
  using before = device.kernels.scale(a, 10);
  const array = new Float32Array([3, 4]);
  a.write(array);
  array.fill(0);
  using after = device.kernels.scale(a, 10);
  expect(await before.readFloat32()).toEqual(new Float32Array([10, 20]));
  expect(await after.readFloat32()).toEqual(new Float32Array([30, 40]));
});

test("a reshape shares memory both ways and outlives the tensor it was made from", async () => {
  const flat = device.tensor(new Float32Array([1, 2, 3, 4]), [4]);
  using matrix = flat.reshape([2, 2]);
  flat.write(new Float32Array([5, 6, 7, 8]));
  device.kernels.scale(matrix, 2, { out: matrix });
  expect(await flat.readFloat32()).toEqual(new Float32Array([10, 12, 14, 16]));
  flat.dispose();
  expect(await matrix.readFloat32()).toEqual(new Float32Array([10, 12, 14, 16]));
  expect(() => matrix.reshape([3])).toThrow(expect.objectContaining({ code: "ERR_SHAPE_MISMATCH" }));
});

test("arrays that do not fit are refused at the call, naming both lengths", () => {
  const short = () => device.tensor(new Float32Array(5), [2, 3]);
  expect(short).toThrow(MonosemError);
  expect(short).toThrow(expect.objectContaining({ code: "ERR_SHAPE_MISMATCH" }));
  expect(short).toThrow(/needs 6 elements, the array has 5/);

  const array = new Float32Array(6);
  structuredClone(array.buffer, { transfer: [array.buffer] });
  expect(() => device.tensor(array, [2, 3])).toThrow(/transferred/);

  using tensor = device.tensor(new Float32Array(2), [2]);
  expect(() => tensor.write(new Float32Array(3))).toThrow(expect.objectContaining({ code: "ERR_SHAPE_MISMATCH" }));
  expect(() => tensor.write(new Int32Array(2))).toThrow(expect.objectContaining({ code: "ERR_DTYPE_MISMATCH" }));
});

test("arrays of another class, unknown dtypes and impossible shapes are refused at the call", () => {
  const refused = (make: () => unknown, code: string) => expect(make).toThrow(expect.objectContaining({ code }));
  refused(() => device.tensor(new Uint16Array(1), [1]), "ERR_DTYPE_MISMATCH");
  refused(() => device.tensor(new Float32Array(1), [1], "f16"), "ERR_DTYPE_MISMATCH");
  refused(() => device.tensor([1, 2] as unknown as Float32Array, [2]), "ERR_DTYPE_MISMATCH");
  refused(() => device.tensor(undefined as unknown as Float32Array, [2]), "ERR_DTYPE_MISMATCH");
  refused(() => device.empty([1], "float32" as "f32"), "ERR_DTYPE_MISMATCH");
  for (const shape of [[-1], [1.5], [Number.NaN], [2 ** 40, 2 ** 40], Array(9).fill(1), "2", [undefined]]) {
    refused(() => device.zeros(shape as number[]), "ERR_INVALID_ARGUMENT");
  }
});

test("a view of shared memory is copied like any other array", async () => {
  const shared = new Float32Array(new SharedArrayBuffer(8));
  shared.set([1, 2]);
  using tensor = device.tensor(shared, [2]);
  shared.fill(0);
  expect(await tensor.readFloat32()).toEqual(new Float32Array([1, 2]));
});
