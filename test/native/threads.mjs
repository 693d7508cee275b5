// Run under ThreadSanitizer by `npm run test:sanitizers`: the main thread and workers queue work and read results on
// devices of their own, and workers are terminated amid their work.
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";
import { isMainThread, parentPort, Worker, workerData } from "node:worker_threads";

const root = fileURLToPath(new URL("../..", import.meta.url));
const native = createRequire(import.meta.url)("node-gyp-build")(root);

async function work(rounds) {
  const device = native.openCpuDevice(3, 0);
  for (let i = 0; i < rounds; i++) {
    const x = native.tensorFromHost(device, "f32", [64, 32], new Float32Array(64 * 32).fill(i));
    const encoder = native.emptyTensor(device, "f32", [128, 32]);
    native.randomNormal(device, encoder, 1, i * 4096, 1);
    const bias = native.zeroTensor(device, "f32", [128]);
    const codes = native.newCodes(device, 64, 128);
    native.encode(device, x, encoder, bias, "topk", 4, false, null, codes);
    const out = native.emptyTensor(device, "f32", [64, 32]);
    native.decode(device, codes, encoder, null, x, null, out);
    const failing = native.emptyTensor(device, "f32", [64, 32]);
    await Promise.all([native.readTensor(out), native.readCodes(codes)]);
    native.writeTensor(x, new Float32Array(64 * 32));
    native.scale(device, failing, 2, out);
    await native.synchronize(device).catch(() => {});
    for (const handle of [x, encoder, bias, codes, out]) native.disposeHandle(handle);
  }
  native.closeDevice(device);
}

if (isMainThread) {
  const start = (rounds) => new Worker(new URL(import.meta.url), { workerData: rounds });
  const finishing = [start(20), start(20)].map((worker) => new Promise((resolve) => worker.once("exit", resolve)));
  await work(30);
  for (const status of await Promise.all(finishing)) if (status !== 0) throw new Error(`a worker ended with ${status}`);
  for (let i = 0; i < 4; i++) {
    const worker = start(1_000_000);
    await new Promise((resolve) => worker.once("message", resolve));
    await worker.terminate();
  }
} else {
  await work(1);
  parentPort.postMessage("working");
  await work(workerData);
}
