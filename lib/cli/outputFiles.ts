import { stat } from "node:fs/promises";
import { dirname } from "node:path";
import { MonosemError } from "../errors.js";
import { requireFolder } from "./folders.js";

/**
 * Refuses files that cannot be written, before the work starts whose results they are to hold.
 *
 * @param paths - those that were not asked for are undefined
 * @throws MonosemError ERR_NOT_FOUND for a file in a folder that does not exist, ERR_CONFIG for a path that is a folder
 */
export async function checkOutputFiles(...paths: readonly (string | undefined)[]): Promise<void> {
  for (const path of paths) {
    if (path === undefined) continue;
    await requireFolder(dirname(path), (problem) => `cannot write ${path}: ${problem}`);
    if ((await stat(path).catch(() => undefined))?.isDirectory()) {
      throw new MonosemError("ERR_CONFIG", `cannot write ${path}: it is a folder; name a file`);
    }
  }
}
