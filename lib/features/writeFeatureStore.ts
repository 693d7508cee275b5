import { throwIfAborted } from "../errors.js";
import { type SafetensorsData, SafetensorsWriter } from "../formats/safetensors.js";
import { checksumOf } from "./checksum.js";
import type { LatentRecord } from "./latentRecord.js";
import { encodeVocabulary } from "./storedVocabulary.js";
import { headerMetadata, type StoreHeader } from "./storeHeader.js";
import {
  type Column,
  columnArray,
  dtypeOf,
  latentColumns,
  type Row,
  type RowCounts,
  storeTables,
  tableNames,
  toRows,
} from "./storeTables.js";

/** Latents whose rows are in memory at once. */
const BLOCK = 256;

export interface FeaturesToStore {
  readonly header: StoreHeader;
  /** Texts of all tokens, in order of their ids. */
  readonly vocabulary: readonly string[];
  /** Latents in the order in which a page shows them. */
  readonly ranking: readonly number[];
  /** How many rows a latent will have in each table. */
  rowCounts(latent: number): RowCounts;
  /** Of `latents` latents from `first` on; asked for block by block, in order. */
  records(first: number, latents: number): Promise<readonly LatentRecord[]>;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((latents: number) => void) | undefined;
}

/**
 * Writes a store's file, atomically: block by block, so that no more than 256 latents' rows are in memory.
 *
 * @throws MonosemError ERR_IO, ERR_ABORTED
 */
export async function writeFeatureStore(path: string, features: FeaturesToStore): Promise<void> {
  const { header, signal } = features;
  const { dSae, tokensBefore, tokensAfter } = header.identity;
  const tables = storeTables(tokensBefore + 1 + tokensAfter);
  const offsets = new Map(tableNames.map((name) => [name, new Uint32Array(dSae + 1)]));
  for (let latent = 0; latent < dSae; latent++) {
    const counts = features.rowCounts(latent);
    for (const [name, of] of offsets) of[latent + 1] = of[latent]! + counts[name];
  }
  const vocabulary = encodeVocabulary(features.vocabulary);
  const eager = new Map<string, { readonly dtype: "F32" | "F64" | "U32" | "U8"; readonly data: SafetensorsData }>([
    ...Object.entries(latentColumns).map(
      ([name, column]) =>
        [`latents.${name}`, { dtype: dtypeOf(column.kind) as "F32", data: columnArray(column, dSae) }] as const,
    ),
    ["latents.checksum", { dtype: "U32", data: new Uint32Array(dSae) }],
    ...tableNames.map((name) => [`${name}.offsets`, { dtype: "U32", data: offsets.get(name)! }] as const),
    ["vocabulary.offsets", { dtype: "U32", data: vocabulary.offsets }],
    ["vocabulary.text", { dtype: "U8", data: vocabulary.bytes }],
    ["ranking", { dtype: "U32", data: Uint32Array.from(features.ranking) }],
  ]);
  const specifications = [
    ...[...eager].map(([name, { dtype, data }]) => ({ name, dtype, shape: [data.length] })),
    { name: "checksum", dtype: "U32" as const, shape: [1] },
    ...tableNames.flatMap((table) =>
      Object.entries(tables[table]).map(([name, { kind, width }]) => ({
        name: `${table}.${name}`,
        dtype: dtypeOf(kind),
        shape: [offsets.get(table)![dSae]!, ...(width === 0 ? [] : [width])],
      })),
    ),
  ];
  const writer = await SafetensorsWriter.create(path, specifications, headerMetadata(header));
  try {
    for (let first = 0; first < dSae; first += BLOCK) {
      throwIfAborted(signal, "writing the features");
      const stored = (await features.records(first, Math.min(BLOCK, dSae - first))).map(toRows);
      const checksums = new Uint32Array(stored.length);
      for (const table of tableNames) {
        const rows = stored.map((latent) => latent.tables[table]);
        for (const [name, column] of Object.entries(tables[table])) {
          await writer.write(`${table}.${name}`, filled(column, name, rows, checksums));
        }
      }
      for (const [index, { columns }] of stored.entries()) {
        for (const [name, value] of Object.entries(columns)) eager.get(`latents.${name}`)!.data[first + index] = value;
      }
      eager.get("latents.checksum")!.data.set(checksums as never, first);
      features.onProgress?.(first + stored.length);
    }
    let checksum = 0;
    for (const [name, { data }] of eager) {
      await writer.write(name, data);
      checksum = checksumOf(data, checksum);
    }
    await writer.write("checksum", Uint32Array.of(checksum));
    await writer.close();
  } catch (error) {
    await writer.abort();
    throw error;
  }
}

/** One column of the rows of some latents, each latent's checksum continued over it. */
function filled(
  column: Column,
  name: string,
  latents: readonly (readonly Row[])[],
  checksums: Uint32Array,
): SafetensorsData {
  const width = Math.max(1, column.width);
  const data = columnArray(
    column,
    latents.reduce((sum, rows) => sum + rows.length, 0),
  );
  let row = 0;
  for (const [index, rows] of latents.entries()) {
    const first = row;
    for (const values of rows) {
      const value = values[name]!;
      if (typeof value === "number") data[row] = value;
      else data.set(value, row * width);
      row += 1;
    }
    checksums[index] = checksumOf(data.subarray(first * width, row * width), checksums[index]!);
  }
  return data;
}
