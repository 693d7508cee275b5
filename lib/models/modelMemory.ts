import type { Device } from "../engine/device.js";
import { requireMemory } from "../engine/requireMemory.js";

/**
 * Refuses a model that would not fit into a device's memory, before anything of it is allocated.
 *
 * @param bytes - that the model's weights will take
 * @param bytesBeside - that the host needs besides, while they are read
 * @throws MonosemError ERR_OUT_OF_MEMORY, with both numbers
 */
export function requireModelMemory(device: Device, bytes: number, name: string, bytesBeside = 0): void {
  const advice = "use a checkpoint in bf16 (its matrices stay bf16), a smaller model or another device";
  requireMemory(device, { what: `the weights of ${name}`, bytes, bytesBeside, advice });
}
