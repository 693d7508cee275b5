import { afterAll, beforeAll, expect, test } from "vitest";
import { Device } from "../../lib/engine/device.js";
import { RandomGenerator } from "../../lib/engine/random.js";
import type { Selection } from "../../lib/engine/selection.js";
import type { Tensor } from "../../lib/engine/tensor.js";
import { testDevice } from "../testDevice.js";

let device: Device;
let other: Device;
beforeAll(async () => {
  device = await Device.open(testDevice, { threads: 1 });
  other = await Device.open(testDevice, { threads: 1 });
});
afterAll(async () => {
  await device.close();
  await other.close();
});

const code = (name: string) => expect.objectContaining({ code: name });
const zeros = (...shape: number[]) => device.zeros(shape);
const encode = (x: Tensor, selection: Selection = { select: "positive" }) =>
  device.kernels.encode(x, zeros(4, 3), zeros(4), selection);

test("a disposed handle is refused at the call, naming the kernel and the operand", async () => {
  const a = zeros(2);
  a.dispose();
  a.dispose();
  expect(a.disposed).toBe(true);
  expect(() => device.kernels.scale(a, 2)).toThrow(code("ERR_DISPOSED"));
  expect(() => device.kernels.scale(a, 2)).toThrow(/scale: a .*\[2\].* was disposed/);
  expect(() => a.write(new Float32Array(2))).toThrow(code("ERR_DISPOSED"));
  expect(() => a.reshape([1, 2])).toThrow(code("ERR_DISPOSED"));
  await expect(a.read()).rejects.toThrow(code("ERR_DISPOSED"));

  const codes = encode(zeros(2, 3));
  const values = device.kernels.decodeGradient(codes, zeros(4, 3), zeros(2, 3));
  const set = device.kernels.featuresNotFiredFor(device.zeros([4], "f64"), 0);
  for (const handle of [codes, values, set]) {
    handle.dispose();
    handle.dispose();
    expect(handle.disposed).toBe(true);
    await expect(handle.read()).rejects.toThrow(code("ERR_DISPOSED"));
  }
  expect(() => device.kernels.densify(codes)).toThrow(code("ERR_DISPOSED"));
  const live = encode(zeros(2, 3));
  expect(() => device.kernels.featureSums(live, { coefficients: values })).toThrow(code("ERR_DISPOSED"));
  expect(() => encode(zeros(2, 3), { select: "positive", features: set })).toThrow(code("ERR_DISPOSED"));
});

test("using disposes at the end of the block", () => {
  let kept: Tensor;
  {
    using tensor = zeros(1);
    kept = tensor;
  }
  expect(kept.disposed).toBe(true);
});

test("a handle of another device is refused at the call", () => {
  const foreign = other.zeros([2]);
  expect(() => device.kernels.add(zeros(2), foreign)).toThrow(code("ERR_DEVICE_MISMATCH"));
  expect(() => device.kernels.add(zeros(2), zeros(2), { out: foreign })).toThrow(/out lives on another device/);
  const codes = other.kernels.encode(other.zeros([1, 3]), other.zeros([4, 3]), other.zeros([4]), {
    select: "positive",
  });
  expect(() => device.kernels.densify(codes)).toThrow(code("ERR_DEVICE_MISMATCH"));
});

test("shapes that do not fit are refused with what was expected, where that came from, and what was found", () => {
  const mismatch = (call: () => unknown, message: RegExp) => {
    expect(call).toThrow(code("ERR_SHAPE_MISMATCH"));
    expect(call).toThrow(message);
  };
  mismatch(
    () => device.kernels.linear(zeros(4, 768), zeros(512, 256)),
    /linear: weights must be \[out, in\] with .*in = 768 as in x \[4, 768\]; found \[512, 256\]/,
  );
  mismatch(
    () => device.kernels.encode(zeros(2, 3), zeros(4, 3), zeros(5), { select: "positive" }),
    /bias must be \[dSae\]/,
  );
  mismatch(() => device.kernels.decode(encode(zeros(2, 3)), zeros(4, 3), { target: zeros(3, 3) }), /target must be/);
  mismatch(() => device.kernels.add(zeros(2, 3), zeros(3, 2)), /b must be \[2, 3\]; found \[3, 2\]/);
  mismatch(() => device.kernels.transpose(zeros(2)), /a must be \[rows, columns\]/);
  mismatch(() => device.kernels.dot(zeros(2), zeros(2), device.zeros([2], "f64")), /sum must be \[1\]/);
  mismatch(() => device.kernels.copyRows(zeros(2, 3), zeros(3, 3), 2), /do not fit into out/);
  mismatch(() => device.kernels.sliceRows(zeros(2, 3), 1, 2), /a has 2/);
  mismatch(() => device.kernels.appendPositions(zeros(1, 2, 4), zeros(1, 3, 4), 2), /cache, which has 3/);
  const heads = { queries: zeros(1, 3, 2, 4), keys: zeros(1, 2, 2, 4), values: zeros(1, 2, 2, 4) };
  mismatch(() => device.kernels.attention(heads), /queryPositions <= keyPositions/);
});

test("other dtypes are refused, naming both", () => {
  expect(() => device.kernels.scale(device.zeros([2], "f64"), 1)).toThrow(code("ERR_DTYPE_MISMATCH"));
  expect(() => device.kernels.sum(zeros(2), zeros(1))).toThrow(/sum must be f64, found f32 \[1\]/);
  expect(() => device.kernels.gatherRows(zeros(2, 2), zeros(2))).toThrow(/rows must be i32/);
  expect(() => device.kernels.toFloat32(zeros(2))).toThrow(/a must be f16, bf16 or f64/);
});

test("NaN and numbers out of range are refused at the call", () => {
  const refused = (call: () => unknown) => expect(call).toThrow(code("ERR_INVALID_ARGUMENT"));
  const { kernels } = device;
  refused(() => kernels.scale(zeros(2), Number.NaN));
  refused(() => kernels.fill(zeros(2), Number.POSITIVE_INFINITY));
  refused(() => kernels.add(zeros(2), zeros(2), { scale: Number.NaN }));
  for (const k of [0, -1, 1.5, Number.NaN]) refused(() => encode(zeros(2, 3), { select: "topk", k }));
  refused(() => encode(zeros(2, 3), { select: "some" } as unknown as Selection));
  refused(() => kernels.activation(zeros(2), "swish" as "gelu"));
  refused(() => kernels.layerNorm(zeros(2, 2), { epsilon: Number.NaN }));
  refused(() => kernels.sample(zeros(1, 2), { seed: 0, offset: 0, topP: 0 }));
  refused(() => kernels.sample(zeros(1, 2), { seed: -1, offset: 0 }));
  const adam = { learningRate: 1e-3, beta1: 0.9, beta2: 0.999, epsilon: 1e-8, step: 1 };
  const step = (change: Partial<typeof adam>) =>
    kernels.stepVector(zeros(2), zeros(2), { m: zeros(2), v: zeros(2) }, { ...adam, ...change });
  refused(() => step({ learningRate: Number.NaN }));
  refused(() => step({ beta1: 1 }));
  refused(() => step({ beta2: -0.1 }));
  refused(() => step({ epsilon: -1 }));
  refused(() => step({ step: 0 }));
  const clip = { squaredNorm: device.zeros([1], "f64"), maxNorm: 0 };
  refused(() => kernels.stepVector(zeros(2), zeros(2), { m: zeros(2), v: zeros(2) }, adam, { clip }));
  refused(() => new RandomGenerator(Number.NaN));
  refused(() => new RandomGenerator(1, -1));
});

test("what is not a handle is refused", () => {
  const refused = (call: () => unknown) => expect(call).toThrow(code("ERR_INVALID_ARGUMENT"));
  for (const value of [undefined, null, 3, {}, [1, 2], new Float32Array(2)]) {
    refused(() => device.kernels.scale(value as unknown as Tensor, 1));
    refused(() => device.kernels.add(zeros(2), value as unknown as Tensor));
  }
  refused(() => device.kernels.densify(zeros(2, 2) as never));
});

test("memory that a kernel could not read and write at once must not be shared", async () => {
  const refused = (call: () => unknown) => expect(call).toThrow(/must not share memory/);
  const a = zeros(2, 2);
  const { kernels } = device;
  refused(() => kernels.copyRows(a, a, 0));
  refused(() => kernels.copyRows(a, a.reshape([2, 2]), 0));
  refused(() => kernels.addRow(a.reshape([1, 4]), a.reshape([4]), { out: a.reshape([1, 4]) }));
  const adam = { learningRate: 1e-3, beta1: 0.9, beta2: 0.999, epsilon: 1e-8, step: 1 };
  refused(() => kernels.stepVector(zeros(2, 2), a, { m: a, v: zeros(2, 2) }, adam));
  refused(() => kernels.stepVector(a, a, { m: zeros(2, 2), v: zeros(2, 2) }, adam));

  const b = device.tensor(new Float32Array([1, 2]), [2]);
  kernels.add(b, b, { out: b });
  expect(await b.readFloat32()).toEqual(new Float32Array([2, 4]));
});

test("entry values are used with the codes they belong to only", () => {
  const codes = encode(zeros(2, 3));
  const twin = encode(zeros(2, 3));
  const values = device.kernels.decodeGradient(twin, zeros(4, 3), zeros(2, 3));
  expect(() => device.kernels.featureSums(codes, { coefficients: values })).toThrow(code("ERR_SHAPE_MISMATCH"));
});

test("data that only the kernel can check is refused at the next read", async () => {
  using table = zeros(3, 2);
  using rows = device.tensor(new Int32Array([0, 3]), [2]);
  await expect(device.kernels.gatherRows(table, rows).read()).rejects.toThrow(/^gatherRows\(/);
  using targets = device.tensor(new Int32Array([7]), [1]);
  await expect(device.kernels.crossEntropy(zeros(1, 5), targets).read()).rejects.toThrow(/^crossEntropy\(/);
});
