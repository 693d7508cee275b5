import { readdir, readFile } from "node:fs/promises";
import { join, relative } from "node:path";

/** The files of a folder and those below it, under names with `prefix` before them, for a repository of the test hub. */
export async function servedFolder(folder: string, prefix = ""): Promise<ReadonlyMap<string, Buffer>> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true });
  const files = new Map<string, Buffer>();
  for (const entry of entries.filter((found) => found.isFile())) {
    const path = join(entry.parentPath, entry.name);
    files.set(`${prefix}${relative(folder, path)}`, await readFile(path));
  }
  return files;
}
