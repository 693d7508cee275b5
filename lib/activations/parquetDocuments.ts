/** Documents in parquet files, the format in which Hugging Face keeps data sets. */
import { type FileHandle, open } from "node:fs/promises";
import { type AsyncBuffer, parquetMetadataAsync, parquetReadObjects, parquetSchema } from "hyparquet";
import { compressors } from "hyparquet-compressors";
import { MonosemError, throwIfAborted } from "../errors.js";

/**
 * The strings of the column "text", row group by row group: no more than one group's is in memory.
 *
 * @throws MonosemError ERR_FORMAT naming the file (and row) that is malformed or has no such strings, ERR_IO, ERR_ABORTED
 */
export async function* parquetDocuments(
  path: string,
  signal: AbortSignal | undefined,
): AsyncGenerator<string, void, undefined> {
  const handle = await open(path).catch((error: Error) => {
    throw new MonosemError("ERR_IO", `cannot read ${path}: ${error.message}`, { cause: error });
  });
  try {
    const file = await bufferOf(handle, path);
    const metadata = await parsed(path, () => parquetMetadataAsync(file));
    if (!parquetSchema(metadata).children.some(({ element }) => element.name === "text")) {
      throw new MonosemError("ERR_FORMAT", `${path} has no column "text"`);
    }
    let rowStart = 0;
    for (const { num_rows: count } of metadata.row_groups) {
      throwIfAborted(signal, "reading the corpus");
      const rowEnd = rowStart + Number(count);
      const options = { file, metadata, columns: ["text"], rowStart, rowEnd, compressors };
      const rows = await parsed(path, () => parquetReadObjects(options));
      for (const [i, { text }] of rows.entries()) {
        if (typeof text !== "string") {
          throw new MonosemError("ERR_FORMAT", `row ${rowStart + i} of ${path} should have a string under "text"`);
        }
        yield text;
      }
      rowStart = rowEnd;
    }
  } finally {
    await handle.close();
  }
}

async function bufferOf(handle: FileHandle, path: string): Promise<AsyncBuffer> {
  const byteLength = (await handle.stat()).size;
  return {
    byteLength,
    slice(start, end = byteLength) {
      const bytes = readBytes(handle, path, byteLength, start, end);
      // The library asks for several ranges at once and awaits one after the other: when an early one fails, the failures
      // of the later ones must not go unhandled.
      bytes.catch(() => {});
      return bytes;
    },
  };
}

async function readBytes(
  handle: FileHandle,
  path: string,
  byteLength: number,
  start: number,
  end: number,
): Promise<ArrayBuffer> {
  // What a malformed file asks for may lie outside of it: nothing is allocated for that.
  if (!(start >= 0 && start <= end && end <= byteLength)) {
    throw new MonosemError("ERR_FORMAT", `${path} is no parquet file: bytes ${start} to ${end} of ${byteLength}`);
  }
  const bytes = new Uint8Array(end - start);
  for (let done = 0; done < bytes.length; ) {
    const { bytesRead } = await handle.read(bytes, done, bytes.length - done, start + done);
    if (bytesRead === 0) throw new MonosemError("ERR_FORMAT", `${path} became shorter while it was read`);
    done += bytesRead;
  }
  return bytes.buffer;
}

async function parsed<T>(path: string, parse: () => Promise<T>): Promise<T> {
  try {
    return await parse();
  } catch (error) {
    if (error instanceof MonosemError) throw error;
    throw new MonosemError("ERR_FORMAT", `${path} is no readable parquet file: ${(error as Error).message}`, {
      cause: error,
    });
  }
}
