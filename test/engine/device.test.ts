import { execFileSync } from "node:child_process";
import { expect, test, vi } from "vitest";
import { Device, type DeviceName } from "../../lib/engine/device.js";
import { rawDevice } from "./rawAddon.js";

const code = (name: string) => expect.objectContaining({ code: name });

/** Without the CUDA backend, which this machine may have. */
const withoutCuda = async <Result>(work: () => Promise<Result>): Promise<Result> => {
  vi.stubEnv("MONOSEM_CUDA_LIBRARY", "/missing/libmonosem_cuda.so");
  try {
    return await work();
  } finally {
    vi.unstubAllEnvs();
  }
};

test("auto opens the CPU and says why", async () => {
  await using device = await withoutCuda(() => Device.open());
  expect(device.name).toBe("cpu");
  expect(device.reason).toMatch(/^MONOSEM_CUDA_LIBRARY names a library .*\/missing\/libmonosem_cuda\.so/);
  expect(device.description).toMatch(/^(avx512-amx|avx512|avx2|neon|baseline), \d+ threads?/);
});

test("a device asked for by name is opened or refused", async () => {
  await using device = await Device.open("cpu", { threads: 3 });
  expect(device.reason).toBe("asked for");
  expect(device.description).toContain("3 threads");
  const open = () => withoutCuda(() => Device.open("cuda:0"));
  await expect(open()).rejects.toThrow(code("ERR_UNSUPPORTED"));
  await expect(open()).rejects.toThrow(
    /^Device\.open: cuda:0 cannot be opened: MONOSEM_CUDA_LIBRARY .*Use "cpu" or "auto"/,
  );
  await expect(Device.open("gpu" as DeviceName)).rejects.toThrow(code("ERR_INVALID_ARGUMENT"));
});

test("options out of range are refused", async () => {
  for (const threads of [0, -1, 1.5, Number.NaN, 1e9]) {
    await expect(Device.open("cpu", { threads })).rejects.toThrow(code("ERR_INVALID_ARGUMENT"));
  }
  for (const memoryLimitBytes of [0, -1, 0.5, Number.NaN, Number.POSITIVE_INFINITY]) {
    await expect(Device.open("cpu", { memoryLimitBytes })).rejects.toThrow(code("ERR_INVALID_ARGUMENT"));
  }
});

test("MONOSEM_ISA chooses the instruction set, and an unknown one is refused naming those there are", () => {
  const open = (isa: string) =>
    execFileSync(
      process.execPath,
      ["--input-type=module", "-e", `${rawDevice}; console.log(native.describeDevice(device));`],
      { env: { ...process.env, MONOSEM_ISA: isa }, encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] },
    );
  expect(open("baseline")).toContain("baseline");
  expect(() => open("sse9")).toThrow(/sse9[\s\S]*baseline[\s\S]*ERR_UNSUPPORTED/);
});

test("closing waits for queued work; afterwards the device refuses work and its tensors can be disposed", async () => {
  const device = await Device.open("cpu", { threads: 1 });
  const tensor = device.tensor(new Float32Array([1, 2]), [2]);
  const doubled = device.kernels.add(tensor, tensor);
  const read = doubled.readFloat32();
  const closed = device.close();
  expect(device.closed).toBe(true);
  expect(device.close()).toBe(closed);
  await closed;
  expect(await read).toEqual(new Float32Array([2, 4]));

  expect(() => device.zeros([1])).toThrow(code("ERR_DISPOSED"));
  expect(() => device.kernels.add(tensor, tensor)).toThrow(code("ERR_DISPOSED"));
  expect(() => tensor.write(new Float32Array(2))).toThrow(code("ERR_DISPOSED"));
  await expect(tensor.read()).rejects.toThrow(code("ERR_DISPOSED"));
  await expect(device.synchronize()).rejects.toThrow(code("ERR_DISPOSED"));
  tensor.dispose();
  doubled.dispose();
});

test("closing waits for reads of codes, which have two parts", async () => {
  for (let i = 0; i < 50; i++) {
    const device = await Device.open("cpu", { threads: 1 });
    const encoder = device.tensor(new Float32Array([1, 0, 0, 1]), [2, 2]);
    const codes = device.kernels.encode(device.tensor(new Float32Array([5, -1]), [1, 2]), encoder, device.zeros([2]), {
      select: "positive",
    });
    const read = codes.read();
    await device.close();
    expect((await read).preActivations).toEqual(new Float32Array([5]));
  }
});

test("closing rejects with the error of work that nobody waited for", async () => {
  const device = await Device.open("cpu", { threads: 1 });
  device.kernels.scale(device.empty([2]), 2);
  await expect(device.close()).rejects.toThrow(code("ERR_NOT_COMPUTED"));
  expect(device.closed).toBe(true);
});

test("devices work side by side", async () => {
  await using a = await Device.open("cpu", { threads: 1 });
  await using b = await Device.open("cpu", { threads: 2 });
  const reads = [a, b, a, b].map((device, i) => {
    const tensor = device.tensor(new Float32Array([i]), [1]);
    return device.kernels.scale(tensor, 10).readScalar();
  });
  expect(await Promise.all(reads)).toEqual([0, 10, 20, 30]);
});
