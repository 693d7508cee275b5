import { lstat, stat } from "node:fs/promises";

/** Whether a file or folder can be reached by a name. */
export async function exists(path: string): Promise<boolean> {
  return (await stat(path).catch(() => undefined)) !== undefined;
}

/** Whether a name is taken, and be it by a link that leads nowhere; rejects where the system does not tell. */
export async function isTaken(path: string): Promise<boolean> {
  try {
    await lstat(path);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return false;
    throw error;
  }
}
