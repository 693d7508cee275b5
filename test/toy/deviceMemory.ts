import { expect } from "vitest";
import type { Device } from "../../lib/engine/device.js";

/** Every tensor was disposed. Queued work holds on to its operands, so it has to be done first. */
export async function expectNothingKept(device: Device): Promise<void> {
  await device.synchronize();
  expect(device.memory().currentBytes).toBe(0);
}
