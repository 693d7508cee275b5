import { execFileSync } from "node:child_process";
import { expect, test } from "vitest";
import { Device, type Precision } from "../../lib/engine/device.js";
import { rawDevice } from "../engine/rawAddon.js";
import { testDevice } from "../testDevice.js";

const code = (name: string) => expect.objectContaining({ code: name });

test("auto takes the GPU and says what it is", async () => {
  await using device = await Device.open("auto");
  expect(device.name).toBe("cuda:0");
  expect(device.reason).toBe("a GPU was found");
  expect(device.description).toMatch(/, float32$/);
  await using coarse = await Device.open(testDevice, { precision: "tf32" });
  expect(coarse.reason).toBe("asked for");
  expect(coarse.description).toMatch(/, tf32$/);
});

test("a GPU that is not there, and options out of range, are refused", async () => {
  await expect(Device.open("cuda:99")).rejects.toThrow(code("ERR_UNSUPPORTED"));
  await expect(Device.open("cuda:99")).rejects.toThrow(/cuda:99 cannot be opened: .*this machine has \d+ CUDA device/);
  await expect(Device.open("cuda:0", { precision: "half" as Precision })).rejects.toThrow(code("ERR_INVALID_ARGUMENT"));
});

test("a file that is not the CUDA backend is refused, naming it", () => {
  const open = (library: string) =>
    execFileSync(
      process.execPath,
      ["--input-type=module", "-e", `${rawDevice}; native.openCudaDevice(0, "float32", "", 0);`],
      { env: { ...process.env, MONOSEM_CUDA_LIBRARY: library }, encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] },
    );
  expect(() => open("/missing/libmonosem_cuda.so")).toThrow(/\/missing\/libmonosem_cuda\.so[\s\S]*ERR_UNSUPPORTED/);
  expect(() => open("libc.so.6")).toThrow(/libc\.so\.6 is not monosem's CUDA library[\s\S]*ERR_UNSUPPORTED/);
});

test("a library without code for the GPU is refused with what to do, and auto takes the CPU", () => {
  const open = (name: string) =>
    execFileSync(
      process.execPath,
      [
        ...["--input-type=module", "-e"],
        `import { Device } from "monosem"; const { name, reason } = await Device.open("${name}"); console.log(name, reason);`,
      ],
      { env: { ...process.env, CUDA_HOST_WITHOUT_CODE: "1" }, encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] },
    );
  expect(() => open("cuda:0")).toThrow(
    /no code for emulated[\s\S]*MONOSEM_CUDA_ARCHITECTURES=all[\s\S]*ERR_UNSUPPORTED/,
  );
  expect(open("auto")).toMatch(/^cpu .*no code for/);
});

test("memory is counted, limited, and kept for reuse", async () => {
  await using device = await Device.open(testDevice, { memoryLimitBytes: 1 << 20 });
  {
    using tensor = device.tensor(new Float32Array(1000), [1000]);
    expect(device.memory().currentBytes).toBeGreaterThanOrEqual(4000);
    expect(await tensor.readFloat32()).toEqual(new Float32Array(1000));
  }
  expect(device.memory().currentBytes).toBe(0);
  expect(device.memory().cachedBytes).toBeGreaterThanOrEqual(4000);
  expect(() => device.tensor(new Float32Array(1 << 20), [1 << 20])).toThrow(code("ERR_OUT_OF_MEMORY"));
});

test("the content of a tensor is what it was when the call was made", async () => {
  await using device = await Device.open(testDevice);
  const data = new Float32Array([1, 2, 3]);
  const tensor = device.tensor(data, [3]);
  data.fill(9);
  const doubled = device.kernels.scale(tensor, 2);
  expect(await doubled.readFloat32()).toEqual(new Float32Array([2, 4, 6]));
});

test("of several failures the first is told, also where it was found last", async () => {
  await using device = await Device.open(testDevice);
  const { kernels } = device;
  const x = device.tensor(new Float32Array([1, 2, Number.NaN, 4]), [2, 2]);
  const encoder = device.tensor(new Float32Array([1, 2, 3, 4, 5, 6]), [3, 2]);
  const codes = kernels.encode(x, encoder, device.zeros([3]), { select: "topk", k: 2 });
  const narrower = kernels.selectTop(codes, 1); // finds the NaN that the encoder has left, and waits for it
  await expect(narrower.read()).rejects.toThrow(/^encode\(x \[2, 2\].*: x holds NaN or infinity, first in row 1/);
  await device.synchronize();
  await expect(narrower.read()).rejects.toThrow(code("ERR_NOT_COMPUTED"));
});

test("what a kernel finds out late rejects the next read, once, and the device goes on", async () => {
  await using device = await Device.open(testDevice);
  const a = device.tensor(new Float32Array([1, 2, 3, 4]), [2, 2]);
  const rows = device.tensor(new Int32Array([0, 5]), [2]);
  device.kernels.gatherRows(a, rows);
  await expect(device.synchronize()).rejects.toThrow(code("ERR_INVALID_ARGUMENT"));
  await device.synchronize();
  expect(await a.readFloat32()).toEqual(new Float32Array([1, 2, 3, 4]));
});
