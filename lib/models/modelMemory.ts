import { availableMemory } from "node:process";
import type { Device } from "../engine/device.js";
import { MonosemError } from "../errors.js";

/**
 * Refuses what would not fit into a device's memory, before anything of it is allocated: beyond the device's limit, or,
 * on a CPU, beyond what the system has available. A GPU without a limit refuses by itself.
 *
 * @param bytes - that the model's weights will take
 * @param bytesBeside - that the host needs besides, while they are read
 * @throws MonosemError ERR_OUT_OF_MEMORY, with both numbers
 */
export function requireMemory(device: Device, bytes: number, name: string, bytesBeside = 0): void {
  const { currentBytes, cachedBytes, limitBytes } = device.memory();
  const left = limitBytes === 0 ? Number.POSITIVE_INFINITY : limitBytes - currentBytes;
  const free = device.name === "cpu" ? availableMemory() + cachedBytes - bytesBeside : Number.POSITIVE_INFINITY;
  if (bytes <= Math.min(left, free)) return;
  const beside = bytesBeside === 0 ? "" : `, of which reading them takes ${text(bytesBeside)}`;
  const has =
    left <= free
      ? `the device's limit leaves ${text(left)}`
      : `the system has ${text(free + bytesBeside)} available${beside}`;
  throw new MonosemError(
    "ERR_OUT_OF_MEMORY",
    `the weights of ${name} take ${text(bytes)} of memory, but ${has}; use a checkpoint in bf16 (its matrices stay ` +
      "bf16), a smaller model or another device",
  );
}

function text(bytes: number): string {
  return bytes >= 2 ** 30 ? `${(bytes / 2 ** 30).toFixed(2)} GiB` : `${(bytes / 2 ** 20).toFixed(1)} MiB`;
}
