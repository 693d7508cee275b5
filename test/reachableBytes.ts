import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import type { Device } from "../lib/engine/device.js";

setFlagsFromString("--expose-gc");
export const collectGarbage = runInNewContext("gc") as () => void;

/**
 * The bytes of a device that tensors and codes within reach of the program hold: what has been dropped is collected first, so
 * that two measurements differ by what was allocated between them and not by when the garbage collector ran.
 */
export async function reachableBytes(device: Device): Promise<number> {
  await device.synchronize();
  // Several rounds: what a collected handle held on to, another handle or queued work, goes in the next one.
  for (let round = 0; round < 4; round++) {
    collectGarbage();
    await new Promise((resolve) => setImmediate(resolve));
    await device.synchronize();
  }
  return device.memory().currentBytes;
}
