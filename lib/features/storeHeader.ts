/** What a feature store says about itself, in the metadata of its file. */
import { z } from "zod";
import { MonosemError } from "../errors.js";
import { parseJsonText } from "../formats/jsonText.js";
import type { SafetensorsFile } from "../formats/safetensors.js";
import { checkedBy } from "../schemaMessages.js";

/** The files of a store's folder: of a finished one the first, of an interrupted one the second. */
export const storeFile = "features.safetensors";
export const stateFile = "unfinished.safetensors";

const count: z.ZodNumber = z.number().int().nonnegative();

/** What the pass was made with: a pass goes on only with the same. */
export interface PassIdentity {
  /** Name of the model. */
  readonly model: string;
  /** SHA-256 of the texts of all its tokens, in order of their ids. */
  readonly tokenizer: string;
  readonly hooks: readonly string[];
  /** SHA-256 of the SAE's configuration and weights. */
  readonly sae: string;
  readonly architecture: string;
  readonly dSae: number;
  /** Fingerprint of the corpus. */
  readonly corpus: string;
  readonly contextSize: number;
  readonly prependBos: boolean;
  /** Tokens of the corpus that were asked for. */
  readonly tokensAsked: number;
  readonly excludeSpecialTokens: boolean;
  readonly contextsPerBatch: number;
  readonly examplesPerLatent: number;
  readonly tokensBefore: number;
  readonly tokensAfter: number;
  readonly seed: number;
}

export const identitySchema: z.ZodType<PassIdentity> = z.strictObject({
  model: z.string(),
  tokenizer: z.string(),
  hooks: z.array(z.string()),
  sae: z.string(),
  architecture: z.string(),
  dSae: count.positive(),
  corpus: z.string(),
  contextSize: count.positive(),
  prependBos: z.boolean(),
  tokensAsked: count,
  excludeSpecialTokens: z.boolean(),
  contextsPerBatch: count.positive(),
  examplesPerLatent: count,
  tokensBefore: count,
  tokensAfter: count,
  seed: count,
});

/** What a finished store says about itself. */
export interface StoreHeader {
  readonly formatVersion: 1;
  readonly identity: PassIdentity;
  readonly contexts: number;
  /** Tokens that count. */
  readonly tokens: number;
  /** Active latents per counted token, on average. */
  readonly l0: number;
  readonly vocabularySize: number;
  /** Ids of tokens that are no text, such as BOS. */
  readonly specialTokens: readonly number[];
  /** Whether the SAE writes to the residual stream, so that latents have logit effects. */
  readonly hasLogits: boolean;
  /** null where the activations do not vary. */
  readonly explainedVariance: number | null;
}

const headerSchema: z.ZodType<StoreHeader> = z.strictObject({
  formatVersion: z.literal(1),
  identity: identitySchema,
  contexts: count,
  tokens: count.positive(),
  l0: z.number().nonnegative(),
  vocabularySize: count.positive(),
  specialTokens: z.array(count),
  hasLogits: z.boolean(),
  explainedVariance: z.number().nullable(),
});

/** The key of the header in the metadata of features.safetensors. */
const headerKey = "monosem.features";

export function headerMetadata(header: StoreHeader): Record<string, string> {
  return { [headerKey]: JSON.stringify(header) };
}

/** @throws MonosemError ERR_FORMAT */
export function readHeader({ path, metadata }: SafetensorsFile): StoreHeader {
  const text = metadata[headerKey];
  if (text === undefined) {
    throw new MonosemError("ERR_FORMAT", `${path} holds no features: its metadata have no "${headerKey}"`);
  }
  return parsedMetadata(path, text, headerSchema);
}

/** Metadata that are JSON of a known shape. */
export function parsedMetadata<Value>(path: string, text: string, schema: z.ZodType<Value>): Value {
  const parsed = checkedBy(schema, parseJsonText(text, `the metadata of ${path}`));
  if (parsed.success) return parsed.data;
  throw new MonosemError("ERR_FORMAT", `the metadata of ${path}: ${parsed.problems.join("; ")}`);
}
