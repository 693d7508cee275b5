import { expect, test } from "vitest";
import { Device } from "../../lib/engine/device.js";
import type { Tensor } from "../../lib/engine/tensor.js";
import { collectGarbage } from "../reachableBytes.js";

const MEBIBYTE = 2 ** 20;
const elements = (mebibytes: number) => (mebibytes * MEBIBYTE) / 4;

const code = (name: string) => expect.objectContaining({ code: name });

test("memory is accounted exactly: tensors that live, the peak, what is kept for reuse", async () => {
  await using device = await Device.open("cpu", { threads: 1 });
  expect(device.memory()).toEqual({ currentBytes: 0, peakBytes: 0, cachedBytes: 0, limitBytes: 0 });

  const a = device.tensor(new Float32Array(elements(2)), [elements(2)]);
  expect(device.memory()).toMatchObject({ currentBytes: 2 * MEBIBYTE, peakBytes: 2 * MEBIBYTE, cachedBytes: 0 });
  const b = device.kernels.add(a, a);
  await device.synchronize();
  expect(device.memory()).toMatchObject({ currentBytes: 4 * MEBIBYTE, peakBytes: 4 * MEBIBYTE });

  a.dispose();
  expect(device.memory()).toMatchObject({ currentBytes: 2 * MEBIBYTE, cachedBytes: 2 * MEBIBYTE });
  device.resetPeakMemory();
  expect(device.memory().peakBytes).toBe(2 * MEBIBYTE);
  device.releaseCachedMemory();
  expect(device.memory().cachedBytes).toBe(0);
  b.dispose();
  expect(device.memory()).toMatchObject({ currentBytes: 0, cachedBytes: 2 * MEBIBYTE });
});

test("a tensor takes no memory before it is written, and none after its last handle and last use", async () => {
  await using device = await Device.open("cpu", { threads: 1 });
  const empty = device.empty([elements(64)]);
  expect(device.memory().currentBytes).toBe(0);
  const a = device.tensor(new Float32Array(elements(1)), [elements(1)]);
  const reshaped = a.reshape([2, elements(1) / 2]);
  a.dispose();
  expect(device.memory().currentBytes).toBe(MEBIBYTE);
  reshaped.dispose();
  expect(device.memory().currentBytes).toBe(0);
  empty.dispose();
});

test("many steps enqueued ahead do not need the memory of many steps", async () => {
  await using device = await Device.open("cpu", { threads: 1 });
  let x = device.tensor(new Float32Array(elements(1)).fill(1), [elements(1)]);
  for (let step = 0; step < 500; step++) {
    const next = device.kernels.scale(x, 1);
    x.dispose();
    x = next;
  }
  await device.synchronize();
  const { currentBytes, peakBytes, cachedBytes } = device.memory();
  expect(currentBytes).toBe(MEBIBYTE);
  expect(peakBytes).toBeLessThanOrEqual(3 * MEBIBYTE);
  expect(currentBytes + cachedBytes).toBeLessThanOrEqual(peakBytes);
  x.dispose();
});

test("the limit is kept: at the call for data, at the next read for results, and the cache makes room first", async () => {
  await using device = await Device.open("cpu", { threads: 1, memoryLimitBytes: 4 * MEBIBYTE });
  expect(device.memory().limitBytes).toBe(4 * MEBIBYTE);
  const tooMuch = () => device.tensor(new Float32Array(elements(5)), [elements(5)]);
  expect(tooMuch).toThrow(code("ERR_OUT_OF_MEMORY"));
  expect(tooMuch).toThrow(/cannot allocate 5242880 bytes: 0 bytes are in use of the limit of 4194304 bytes/);

  const a = device.tensor(new Float32Array(elements(3)), [elements(3)]);
  const b = device.kernels.add(a, a);
  await expect(b.read()).rejects.toThrow(code("ERR_OUT_OF_MEMORY"));
  await expect(b.read()).rejects.toThrow(code("ERR_NOT_COMPUTED"));
  a.dispose();
  expect(device.memory().cachedBytes).toBe(3 * MEBIBYTE);
  const c = device.tensor(new Float32Array(elements(2)), [elements(2)]);
  const { currentBytes, cachedBytes } = device.memory();
  expect(currentBytes + cachedBytes).toBeLessThanOrEqual(4 * MEBIBYTE);
  c.dispose();
});

test("a thousand dropped tensors, codes and sets are collected", async () => {
  await using device = await Device.open("cpu", { threads: 1 });
  const make = (): void => {
    const x = device.tensor(new Float32Array(elements(1 / 16)), [64, elements(1 / 16) / 64]);
    const { kernels } = device;
    const encoder = device.tensor(new Float32Array(4 * x.shape[1]!), [4, x.shape[1]!]);
    const codes = kernels.encode(x, encoder, device.zeros([4]), { select: "topk", k: 2 });
    kernels.decodeGradient(codes, encoder, x);
    kernels.featuresNotFiredFor(device.zeros([4], "f64"), 0);
  };
  for (let i = 0; i < 200; i++) make();
  await device.synchronize();
  expect(device.memory().currentBytes).toBeGreaterThan(0);
  for (let i = 0; i < 50 && device.memory().currentBytes > 0; i++) {
    collectGarbage();
    await new Promise((resolve) => setImmediate(resolve));
  }
  expect(device.memory().currentBytes).toBe(0);
});

test("dropped tensors put pressure on the garbage collector, which otherwise would not see them", async () => {
  await using device = await Device.open("cpu", { threads: 1 });
  const kept: Tensor[] = [];
  for (let i = 0; i < 400; i++) {
    const tensor = device.zeros([elements(8)]);
    if (i % 100 === 0) kept.push(tensor);
    await device.synchronize();
  }
  expect(device.memory().peakBytes).toBeLessThan(400 * 8 * MEBIBYTE);
  for (const tensor of kept) tensor.dispose();
});
