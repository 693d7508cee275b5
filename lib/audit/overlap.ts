import type { Tensor } from "../engine/tensor.js";
import { throwIfAborted } from "../errors.js";
import { dictionaryGeometry } from "../sae/dictionaryGeometry.js";
import { NearestRows } from "../sae/nearestRows.js";
import { Sae } from "../sae/sae.js";
import { type AuditSection, named } from "./auditReport.js";
import type { Audited } from "./encodedTokens.js";

/** Rows this similar are called near duplicates. */
const DUPLICATE = 0.9;
const CASES = 5;

/** How alike latents are by what they write and by what they read. */
export async function auditOverlap(
  pairs: readonly SimilarPair[],
  { sae, signal }: Audited,
  seed: number,
): Promise<AuditSection> {
  const options = signal === undefined ? {} : { signal };
  const { maxDecoderCosine, maxEncoderCosine } = await dictionaryGeometry(sae, options);
  const { dIn, dOut, dSae } = sae.config;
  const random = async (width: number): Promise<Float64Array> => {
    const config = { architecture: "relu" as const, dIn: width, dSae, applyBDecToInput: false };
    using directions = Sae.create(config, sae.device, seed);
    return (await dictionaryGeometry(directions, options)).maxDecoderCosine;
  };
  const randomDecoder = await random(dOut);
  const randomEncoder = dIn === dOut ? randomDecoder : await random(dIn);
  const sample = { count: dSae, of: named(dSae, "latent", "latents") };
  const figures = [
    ["decoder", maxDecoderCosine, randomDecoder] as const,
    ["encoder", maxEncoderCosine, randomEncoder] as const,
  ].flatMap(([what, found, byChance]) => [
    {
      name: `largest cosine with another ${what} row, mean`,
      value: mean(found),
      unit: "number" as const,
      baseline: { name: "random directions", value: mean(byChance) },
      sample,
    },
    {
      name: `${what} rows with one of cosine ${DUPLICATE} or more`,
      value: shareAbove(found, DUPLICATE),
      unit: "share" as const,
      baseline: { name: "random directions", value: shareAbove(byChance, DUPLICATE) },
      sample,
    },
  ]);
  return {
    topic: "overlap",
    title: "Overlap of latents",
    definition:
      "Of each latent the largest cosine of its decoder row, and of its encoder row, with any other latent's. The baseline is the same of as many random directions in as many dimensions. Two latents with nearly the same decoder row write the same; with nearly the same encoder row they fire together.",
    figures,
    cases: [...pairs]
      .sort((a, b) => b.cosine - a.cosine || a.first - b.first)
      .slice(0, CASES)
      .map(
        ({ first, second, cosine }) => `decoder rows of latents ${first} and ${second}: cosine ${cosine.toFixed(3)}`,
      ),
    data: {
      maxDecoderCosine: Array.from(maxDecoderCosine, rounded),
      maxEncoderCosine: Array.from(maxEncoderCosine, rounded),
    },
  };
}

/** Two latents, first < second, and the cosine of their decoder rows. */
export interface SimilarPair {
  readonly first: number;
  readonly second: number;
  readonly cosine: number;
}

const BLOCK_ROWS = 1024;

/**
 * Pairs of latents whose decoder rows have at least a cosine, each latent with at most `neighbours` others. Nothing of
 * size dSae² is made.
 *
 * @throws MonosemError ERR_ABORTED
 */
export async function similarPairs(
  decoder: Tensor,
  {
    least,
    neighbours,
    signal,
  }: { readonly least: number; readonly neighbours: number; readonly signal?: AbortSignal | undefined },
): Promise<readonly SimilarPair[]> {
  const count = decoder.shape[0]!;
  using nearest = new NearestRows(decoder);
  const pairs = new Map<string, SimilarPair>();
  for (let start = 0; start < count; start += BLOCK_ROWS) {
    throwIfAborted(signal, "the audit");
    const block = await nearest.of(start, Math.min(BLOCK_ROWS, count - start), neighbours);
    for (const [index, near] of block.entries()) {
      for (const { row, cosine } of near) {
        if (cosine < least) continue;
        const [first, second] = [Math.min(start + index, row), Math.max(start + index, row)];
        pairs.set(`${first}:${second}`, { first, second, cosine });
      }
    }
  }
  return [...pairs.values()].sort((a, b) => a.first - b.first || a.second - b.second);
}

/** Of the numbers that are there: a dictionary of one latent has none. */
function mean(values: Float64Array): number | null {
  const known = values.filter((value) => !Number.isNaN(value));
  return known.length === 0 ? null : known.reduce((sum, value) => sum + value, 0) / known.length;
}

function shareAbove(values: Float64Array, least: number): number {
  return values.filter((value) => value >= least).length / values.length;
}

function rounded(value: number): number | null {
  return Number.isNaN(value) ? null : Number(value.toFixed(6));
}
