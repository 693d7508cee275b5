/**
 * The opening lines of programs that run in a process or worker of their own. They use the native module without the
 * TypeScript in between, which Node.js 20 cannot run.
 */
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../..", import.meta.url));

export const rawDevice: string = `
  import { createRequire } from "node:module";
  const native = createRequire(${JSON.stringify(`${root}package.json`)})("node-gyp-build")(${JSON.stringify(root)});
  const device = native.openCpuDevice(2, 0);
  /** Queues so many matrix products of some milliseconds each, and returns the last result. */
  function work(steps) {
    const size = 256;
    let x = native.zeroTensor(device, "f32", [size, size]);
    for (let i = 0; i < steps; i++) {
      const out = native.emptyTensor(device, "f32", [size, size]);
      native.linear(device, x, x, null, "none", null, false, out);
      x = out;
    }
    return x;
  }
`;
