// Run under LeakSanitizer by `npm run test:sanitizers`: everything that the native module hands out is used, some of it
// disposed, some dropped, some still queued when the process ends. What is left then must be nothing.
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../..", import.meta.url));
const native = createRequire(import.meta.url)("node-gyp-build")(root);

const device = native.openCpuDevice(2, 0);
for (let i = 0; i < 50; i++) {
  const x = native.tensorFromHost(device, "f32", [64, 64], new Float32Array(64 * 64).fill(i));
  const bias = native.zeroTensor(device, "f32", [64]);
  const out = native.emptyTensor(device, "f32", [64, 64]);
  native.linear(device, x, x, null, "none", null, false, out);
  const codes = native.newCodes(device, 64, 64);
  native.encode(device, x, x, bias, "topk", 4, false, null, codes);
  const gradient = native.newEntryValues(codes);
  native.decodeGradient(device, codes, x, x, 1, null, 1, false, gradient);
  const derived = native.newCodes(device, 64, 64);
  native.withValues(device, codes, gradient, null, derived);
  const product = native.newEntryValuesLike(gradient);
  native.entryProduct(device, codes, gradient, null, null, 2, null, product);
  native.disposeHandle(out);
  await Promise.all([native.readTensor(x), native.readCodes(codes), native.readEntryValues(gradient)]);

  const unwritten = native.emptyTensor(device, "f32", [64, 64]);
  native.scale(device, unwritten, 2, x);
  await native.synchronize(device).catch(() => {});
  try {
    native.add(device, x, bias, 1, x);
  } catch {
    // a refused call
  }
}
const closed = native.openCpuDevice(1, 0);
native.closeDevice(closed);
native.scale(device, native.zeroTensor(device, "f32", [1 << 20]), 2, native.emptyTensor(device, "f32", [1 << 20]));
