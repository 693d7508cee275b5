/** Documents in parquet files, the format in which Hugging Face keeps data sets. */
import { type FileHandle, open } from "node:fs/promises";
import { type AsyncBuffer, parquetMetadataAsync, parquetSchema, type RowGroup } from "hyparquet";
import { MonosemError, throwIfAborted } from "../errors.js";
import { readParquetColumn } from "./parquetColumn.js";

/** Length of the metadata, magic. */
const footerBytes = 8;
/** Some bytes for each column of each row group: those of data sets have some hundred thousand. */
const maximumMetadataBytes = 2 ** 24;
/** Of a row group, whose text is in memory as a whole. Arrow writes at most a million, DuckDB 122,880. */
const maximumRows = 2 ** 23;

/**
 * The strings of the column "text", row group by row group: no more than one group's is in memory.
 *
 * @throws MonosemError ERR_FORMAT naming the file (and row) that is malformed or has no such strings, ERR_UNSUPPORTED for row
 *   groups that are too large to be read at once, ERR_IO, ERR_ABORTED
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
    await requireFooter(file, path);
    const {
      row_groups: groups,
      root,
      text,
    } = await parsed(path, async () => {
      const metadata = await parquetMetadataAsync(file);
      const root = parquetSchema(metadata);
      return { ...metadata, root, text: root.children.find(({ element }) => element.name === "text") };
    });
    if (text === undefined) throw new MonosemError("ERR_FORMAT", `${path} has no column "text"`);
    const flat = text.children.length === 0 && text.element.repetition_type !== "REPEATED";
    let row = 0;
    for (const group of groups) {
      throwIfAborted(signal, "reading the corpus");
      const rows = rowsOf(group, path);
      const column = group.columns.find(({ meta_data: meta }) => meta?.path_in_schema.join(".") === "text")?.meta_data;
      const values =
        flat && column?.type === "BYTE_ARRAY"
          ? await parsed(path, () => readParquetColumn(file, column, [root, text], rows))
          : [];
      for (let i = 0; i < rows; i++, row++) {
        const value = values[i];
        if (typeof value !== "string") {
          throw new MonosemError("ERR_FORMAT", `row ${row} of ${path} should have a string under "text"`);
        }
        yield value;
      }
    }
  } finally {
    await handle.close();
  }
}

/** @throws MonosemError ERR_FORMAT where the metadata are larger than any, which are parsed as a whole */
async function requireFooter(file: AsyncBuffer, path: string): Promise<void> {
  if (file.byteLength < footerBytes) return; // the parser says what is missing
  const footer = await file.slice(file.byteLength - footerBytes, file.byteLength);
  const metadataBytes = new DataView(footer).getUint32(0, true);
  if (metadataBytes <= maximumMetadataBytes) return;
  throw new MonosemError(
    "ERR_FORMAT",
    `${path} is no readable parquet file: its metadata of ${metadataBytes} bytes exceed ${maximumMetadataBytes}`,
  );
}

function rowsOf({ num_rows: count }: RowGroup, path: string): number {
  if (count < 0n) {
    throw new MonosemError("ERR_FORMAT", `${path} is no readable parquet file: a row group has ${count} rows`);
  }
  if (count <= maximumRows) return Number(count);
  throw new MonosemError(
    "ERR_UNSUPPORTED",
    `a row group of ${path} has ${count} rows, which are read at once; write it with groups of at most ${maximumRows}`,
  );
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
