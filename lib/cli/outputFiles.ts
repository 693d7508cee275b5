import { readdir, stat } from "node:fs/promises";
import { dirname, resolve } from "node:path";
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

/**
 * Refuses a folder that cannot be written, or that `checkReplaceable` refuses.
 *
 * @throws MonosemError ERR_NOT_FOUND for a folder in a folder that does not exist, ERR_CONFIG
 */
export async function checkOutputFolder(path: string, own: RegExp): Promise<void> {
  await requireFolder(dirname(resolve(path)), (problem) => `cannot write ${path}: ${problem}`);
  await checkReplaceable(path, own);
}

/**
 * Refuses a folder that holds other files than an earlier output of the same kind: it would be replaced as a whole.
 *
 * @param own - the names of what such an output holds
 * @throws MonosemError ERR_CONFIG
 */
export async function checkReplaceable(path: string, own: RegExp): Promise<void> {
  const names = await readdir(path).catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") return [];
    throw new MonosemError("ERR_CONFIG", `cannot write the folder ${path}: ${error.message}`, { cause: error });
  });
  const other = names.filter((name) => !own.test(name));
  if (other.length === 0) return;
  throw new MonosemError(
    "ERR_CONFIG",
    `cannot write the folder ${path}: it holds other files (${other.slice(0, 3).join(", ")}); name a new folder`,
  );
}
