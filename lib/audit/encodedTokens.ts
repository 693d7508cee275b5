import type { SaeHooks } from "../analysis/saeHook.js";
import { throwIfAborted } from "../errors.js";
import type { HookedTransformer } from "../models/hookedTransformer.js";
import { paddedBehind } from "../models/tokens.js";
import type { Sae } from "../sae/sae.js";

/** What is audited. */
export interface Audited {
  readonly sae: Sae;
  readonly model: HookedTransformer;
  readonly hooks: SaeHooks;
  readonly signal?: AbortSignal | undefined;
}

/** The tokens of some sequences with their latents. Special tokens do not count and are not among them. */
export interface EncodedTokens {
  readonly sequences: readonly (readonly number[] | Int32Array)[];
  /** Of each row: its sequence, and its position there. */
  readonly sequenceOf: Uint32Array;
  readonly positionOf: Uint32Array;
  /** [rows + 1]: the entries of row r are from rowOffsets[r] to rowOffsets[r + 1]; none is 0. */
  readonly rowOffsets: Float64Array;
  readonly features: Uint32Array;
  readonly values: Float32Array;
  /** What the SAE reads and what it makes of that, [rows, width], if asked for. */
  readonly inputs: Float32Array;
  readonly reconstructions: Float32Array;
}

export interface EncodeOptions {
  /** Sequences that go through the model at once, padded behind to the longest of them. */
  readonly perBatch: number;
  /** Keep inputs and reconstructions, too: 4 bytes a number. */
  readonly vectors?: boolean;
  readonly onProgress?: ((done: { readonly sequences: number }) => void) | undefined;
}

/** Runs sequences through the model and the SAE. Per latent that fires 8 bytes are kept. */
export async function encodeTokens(
  sequences: readonly (readonly number[] | Int32Array)[],
  { sae, model, hooks, signal }: Audited,
  { perBatch, vectors = false, onProgress }: EncodeOptions,
): Promise<EncodedTokens> {
  const special = model.tokenizer.specialTokenIds;
  const parts = { sequenceOf: [] as number[], positionOf: [] as number[], rowOffsets: [0] };
  const entries: { features: number[]; values: number[] } = { features: [], values: [] };
  const [inputs, reconstructions]: [Float32Array[], Float32Array[]] = [[], []];
  for (let first = 0; first < sequences.length; first += perBatch) {
    throwIfAborted(signal, "the audit");
    const batch = sequences.slice(first, first + perBatch);
    const padded = paddedBehind(batch);
    const positions = padded[0]!.length;
    const rows: number[] = [];
    batch.forEach((ids, index) => {
      ids.forEach((id, position) => {
        if (special.has(id)) return;
        rows.push(index * positions + position);
        parts.sequenceOf.push(first + index);
        parts.positionOf.push(position);
      });
    });
    if (rows.length === 0) continue;
    using all = await model.activations(padded, hooks.input);
    using places = sae.device.tensor(Int32Array.from(rows), [rows.length]);
    using x = sae.device.kernels.gatherRows(all, places);
    using codes = sae.encode(x);
    const { rowOffsets, features, values } = await codes.read();
    for (let row = 0; row < rows.length; row++) {
      for (let entry = rowOffsets[row]!; entry < rowOffsets[row + 1]!; entry++) {
        if (values[entry] === 0) continue; // selected, but not active
        entries.features.push(features[entry]!);
        entries.values.push(values[entry]!);
      }
      parts.rowOffsets.push(entries.features.length);
    }
    if (vectors) {
      using reconstruction = sae.decode(codes, x);
      const [input, output] = await Promise.all([x.readFloat32(), reconstruction.readFloat32()]);
      inputs.push(input);
      reconstructions.push(output);
    }
    onProgress?.({ sequences: first + batch.length });
  }
  return {
    sequences,
    sequenceOf: Uint32Array.from(parts.sequenceOf),
    positionOf: Uint32Array.from(parts.positionOf),
    rowOffsets: Float64Array.from(parts.rowOffsets),
    features: Uint32Array.from(entries.features),
    values: Float32Array.from(entries.values),
    inputs: joined(inputs),
    reconstructions: joined(reconstructions),
  };
}

function joined(parts: readonly Float32Array[]): Float32Array {
  const all = new Float32Array(parts.reduce((sum, { length }) => sum + length, 0));
  let next = 0;
  for (const part of parts) {
    all.set(part, next);
    next += part.length;
  }
  return all;
}

/** The latents of a row with their values. */
export function latentsOfRow({ rowOffsets, features, values }: EncodedTokens, row: number): Map<number, number> {
  const latents = new Map<number, number>();
  for (let entry = rowOffsets[row]!; entry < rowOffsets[row + 1]!; entry++)
    latents.set(features[entry]!, values[entry]!);
  return latents;
}

/** A place in the text, as a key. */
export function placeName(sequence: number, position: number): string {
  return `${sequence}:${position}`;
}

/** The row at each place that has one. */
export function rowsByPlace({ sequenceOf, positionOf }: EncodedTokens): ReadonlyMap<string, number> {
  return new Map(Array.from(sequenceOf, (sequence, row) => [placeName(sequence, positionOf[row]!), row]));
}

/** How many rows there are. */
export function rowCount({ sequenceOf }: EncodedTokens): number {
  return sequenceOf.length;
}

/** Text of a token with some before it, for people. */
export function tokenInContext({ tokenizer }: HookedTransformer, tokens: EncodedTokens, row: number): string {
  const sequence = tokens.sequences[tokens.sequenceOf[row]!]!;
  const position = tokens.positionOf[row]!;
  const before = sequence.slice(Math.max(0, position - 4), position);
  const shown = Array.from(before).filter((id) => !tokenizer.specialTokenIds.has(id));
  return `${shown.map((id) => tokenizer.tokenText(id)).join("")}[${tokenizer.tokenText(sequence[position]!)}]`;
}
