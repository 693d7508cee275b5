import { type FileHandle, open, stat } from "node:fs/promises";
import { type ErrorCode, MonosemError } from "../errors.js";
import { parseJsonText } from "./jsonText.js";

/** The largest that are read, tokenizers of a million tokens, have some 70 MB. */
const maximumBytes = 2 ** 27;

/** Read at once. */
const pieceBytes = 2 ** 20;

/** Where a shell's process substitution and standard input appear as files. */
const openedByTheShell = /^\/(dev\/fd\/\d+|dev\/stdin|proc\/[^/]+\/fd\/\d+)$/;

/**
 * Reads a JSON file. It must be a regular one, or a pipe that a shell has opened (`<(command)`): others have no end, or
 * wait for somebody to write.
 *
 * @param options.missing - what the error says when there is no such file
 * @param options.malformed - the error's code when the file is not JSON; by default ERR_FORMAT
 * @throws MonosemError ERR_NOT_FOUND when there is no such file, ERR_IO when it cannot be read, `malformed` when it is not
 *   JSON or larger than any file that is meant to be read so
 */
export async function readJsonFile(
  path: string,
  { missing = `${path} does not exist`, malformed = "ERR_FORMAT" }: { missing?: string; malformed?: ErrorCode } = {},
): Promise<unknown> {
  let bytes: Buffer | undefined;
  try {
    bytes = await readBounded(path);
  } catch (cause) {
    if (cause instanceof MonosemError) throw cause;
    const { code, message } = cause as NodeJS.ErrnoException;
    if (code === "ENOENT") throw new MonosemError("ERR_NOT_FOUND", missing, { cause });
    throw new MonosemError("ERR_IO", `cannot read ${path}: ${message}`, { cause });
  }
  if (bytes === undefined) {
    throw new MonosemError(
      malformed,
      `${path} has more than ${maximumBytes} bytes, the most that a JSON file may have`,
    );
  }
  return parseJsonText(bytes.toString("utf8"), path, malformed);
}

/** Undefined for more than the limit. */
async function readBounded(path: string): Promise<Buffer | undefined> {
  // Asked before opening: opening a pipe would wait for a writer.
  const found = await stat(path);
  if (found.isDirectory()) throw new MonosemError("ERR_IO", `cannot read ${path}: it is a folder`);
  const opened = openedByTheShell.test(path) && (found.isFIFO() || found.isSocket());
  if (!found.isFile() && !opened) throw new MonosemError("ERR_IO", `cannot read ${path}: it is not a regular file`);
  const handle = await open(path, "r");
  try {
    return await readUpTo(handle, maximumBytes);
  } finally {
    await handle.close();
  }
}

/** All bytes, however many the system says there are: a pipe and a growing file do not say. */
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
