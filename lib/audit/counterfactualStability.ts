import { MonosemError } from "../errors.js";
import { keyedNumber } from "../interpretation/keyedNumber.js";
import { type AuditFigure, type AuditSection, counted, figureText, named } from "./auditReport.js";
import { type CounterfactualPair, commonTokens, EDITS } from "./counterfactualEdits.js";
import {
  type Audited,
  type EncodedTokens,
  encodeTokens,
  latentsOfRow,
  placeName,
  rowsByPlace,
} from "./encodedTokens.js";

export interface CounterfactualOptions {
  readonly pairs: readonly CounterfactualPair[];
  /** Most tokens of a text, BOS included. */
  readonly contextSize: number;
  readonly prependBos: boolean;
  readonly seed: number;
}

const PER_BATCH = 8;
/** A latent's stability is told from this many tokens on which it is active. */
const FEWEST_TOKENS = 10;
const CASES = 5;

/** How much the latents of tokens that an edit did not touch change with it. */
export async function auditCounterfactuals(
  { pairs, contextSize, prependBos, seed }: CounterfactualOptions,
  audited: Audited,
): Promise<AuditSection> {
  const { tokenizer, config } = audited.model;
  const idsOf = (text: string): number[] => {
    const bos = prependBos && config.bosTokenId !== undefined ? [config.bosTokenId] : [];
    return [...bos, ...tokenizer.encode(text)].slice(0, contextSize);
  };
  const originals = pairs.map(({ original }) => idsOf(original));
  const edited = pairs.map((pair) => idsOf(pair.edited));
  const empty = [...originals, ...edited].findIndex(({ length }) => length === 0);
  if (empty !== -1) throw new MonosemError("ERR_INVALID_ARGUMENT", "a text of a counterfactual pair is empty");
  const before = await encodeTokens(originals, audited, { perBatch: PER_BATCH, vectors: true });
  const after = await encodeTokens(edited, audited, { perBatch: PER_BATCH, vectors: true });
  const [rowsBefore, rowsAfter] = [rowsByPlace(before), rowsByPlace(after)];
  const compared = pairs.map((_, index) =>
    commonTokens(originals[index]!, edited[index]!).flatMap(([from, to]) => {
      const row = rowsBefore.get(placeName(index, from));
      const other = rowsAfter.get(placeName(index, to));
      return row === undefined || other === undefined ? [] : [[row, other] as const];
    }),
  );
  const latents = new LatentStability();
  const width = audited.sae.config.dIn;
  const edits = [...new Set(pairs.map(({ edit }) => edit))];
  const measured = edits.map((edit) => {
    const rows = compared.filter((_, index) => pairs[index]!.edit === edit).flat();
    const shuffled = rows.map(([row], index) => {
      const other = Math.floor(keyedNumber(seed, index) * rows.length);
      return [row, rows[other]![1]] as const;
    });
    const stability = overlapOf(rows, before, after, latents);
    const activations = meanCosine(rows, before, after, width);
    return {
      edit,
      pairs: pairs.filter((pair) => pair.edit === edit).length,
      tokens: rows.length,
      stability,
      stabilityByChance: overlapOf(shuffled, before, after),
      activations,
      activationsByChance: meanCosine(shuffled, before, after, width),
    };
  });
  const figures = measured.flatMap((one): AuditFigure[] => {
    const sample = {
      count: one.tokens,
      of: `${named(one.tokens, "token", "tokens")} of ${counted(one.pairs, "pair")}`,
    };
    return [
      {
        name: `latents kept, ${one.edit}`,
        value: one.stability,
        unit: "share",
        baseline: { name: "another token", value: one.stabilityByChance },
        sample,
      },
      {
        name: `cosine of the activations, ${one.edit}`,
        value: one.activations,
        unit: "number",
        baseline: { name: "another token", value: one.activationsByChance },
        sample,
      },
    ];
  });
  const worst = latents.least(FEWEST_TOKENS, CASES);
  const listed = edits.map((edit) => (EDITS[edit] === undefined ? edit : `${edit} (${EDITS[edit]})`)).join("; ");
  return {
    topic: "counterfactuals",
    title: "Counterfactual stability",
    definition: `Texts are changed in ways that should not matter to the rest of them: ${listed}. On the tokens that both texts have in common, latents kept is the sum of the smaller of a latent's two activations over the sum of the larger, over all latents and tokens: 100% if no activation changes. How much the SAE's input itself changes is the mean cosine of the activations. Both also for each token and another one of the edited texts, at random. What an edit changes rightly, such as positions, counts as well: compare with the activations.`,
    figures,
    cases: worst.map(
      ({ latent, stability, tokens }) =>
        `latent ${latent} keeps ${figureText(stability, "share")} of its activation on ${counted(tokens, "token")}`,
    ),
    ...(figures.length === 0 ? { notMeasured: "no edit applies to any of the texts" } : {}),
    data: { edits: measured, leastStable: worst },
  };
}

/** Sums of the smaller and of the larger activation of each latent. */
class LatentStability {
  readonly #sums: Map<number, { smaller: number; larger: number; tokens: number }> = new Map();

  add(latent: number, smaller: number, larger: number): void {
    const sum = this.#sums.get(latent) ?? { smaller: 0, larger: 0, tokens: 0 };
    sum.smaller += smaller;
    sum.larger += larger;
    sum.tokens += 1;
    this.#sums.set(latent, sum);
  }

  /** Those that keep least, of those on `tokens` tokens at least. */
  least(tokens: number, count: number): { latent: number; stability: number; tokens: number }[] {
    return Array.from(this.#sums, ([latent, sum]) => ({
      latent,
      stability: sum.smaller / sum.larger,
      tokens: sum.tokens,
    }))
      .filter((one) => one.tokens >= tokens)
      .sort((a, b) => a.stability - b.stability || a.latent - b.latent)
      .slice(0, count);
  }
}

/** Σ min / Σ max over pairs of rows; activations of opposite sign have nothing in common. */
function overlapOf(
  pairs: readonly (readonly [number, number])[],
  before: EncodedTokens,
  after: EncodedTokens,
  latents?: LatentStability,
): number | null {
  let [smaller, larger] = [0, 0];
  for (const [row, other] of pairs) {
    const [one, two] = [latentsOfRow(before, row), latentsOfRow(after, other)];
    for (const latent of new Set([...one.keys(), ...two.keys()])) {
      const [a, b] = [one.get(latent) ?? 0, two.get(latent) ?? 0];
      const most = a * b < 0 ? Math.abs(a) + Math.abs(b) : Math.max(Math.abs(a), Math.abs(b));
      const least = a * b < 0 ? 0 : Math.min(Math.abs(a), Math.abs(b));
      smaller += least;
      larger += most;
      latents?.add(latent, least, most);
    }
  }
  return larger === 0 ? null : smaller / larger;
}

function meanCosine(
  pairs: readonly (readonly [number, number])[],
  before: EncodedTokens,
  after: EncodedTokens,
  width: number,
): number | null {
  let sum = 0;
  for (const [row, other] of pairs) {
    const a = before.inputs.subarray(row * width, (row + 1) * width);
    const b = after.inputs.subarray(other * width, (other + 1) * width);
    let [product, squareA, squareB] = [0, 0, 0];
    for (let i = 0; i < width; i++) {
      product += a[i]! * b[i]!;
      squareA += a[i]! ** 2;
      squareB += b[i]! ** 2;
    }
    sum += product / Math.sqrt(squareA * squareB || 1);
  }
  return pairs.length === 0 ? null : sum / pairs.length;
}
