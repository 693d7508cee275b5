import { type FileHandle, open, stat } from "node:fs/promises";
import { MonosemError } from "../errors.js";

/** Read at once. */
const pieceBytes = 2 ** 20;

/** Where a shell's process substitution and standard input appear as files. */
const openedByTheShell = /^\/(dev\/fd\/\d+|dev\/stdin|proc\/[^/]+\/fd\/\d+)$/;

/**
 * All bytes of a file that is meant to be small. It must be a regular one, or a pipe that a shell has opened (`<(command)`):
 * others have no end, or wait for somebody to write.
 *
 * @returns undefined for a file of more than `limit` bytes
 * @throws MonosemError ERR_IO for what is no such file, and as it comes what the system says, such as ENOENT
 */
export async function readBounded(path: string, limit: number): Promise<Buffer | undefined> {
  // Asked before opening: opening a pipe would wait for a writer.
  const found = await stat(path);
  if (found.isDirectory()) throw new MonosemError("ERR_IO", `cannot read ${path}: it is a folder, expected a file`);
  const opened = openedByTheShell.test(path) && (found.isFIFO() || found.isSocket());
  if (!found.isFile() && !opened) throw new MonosemError("ERR_IO", `cannot read ${path}: it is not a regular file`);
  const handle = await open(path, "r");
  try {
    return await readUpTo(handle, limit);
  } finally {
    await handle.close();
  }
}

/** However many bytes the system says there are: a pipe and a growing file do not say. */
async function readUpTo(handle: FileHandle, limit: number): Promise<Buffer | undefined> {
  const pieces: Buffer[] = [];
  let byteLength = 0;
  for await (const piece of handle.createReadStream({ autoClose: false, highWaterMark: pieceBytes })) {
    byteLength += (piece as Buffer).length;
    if (byteLength > limit) return undefined;
    pieces.push(piece as Buffer);
  }
  return Buffer.concat(pieces);
}
