/** Run in a process of its own, to be killed: holds the lock of a folder and says so. */
import { FolderLock } from "../../lib/formats/folderLock.js";

export async function holdFolder(folder: string): Promise<void> {
  await FolderLock.acquire(folder, { what: "the folder" });
  process.stdout.write("held\n");
  await new Promise((resolve) => setTimeout(resolve, 2 ** 30));
}
