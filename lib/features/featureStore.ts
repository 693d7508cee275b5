import { join } from "node:path";
import type { FeatureExample, FeatureStatistics } from "../analysis/features.js";
import { refuseArgument } from "../checkArguments.js";
import { MonosemError } from "../errors.js";
import { exists } from "../formats/exists.js";
import { type SafetensorsData, SafetensorsFile } from "../formats/safetensors.js";
import { checksumOf } from "./checksum.js";
import { densityHistogram } from "./densityHistogram.js";
import type { LatentRecord } from "./latentRecord.js";
import { decodeToken, type StoredVocabulary } from "./storedVocabulary.js";
import { readHeader, type StoreHeader, stateFile, storeFile } from "./storeHeader.js";
import {
  type Column,
  dtypeOf,
  fromRows,
  type LatentColumn,
  latentColumns,
  type Row,
  storeTables,
  type TableName,
  tableNames,
  toExample,
} from "./storeTables.js";

/** What a store says of all latents at once. */
export interface FeatureStoreSummary extends StoreHeader {
  /** Per latent, on how many counted tokens it is active. */
  readonly firingCounts: Float64Array;
  readonly maxActivations: Float32Array;
  readonly minActivations: Float32Array;
  readonly meanActivations: Float64Array;
  readonly deadLatents: number;
  /** Latents worth a look, best first (`rankLatents`). */
  readonly ranking: Uint32Array;
}

/**
 * The features that one pass over a corpus has found, in a folder. Opening reads a few numbers per latent and the
 * vocabulary; what else there is of a latent is read when it is asked for, a few kilobytes. Its file is open until it is
 * closed: node warns of files that are left to the garbage collector.
 *
 * The file is untrusted: its layout is checked when it is opened, and of what is read the checksums, that numbers are
 * finite, and that tokens and latents exist.
 */
export class FeatureStore {
  readonly summary: FeatureStoreSummary;
  readonly #file: SafetensorsFile;
  readonly #tables: Readonly<Record<TableName, Readonly<Record<string, Column>>>>;
  readonly #columns: Readonly<Record<LatentColumn, Float32Array | Float64Array | Uint32Array>>;
  readonly #offsets: Readonly<Record<TableName, Uint32Array>>;
  readonly #checksums: Uint32Array;
  readonly #vocabulary: StoredVocabulary;

  private constructor(file: SafetensorsFile, header: StoreHeader, eager: ReadonlyMap<string, SafetensorsData>) {
    const { identity } = header;
    const array = <Data>(name: string): Data => eager.get(name) as unknown as Data;
    this.#file = file;
    this.#tables = storeTables(identity.tokensBefore + 1 + identity.tokensAfter);
    this.#columns = Object.fromEntries(
      Object.keys(latentColumns).map((name) => [name, array(`latents.${name}`)]),
    ) as unknown as Record<LatentColumn, Float64Array>;
    this.#offsets = Object.fromEntries(
      tableNames.map((name) => [name, array<Uint32Array>(`${name}.offsets`)]),
    ) as unknown as Record<TableName, Uint32Array>;
    this.#checksums = array("latents.checksum");
    this.#vocabulary = { offsets: array("vocabulary.offsets"), bytes: array("vocabulary.text") };
    const firingCounts = array<Float64Array>("latents.firingCount");
    this.summary = {
      ...header,
      firingCounts,
      maxActivations: array("latents.maxActivation"),
      minActivations: array("latents.minActivation"),
      meanActivations: array("latents.meanActivation"),
      deadLatents: firingCounts.reduce((dead, count) => dead + (count === 0 ? 1 : 0), 0),
      ranking: array("ranking"),
    };
  }

  /**
   * @throws MonosemError ERR_NOT_FOUND where there is no store; ERR_CONFIG for one that is not finished; ERR_FORMAT for a
   *   malformed, truncated or corrupted file; ERR_IO
   */
  static async open(folder: string): Promise<FeatureStore> {
    if (typeof folder !== "string") refuseArgument("FeatureStore.open: folder", "the path of a folder", folder);
    const path = join(folder, storeFile);
    if (!(await exists(path))) {
      if (await exists(join(folder, stateFile))) {
        throw new MonosemError(
          "ERR_CONFIG",
          `the features in ${folder} are not complete: gathering them was interrupted and can be resumed`,
        );
      }
      throw new MonosemError(
        "ERR_NOT_FOUND",
        `${path} does not exist: expected a folder that buildFeatureStore (monosem features --store) has written`,
      );
    }
    const file = await SafetensorsFile.open(path);
    try {
      const header = readHeader(file);
      return new FeatureStore(file, header, await readEager(file, header));
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  /** The text of a token. */
  readonly tokenText = (token: number): string => decodeToken(this.#vocabulary, token);

  /**
   * All that is stored of a latent.
   *
   * @throws MonosemError ERR_INVALID_ARGUMENT for a latent that there is not; ERR_FORMAT for corrupted rows; ERR_DISPOSED
   * after `close`; ERR_IO
   */
  async latent(latent: number): Promise<LatentRecord> {
    this.#require(latent);
    let checksum = 0;
    const tables = {} as Record<TableName, readonly Row[]>;
    for (const table of tableNames) {
      const data = await this.#read(table, latent);
      for (const array of data.values()) checksum = checksumOf(array, checksum);
      tables[table] = this.#rows(table, latent, data);
    }
    if (checksum !== this.#checksums[latent]) {
      throw this.#corrupted(latent, `their checksum is ${checksum}, not ${this.#checksums[latent]}`);
    }
    const samples = tables.quantiles.reduce((sum, { examples }) => sum + (examples as number), 0);
    if (samples !== tables.samples.length) {
      throw this.#corrupted(latent, `its quantiles have ${samples} examples, but ${tables.samples.length} are stored`);
    }
    const columns = Object.fromEntries(
      Object.entries(this.#columns).map(([name, array]) => [name, array[latent]!]),
    ) as unknown as Record<LatentColumn, number>;
    return fromRows(latent, { columns, tables }, this.summary.tokens, this.summary.hasLogits);
  }

  /** Its largest activations, largest first, without reading the rest. @throws MonosemError as `latent` */
  async topActivatingExamples(latent: number): Promise<FeatureExample[]> {
    this.#require(latent);
    return this.#rows("examples", latent, await this.#read("examples", latent)).map(toExample);
  }

  /**
   * What pages show: statistics of all latents, with the examples and histograms of `records`; asking for those of others
   * throws ERR_INVALID_ARGUMENT.
   */
  statistics(records: readonly LatentRecord[]): FeatureStatistics {
    const byLatent = new Map(records.map((record) => [record.latent, record]));
    const recordOf = (latent: number): LatentRecord => {
      const record = byLatent.get(latent);
      if (record !== undefined) return record;
      throw new MonosemError("ERR_INVALID_ARGUMENT", `latent ${latent} was not read from the store`);
    };
    const { identity, contexts, tokens, l0 } = this.summary;
    return {
      ...this.summary,
      dSae: identity.dSae,
      contexts,
      tokens,
      l0,
      densityHistogram: densityHistogram(this.summary.firingCounts, tokens),
      activationHistogram: (latent) => recordOf(latent).histogram,
      examples: (latent) => recordOf(latent).examples,
      negativeExamples: (latent) => recordOf(latent).negativeExamples,
    };
  }

  async close(): Promise<void> {
    await this.#file.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  #require(latent: number): void {
    const { dSae } = this.summary.identity;
    if (Number.isInteger(latent) && latent >= 0 && latent < dSae) return;
    throw new MonosemError("ERR_INVALID_ARGUMENT", `there is no latent ${latent}: they are numbered 0 to ${dSae - 1}`);
  }

  async #read(table: TableName, latent: number): Promise<Map<string, SafetensorsData>> {
    const [first, end] = [this.#offsets[table][latent]!, this.#offsets[table][latent + 1]!];
    const columns = Object.keys(this.#tables[table]).map(async (name) => {
      return [name, (await this.#file.readRows(`${table}.${name}`, first, end - first)).data] as const;
    });
    return new Map(await Promise.all(columns));
  }

  #rows(table: TableName, latent: number, data: ReadonlyMap<string, SafetensorsData>): Row[] {
    const columns = this.#tables[table];
    const count = this.#offsets[table][latent + 1]! - this.#offsets[table][latent]!;
    for (const [name, array] of data) {
      const { kind } = columns[name]!;
      const most = { token: this.summary.vocabularySize, latent: this.summary.identity.dSae }[kind as string];
      const wrong = Array.from(array as Float64Array).find((value) =>
        most === undefined ? !Number.isFinite(value) : value < 0 || value >= most,
      );
      if (wrong !== undefined) throw this.#corrupted(latent, `"${table}.${name}" holds ${wrong}`);
    }
    return Array.from({ length: count }, (_, row) => {
      const values = Object.entries(columns).map(([name, { width }]) => {
        const array = data.get(name) as Float64Array;
        return [name, width === 0 ? array[row]! : array.slice(row * width, (row + 1) * width)] as const;
      });
      const entry = Object.fromEntries(values) as Row;
      const width = columns.tokens?.width;
      if (width !== undefined && !((entry.length as number) <= width)) {
        throw this.#corrupted(latent, `"${table}" holds a text of ${entry.length} tokens, more than ${width}`);
      }
      if (columns.peak !== undefined && !((entry.peak as number) < (entry.length as number))) {
        throw this.#corrupted(latent, `"${table}" has a peak at ${entry.peak} of ${entry.length} tokens`);
      }
      return entry;
    });
  }

  #corrupted(latent: number, what: string): MonosemError {
    return new MonosemError("ERR_FORMAT", `${this.#file.path}: the rows of latent ${latent} are corrupted: ${what}`);
  }
}

/** All that is read at once, by name and in the order of the checksum. */
async function readEager(
  file: SafetensorsFile,
  { identity, vocabularySize, tokens }: StoreHeader,
): Promise<Map<string, SafetensorsData>> {
  const { dSae } = identity;
  const refuse = (what: string): never => {
    throw new MonosemError("ERR_FORMAT", `${file.path}: ${what}`);
  };
  const tables = storeTables(identity.tokensBefore + 1 + identity.tokensAfter);
  const eager = new Map<string, SafetensorsData>();
  const read = async (name: string, dtype: string, length?: number): Promise<SafetensorsData> => {
    const entry = file.entries.get(name) ?? refuse(`there is no tensor "${name}"`);
    if (entry.dtype !== dtype || entry.shape.length !== 1 || (length !== undefined && entry.shape[0] !== length)) {
      refuse(`"${name}" is ${entry.dtype} [${entry.shape.join(", ")}], expected ${dtype} [${length ?? "n"}]`);
    }
    const { data } = await file.read(name);
    eager.set(name, data);
    return data;
  };
  for (const [name, { kind }] of Object.entries(latentColumns)) await read(`latents.${name}`, dtypeOf(kind), dSae);
  await read("latents.checksum", "U32", dSae);
  for (const table of tableNames) {
    const offsets = (await read(`${table}.offsets`, "U32", dSae + 1)) as Uint32Array;
    if (!areOffsets(offsets)) refuse(`"${table}.offsets" does not ascend from 0`);
    for (const [name, { kind, width }] of Object.entries(tables[table])) {
      const shape = [offsets[dSae]!, ...(width === 0 ? [] : [width])].join(", ");
      const entry = file.entries.get(`${table}.${name}`) ?? refuse(`there is no tensor "${table}.${name}"`);
      if (entry.dtype !== dtypeOf(kind) || entry.shape.join(", ") !== shape) {
        const found = `${entry.dtype} [${entry.shape.join(", ")}]`;
        refuse(`"${table}.${name}" is ${found}, expected ${dtypeOf(kind)} [${shape}]`);
      }
    }
  }
  const offsets = (await read("vocabulary.offsets", "U32", vocabularySize + 1)) as Uint32Array;
  if (!areOffsets(offsets)) refuse('"vocabulary.offsets" does not ascend from 0');
  await read("vocabulary.text", "U8", offsets[vocabularySize]);
  const ranking = (await read("ranking", "U32")) as Uint32Array;
  let checksum = 0;
  for (const data of eager.values()) checksum = checksumOf(data, checksum);
  const [expected] = (await read("checksum", "U32", 1)) as Uint32Array;
  if (checksum !== expected) refuse(`it is corrupted: its checksum is ${checksum}, not ${expected}`);
  if (ranking.some((latent) => latent >= dSae)) refuse(`"ranking" names a latent beyond ${dSae - 1}`);
  for (const name of Object.keys(latentColumns)) {
    const column = eager.get(`latents.${name}`) as Float64Array;
    if (!column.every(Number.isFinite)) refuse(`"latents.${name}" holds a number that is not finite`);
  }
  const counts = eager.get("latents.firingCount") as Float64Array;
  if (!counts.every((count) => Number.isInteger(count) && count >= 0 && count <= tokens)) {
    refuse(`"latents.firingCount" holds a count that is none of ${tokens} tokens`);
  }
  return eager;
}

function areOffsets(offsets: Uint32Array): boolean {
  return offsets[0] === 0 && offsets.every((offset, index) => index === 0 || offset >= offsets[index - 1]!);
}
