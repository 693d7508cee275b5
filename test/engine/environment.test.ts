/** What happens to queued work, pending reads and threads when a process or a worker ends. */
import { spawnSync } from "node:child_process";
import { Worker } from "node:worker_threads";
import { expect, test } from "vitest";
import { rawDevice } from "./rawAddon.js";

function runProgram(body: string): { status: number | null; signal: string | null; stdout: string; stderr: string } {
  return spawnSync(process.execPath, ["--input-type=module", "-e", rawDevice + body], { encoding: "utf8" });
}

function startWorker(body: string): Worker {
  const source = `${rawDevice} import { parentPort } from "node:worker_threads"; ${body}`;
  return new Worker(new URL(`data:text/javascript,${encodeURIComponent(source)}`));
}

const message = (worker: Worker): Promise<unknown> =>
  new Promise((resolve, reject) => {
    worker.once("message", resolve);
    worker.once("error", reject);
  });

test("a process ends by itself after its reads, though the device is open", () => {
  const { status, stdout } = runProgram("console.log((await native.readTensor(work(3))).length);");
  expect({ status, stdout }).toEqual({ status: 0, stdout: "65536\n" });
});

test("a pending read keeps the process alive; work that nobody reads does not", () => {
  const reading = runProgram("native.readTensor(work(20)).then(() => console.log('read'));");
  expect({ status: reading.status, stdout: reading.stdout }).toEqual({ status: 0, stdout: "read\n" });
  const idle = runProgram("work(5000); console.log('queued');");
  expect({ status: idle.status, stdout: idle.stdout }).toEqual({ status: 0, stdout: "queued\n" });
});

test("process.exit and an uncaught exception amid queued work end the process with their own status", () => {
  const exited = runProgram(
    "const read = native.readTensor(work(5000)); setTimeout(() => process.exit(3), 20); await read;",
  );
  expect({ status: exited.status, signal: exited.signal, stderr: exited.stderr }).toEqual({
    status: 3,
    signal: null,
    stderr: "",
  });
  const thrown = runProgram("native.readTensor(work(5000)); setTimeout(() => { throw new Error('boom'); }, 20);");
  expect(thrown.status).toBe(1);
  expect(thrown.stderr).toContain("boom");
});

test("workers that are terminated amid queued work and pending reads leave the others working", async () => {
  for (let i = 0; i < 8; i++) {
    const worker = startWorker("native.readTensor(work(5000)); parentPort.postMessage('queued');");
    expect(await message(worker)).toBe("queued");
    expect(await worker.terminate()).toBe(1);
  }
  const worker = startWorker("native.readTensor(work(3)).then((x) => parentPort.postMessage(x.length));");
  expect(await message(worker)).toBe(65536);
  await worker.terminate();
});

test("a worker ends by itself after its reads", async () => {
  const worker = startWorker("native.readTensor(work(3)).then((x) => parentPort.postMessage(x.length));");
  const ended = new Promise((resolve) => worker.once("exit", resolve));
  expect(await message(worker)).toBe(65536);
  expect(await ended).toBe(0);
});

test("garbage handed to the native module is an error, never a crash", () => {
  const { status, stdout, stderr } = runProgram(`
    const values = [undefined, null, 0, -1, NaN, 1e300, "f32", {}, [], [1, 2], new Float32Array(3), new ArrayBuffer(8),
      () => {}, Symbol.iterator, 10n, device, native.zeroTensor(device, "f32", [2, 2]), native.newCodes(device, 2, 2)];
    let state = 1;
    const random = (below) => (state = (Math.imul(state, 1103515245) + 12345) >>> 0) % below;
    let refused = 0;
    for (const [name, call] of Object.entries(native)) {
      if (["closeDevice", "setErrorClass", "openCpuDevice", "disposeHandle"].includes(name)) continue;
      for (let i = 0; i < 300; i++) {
        const args = Array.from({ length: random(12) }, () => values[random(values.length)]);
        if (random(2) === 0) args[0] = device;
        try {
          const result = call(...args);
          if (result instanceof Promise) await result.catch(() => {});
        } catch (error) {
          if (!(error instanceof Error)) throw error;
          refused++;
        }
      }
    }
    await native.synchronize(device).catch(() => {});
    console.log(refused > 10000);`);
  expect({ status, stdout, stderr }).toEqual({ status: 0, stdout: "true\n", stderr: "" });
});
