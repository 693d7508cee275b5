import { readdirSync } from "node:fs";
import { visibleText } from "../analysis/visibleText.js";
import type { Device } from "../engine/device.js";

/**
 * What to tell somebody whose machine has an NVIDIA GPU where "auto" has taken the CPU all the same; undefined where
 * there is nothing to tell.
 *
 * @param deviceFiles - what lies in /dev, where Linux has a file nvidia0, nvidia1, ... for each GPU
 */
export function unusedGpu(
  { name, reason }: Pick<Device, "name" | "reason">,
  deviceFiles: readonly string[] = filesOfDevices(),
): string | undefined {
  if (name !== "cpu" || !deviceFiles.some((file) => /^nvidia\d+$/.test(file))) return undefined;
  return `the CPU computes, not the GPU: ${visibleText(reason)}; --device cpu takes the CPU without a word`;
}

function filesOfDevices(): readonly string[] {
  try {
    return readdirSync("/dev");
  } catch {
    return []; // other systems than Linux, and cages without /dev
  }
}
