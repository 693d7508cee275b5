import { mkdir, stat } from "node:fs/promises";
import { dirname, resolve } from "node:path";
import { MonosemError } from "../errors.js";

/**
 * Makes a folder and those above it that are missing; one that exists is fine.
 *
 * Node's own recursive `mkdir` never returns where the system answers "no such file" below a folder that exists, as
 * under /proc.
 *
 * @throws MonosemError ERR_IO naming the folder.
 */
export async function makeDirectory(path: string): Promise<void> {
  try {
    await makeWithParents(resolve(path));
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    const reason = code === "EEXIST" ? "there is a file of that name" : message;
    throw new MonosemError("ERR_IO", `cannot make the folder ${path}: ${reason}`, { cause: error });
  }
}

async function makeWithParents(path: string): Promise<void> {
  try {
    await mkdir(path);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    const found = await stat(path).catch(() => undefined);
    if (found?.isDirectory()) return;
    const parent = dirname(path);
    if (code !== "ENOENT" || parent === path) throw error;
    if ((await stat(parent).catch(() => undefined)) === undefined) {
      await makeWithParents(parent);
      // Not a plain mkdir: another process may make the same folders at this moment.
      await makeWithParents(path);
      return;
    }
    // Somebody else has made the parent since, or there can be no such folder: a second attempt tells.
    await mkdir(path).catch(async (again: unknown) => {
      if (!(await stat(path).catch(() => undefined))?.isDirectory()) throw again;
    });
  }
}
