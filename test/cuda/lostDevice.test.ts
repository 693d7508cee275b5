import { execFileSync } from "node:child_process";
import { expect, test } from "vitest";

const library = new URL("../../dist/index.js", import.meta.url).href;

/** What a process prints whose GPU breaks in its `launches`-th kernel; only the emulated one breaks at will. */
function inProcessWhoseGpuBreaks(launches: number, script: string): string {
  return execFileSync(process.execPath, ["--input-type=module", "-e", script], {
    env: { ...process.env, CUDA_HOST_BREAK_AFTER: String(launches) },
    encoding: "utf8",
  });
}

const isEmulated = process.env.MONOSEM_CUDA_LIBRARY?.includes("emulated") ?? false;

test.runIf(isEmulated)("a GPU that breaks rejects what waits for it, and the CPU goes on", () => {
  const output = inProcessWhoseGpuBreaks(
    3,
    `
    import { Device } from ${JSON.stringify(library)};
    const told = async (what, work) => {
      try { await work(); console.log(what, "went well"); } catch (error) { console.log(what, error.code, error.message); }
    };
    const gpu = await Device.open("cuda:0");
    const a = gpu.tensor(new Float32Array([1, 2, 3]), [3]);
    const sum = gpu.kernels.add(a, a);
    await told("before:", () => sum.readFloat32());
    const more = gpu.kernels.add(gpu.kernels.add(sum, a), a);
    await told("then:", () => more.readFloat32());
    await told("told once:", () => gpu.synchronize());
    await told("old:", () => sum.readFloat32());
    await told("new:", () => gpu.kernels.add(a, a).readFloat32());
    await told("close:", () => gpu.close());
    await told("open:", () => Device.open("cuda:0"));
    const cpu = await Device.open("auto");
    console.log(cpu.name, cpu.reason);
    console.log((await cpu.kernels.scale(cpu.tensor(new Float32Array([1, 2]), [2]), 2).readFloat32()).join());
  `,
  );
  const lines = output.trim().split("\n");
  expect(lines[0]).toBe("before: went well");
  expect(lines[1]).toMatch(/^then: ERR_DEVICE_LOST .*cudaErrorIllegalAddress.*Go on with the CPU, or start anew\.$/);
  expect(lines[2]).toBe("told once: went well");
  expect(lines[3]).toMatch(/^old: ERR_DEVICE_LOST /);
  expect(lines[4]).toMatch(/^new: ERR_DEVICE_LOST add\(/);
  expect(lines[5]).toBe("close: went well");
  expect(lines[6]).toMatch(/^open: ERR_DEVICE_LOST /);
  expect(lines[7]).toMatch(/^cpu .*cudaErrorIllegalAddress/);
  expect(lines[8]).toBe("2,4");
});
