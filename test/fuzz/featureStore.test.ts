/**
 * Feature stores that somebody else has written: mutated bytes, mutated metadata, and numbers that are put into them with
 * checksums made to fit, so that the checks behind those are reached. Every input must be refused with ERR_FORMAT, or every
 * latent is read as a record of the right form.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { MonosemError } from "../../lib/errors.js";
import { bytesOf, checksumOf } from "../../lib/features/checksum.js";
import { FeatureStore } from "../../lib/features/featureStore.js";
import type { LatentRecord } from "../../lib/features/latentRecord.js";
import { latentColumns, type RowCounts, storeTables, tableNames, toRows } from "../../lib/features/storeTables.js";
import { writeFeatureStore } from "../../lib/features/writeFeatureStore.js";
import { type SafetensorsData, SafetensorsFile } from "../../lib/formats/safetensors.js";
import { type Below, mutated, random, runs as runsOfParsers, seed } from "./inputs.js";

const folder = mkdtempSync(join(tmpdir(), "monosem-fuzz-store-"));
afterAll(() => rmSync(folder, { recursive: true }));

/** Every input goes through a file, which takes longer than bytes in memory. */
const runs = Math.ceil(runsOfParsers / 10);
const [latents, words, window] = [3, 5, 4];
const path = join(folder, "features.safetensors");

function recordOf(latent: number): LatentRecord {
  const example = { context: latent, position: 2, peak: 1, activation: 2.5 };
  const tokens = Int32Array.of(0, 3, latent);
  const examples = [{ ...example, tokens, activations: Float32Array.of(0, 2.5, 0) }];
  return {
    latent,
    firingCount: 3,
    density: 0.3,
    maxActivation: 2.5,
    minActivation: 0,
    meanActivation: 1.5,
    histogram: { firstEdge: 0, binWidth: 1, counts: [1, 0, 2] },
    positions: { first: 1, last: 3, atStart: 0, atEnd: 1 },
    examples,
    negativeExamples: [],
    quantiles: [
      { low: 1, high: 2.5, share: 0.7, examples },
      { low: 0, high: 1, share: 0.3, examples: [] },
    ],
    tokens: [{ token: 3, count: 3, meanActivation: 1.5 }],
    documents: [{ document: 0, meanActivation: 0.2, tokens: new Int32Array(16).fill(1) }],
    coActive: [{ latent: (latent + 1) % latents, overlap: 0.5 }],
    neighbours: [{ latent: (latent + 2) % latents, cosine: -0.1 }],
    logits: {
      raised: [{ token: 1, effect: 0.5 }],
      lowered: [{ token: 2, effect: -0.5 }],
      histogram: { firstEdge: -0.5, binWidth: 0.1, counts: [2, 3] },
    },
  };
}

async function writeValid(): Promise<void> {
  await writeFeatureStore(path, {
    header: {
      formatVersion: 1,
      identity: {
        ...{ model: "m", tokenizer: "t", hooks: ["blocks.0.hook_resid_post"], sae: "s", architecture: "topk" },
        ...{
          dSae: latents,
          corpus: "c",
          contextSize: 8,
          prependBos: true,
          tokensAsked: 10,
          excludeSpecialTokens: true,
        },
        ...{ contextsPerBatch: 1, examplesPerLatent: 1, tokensBefore: 2, tokensAfter: 1, seed: 0 },
      },
      ...{ contexts: 2, tokens: 10, l0: 1, vocabularySize: words, specialTokens: [0], hasLogits: true },
      explainedVariance: 0.5,
    },
    vocabulary: ["<s>", " a", "é", "", "z"],
    ranking: [2, 0, 1],
    rowCounts: (latent) => {
      const { tables } = toRows(recordOf(latent));
      return Object.fromEntries(tableNames.map((name) => [name, tables[name].length])) as RowCounts;
    },
    records: async (first, count) => Array.from({ length: count }, (_, index) => recordOf(first + index)),
  });
}

interface StoreFile {
  readonly bytes: Buffer;
  readonly header: Record<string, { readonly dtype: string; readonly data_offsets: readonly [number, number] }>;
  readonly dataStart: number;
  readonly arrays: ReadonlyMap<string, SafetensorsData>;
}

async function validStore(): Promise<StoreFile> {
  await writeValid();
  const bytes = readFileSync(path);
  const dataStart = 8 + Number(bytes.readBigUInt64LE());
  await using file = await SafetensorsFile.open(path);
  const arrays = new Map<string, SafetensorsData>();
  for (const name of file.entries.keys()) arrays.set(name, (await file.read(name)).data);
  return { bytes, header: JSON.parse(bytes.toString("utf8", 8, dataStart)), dataStart, arrays };
}

const numbers = [0, 1, 2, 3, 4, 5, 6, 15, 16, 17, 255, 2 ** 31, 2 ** 32 - 1, -1, 0.5, Number.NaN, Infinity, 1e308];

/** In the order of the checksum. */
const readAtOnce = [
  ...Object.keys(latentColumns).map((name) => `latents.${name}`),
  "latents.checksum",
  ...tableNames.map((table) => `${table}.offsets`),
  ...["vocabulary.offsets", "vocabulary.text", "ranking"],
];

/** Up to three numbers changed, the checksums of the whole made to fit. */
function forged({ bytes, header, dataStart, arrays: valid }: StoreFile, below: Below): Buffer {
  const arrays = new Map([...valid].map(([name, data]) => [name, data.slice()]));
  const names = [...arrays.keys()].filter((name) => !name.includes("checksum"));
  for (let change = below(4); change > 0; change--) {
    const data = arrays.get(names[below(names.length)]!)!;
    if (data.length > 0) data[below(data.length)] = numbers[below(numbers.length)]! as never;
  }
  const tables = Object.entries(storeTables(window));
  for (let latent = 0; latent < latents; latent++) {
    let checksum = 0;
    for (const [table, columns] of tables) {
      const offsets = arrays.get(`${table}.offsets`)!;
      for (const [name, { width }] of Object.entries(columns)) {
        const [first, end] = [Number(offsets[latent]), Number(offsets[latent + 1])].map((row) => row * (width || 1));
        checksum = checksumOf(arrays.get(`${table}.${name}`)!.subarray(first, end), checksum);
      }
    }
    arrays.get("latents.checksum")![latent] = checksum as never;
  }
  let all = 0;
  for (const name of readAtOnce) all = checksumOf(arrays.get(name)!, all);
  arrays.get("checksum")![0] = all as never;
  const forgery = Buffer.from(bytes);
  for (const [name, data] of arrays) forgery.set(bytesOf(data), dataStart + header[name]!.data_offsets[0]);
  return forgery;
}

const tokens = [
  ...'{}[]:,"\\ 019-.e',
  "null",
  "true",
  "1e400",
  "9007199254740993",
  "4294967296",
  "__proto__",
  '\\"',
].map((token) => Buffer.from(token));

/** The header's text mutated, its length told as it is. */
function retold({ bytes, dataStart }: StoreFile, below: Below): Buffer {
  const header = mutated(bytes.subarray(8, dataStart), tokens, below);
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(header.length));
  return Buffer.concat([length, header, bytes.subarray(dataStart)]);
}

async function readAll(): Promise<void> {
  await using store = await FeatureStore.open(folder);
  const { dSae } = store.summary.identity;
  const { vocabularySize } = store.summary;
  for (let token = 0; token < vocabularySize; token++) expect(typeof store.tokenText(token)).toBe("string");
  for (const latent of store.summary.ranking) expect(latent).toBeLessThan(dSae);
  for (let latent = 0; latent < dSae; latent++) {
    const record = await store.latent(latent);
    const samples = record.quantiles.flatMap(({ examples }) => examples);
    for (const { tokens: ids, activations, peak } of [...record.examples, ...record.negativeExamples, ...samples]) {
      expect(peak).toBeLessThan(ids.length);
      expect(activations.length).toBe(ids.length);
      expect(activations.every(Number.isFinite)).toBe(true);
      for (const id of ids) expect(id >= 0 && id < vocabularySize).toBe(true);
    }
    for (const { latent: other } of [...record.coActive, ...record.neighbours]) expect(other).toBeLessThan(dSae);
    for (const { token } of record.tokens) expect(token >= 0 && token < vocabularySize).toBe(true);
  }
}

test(`${runs} mutated and forged feature stores are read or refused (seed ${seed})`, { timeout: 0 }, async () => {
  const store = await validStore();
  const below = random(seed);
  const ways = [
    (): Buffer => mutated(store.bytes, tokens, below),
    (): Buffer => retold(store, below),
    (): Buffer => forged(store, below),
  ];
  const valid = ways.map(() => 0);
  for (let run = 0; run < runs; run++) {
    const way = run % ways.length;
    const input = ways[way]!();
    writeFileSync(path, input);
    try {
      await readAll();
      valid[way]! += 1;
    } catch (error) {
      if (!(error instanceof MonosemError) || error.code !== "ERR_FORMAT") {
        throw new Error(`not refused properly: ${input.toString("base64")}`, { cause: error });
      }
    }
  }
  // Otherwise the changes never get past the first check, or never matter.
  for (const count of valid) {
    expect(count).toBeGreaterThan(runs / 100);
    expect(count).toBeLessThan((0.9 * runs) / ways.length);
  }
});
