import { availableMemory } from "node:process";
import { MonosemError } from "../errors.js";
import type { Device } from "./device.js";

/** What needs memory, in the words of a message: "the weights of gpt2" "take" so much; and what else one can do. */
export interface MemoryNeed {
  readonly what: string;
  readonly bytes: number;
  /** What the host needs besides, while it is made. Default 0. */
  readonly bytesBeside?: number;
  readonly advice: string;
}

/**
 * Refuses what would not fit into a device's memory, before anything of it is allocated: beyond the device's limit, or,
 * on a CPU, beyond what the system has available. A GPU without a limit refuses by itself.
 *
 * @throws MonosemError ERR_OUT_OF_MEMORY, with both numbers
 */
export function requireMemory(device: Device, { what, bytes, bytesBeside = 0, advice }: MemoryNeed): void {
  const { currentBytes, cachedBytes, limitBytes } = device.memory();
  const left = limitBytes === 0 ? Number.POSITIVE_INFINITY : limitBytes - currentBytes;
  const free = device.name === "cpu" ? availableMemory() + cachedBytes - bytesBeside : Number.POSITIVE_INFINITY;
  if (bytes <= Math.min(left, free)) return;
  const beside = bytesBeside === 0 ? "" : `, of which reading them takes ${text(bytesBeside)}`;
  const has =
    left <= free
      ? `the device's limit leaves ${text(left)}`
      : `the system has ${text(free + bytesBeside)} available${beside}`;
  throw new MonosemError("ERR_OUT_OF_MEMORY", `${what} take ${text(bytes)} of memory, but ${has}; ${advice}`);
}

function text(bytes: number): string {
  return bytes >= 2 ** 30 ? `${(bytes / 2 ** 30).toFixed(2)} GiB` : `${(bytes / 2 ** 20).toFixed(1)} MiB`;
}
