/** The manifest.json of a folder of stored activations. */
import { basename, join } from "node:path";
import { z } from "zod";
import { MonosemError } from "../errors.js";
import { writeFileAtomically } from "../formats/atomicFile.js";
import { readJsonFile } from "../formats/jsonFile.js";
import type { ModelConfig } from "../models/modelConfig.js";
import { checkedBy } from "../schemaMessages.js";
import type { ContextPosition } from "./contexts.js";

export const manifestName = "manifest.json";

const count: z.ZodNumber = z.number().int().nonnegative();

/** What a folder of stored activations says about itself. */
export interface ActivationManifest {
  readonly formatVersion: 1;
  /** Name of the model. */
  readonly model: string;
  readonly hook: string;
  /** SHA-256 of the texts of all its tokens, in order of their ids. */
  readonly tokenizer: string;
  /** Fingerprint of the corpus. */
  readonly corpus: string;
  readonly contextSize: number;
  readonly prependBos: boolean;
  readonly excludeSpecialTokens: boolean;
  /** Of the model's weights; those that were stored by earlier versions do not say. */
  readonly processing?: ModelConfig["processing"] | undefined;
  /** Name of the tensor in every shard. */
  readonly tensor: string;
  readonly dtype: "F32" | "F16" | "BF16";
  readonly dIn: number;
  /** Rows in all shards together. */
  readonly rows: number;
  readonly shards: readonly { readonly file: string; readonly rows: number }[];
  /** Whether everything that was asked for is stored; otherwise storing can be continued. */
  readonly complete: boolean;
  /** Where in the corpus storing continues. */
  readonly position: ContextPosition;
}

const manifestSchema: z.ZodType<ActivationManifest> = z.strictObject({
  formatVersion: z.literal(1),
  model: z.string(),
  hook: z.string(),
  tokenizer: z.string(),
  corpus: z.string(),
  contextSize: count,
  prependBos: z.boolean(),
  excludeSpecialTokens: z.boolean(),
  processing: z
    .strictObject({
      foldLn: z.boolean(),
      centerWritingWeights: z.boolean(),
      centerUnembed: z.boolean(),
      foldValueBiases: z.boolean(),
    })
    .optional(),
  tensor: z.string(),
  dtype: z.enum(["F32", "F16", "BF16"]),
  dIn: count,
  rows: count,
  shards: z.array(z.strictObject({ file: z.string(), rows: count })),
  complete: z.boolean(),
  position: z.strictObject({ epoch: count, document: count, piece: count, token: count }),
});

/**
 * Reads and checks a folder's manifest; undefined where there is none.
 *
 * @throws MonosemError ERR_FORMAT for a malformed manifest, a shard outside the folder, or rows that do not add up;
 *   ERR_IO
 */
export async function readManifest(directory: string): Promise<ActivationManifest | undefined> {
  const path = join(directory, manifestName);
  let json: unknown;
  try {
    json = await readJsonFile(path);
  } catch (error) {
    if (error instanceof MonosemError && error.code === "ERR_NOT_FOUND") return undefined;
    throw error;
  }
  const parsed = checkedBy(manifestSchema, json);
  if (!parsed.success) throw new MonosemError("ERR_FORMAT", `${path}: ${parsed.problems.join("; ")}`);
  const manifest = parsed.data;
  const rows = manifest.shards.reduce((sum, shard) => sum + shard.rows, 0);
  if (rows !== manifest.rows) {
    throw new MonosemError("ERR_FORMAT", `${path} says ${manifest.rows} rows, but its shards have ${rows}`);
  }
  for (const { file } of manifest.shards) {
    if (file !== basename(file) || file.startsWith(".")) {
      throw new MonosemError("ERR_FORMAT", `${path} names the shard ${JSON.stringify(file)}, not a file beside it`);
    }
  }
  return manifest;
}

/** Writes a folder's manifest, atomically. */
export async function writeManifest(directory: string, manifest: ActivationManifest): Promise<void> {
  await writeFileAtomically(join(directory, manifestName), `${JSON.stringify(manifest, null, 2)}\n`);
}
