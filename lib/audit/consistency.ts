import { keyedNumber } from "../interpretation/keyedNumber.js";
import { type AuditSection, named } from "./auditReport.js";
import {
  type Audited,
  type EncodedTokens,
  encodeTokens,
  latentsOfRow,
  placeName,
  rowCount,
  rowsByPlace,
} from "./encodedTokens.js";

/** Sequences that are run again, and how many of them go through the model at once in the first run. */
const MOST_SEQUENCES = 32;
const PER_BATCH = 8;

/**
 * Runs the same text again, in batches of the same and of other shapes, and compares the latents and reconstructions of
 * each token.
 */
export async function auditConsistency(
  contexts: readonly Int32Array[],
  audited: Audited,
  seed: number,
): Promise<AuditSection> {
  const sequences = contexts.slice(0, MOST_SEQUENCES);
  const run = (perBatch: number, of: readonly Int32Array[]) => encodeTokens(of, audited, { perBatch, vectors: true });
  const reference = await run(PER_BATCH, sequences);
  const longest = Math.max(...sequences.map(({ length }) => length));
  const variations = [
    ["repeated", await run(PER_BATCH, sequences)],
    ["one text at a time", await run(1, sequences)],
    ["beside other texts", await run(3, sequences)],
    // Half of each text at most: what a token sees before it is the same, the shape is another.
    [
      "cut shorter",
      await run(
        PER_BATCH,
        sequences.map((ids) => ids.slice(0, Math.max(2, Math.ceil(longest / 2)))),
      ),
    ],
  ] as const;
  const width = audited.sae.config.dOut;
  const chance = compare(reference, reference, width, (row) =>
    Math.floor(keyedNumber(seed, row) * rowCount(reference)),
  );
  const figures = variations.flatMap(([name, tokens]) => {
    const rowOf = rowsByPlace(tokens);
    const found = compare(reference, tokens, width, (row) =>
      rowOf.get(placeName(reference.sequenceOf[row]!, reference.positionOf[row]!)),
    );
    const sample = { count: found.rows, of: named(found.rows, "token", "tokens") };
    return [
      {
        name: `the same latents, ${name}`,
        value: found.sameLatents,
        unit: "share" as const,
        baseline: { name: "another token", value: chance.sameLatents },
        sample,
      },
      {
        name: `largest change of a reconstruction, ${name}`,
        value: found.largestChange,
        unit: "number" as const,
        baseline: { name: "mean, another token", value: chance.meanChange },
        sample,
      },
    ];
  });
  return {
    topic: "consistency",
    title: "Consistency of reconstructions",
    definition:
      "The same tokens are run again: in the same batches, one text at a time, beside other texts (batches of 3 in place of 8), and in texts cut to half the length. The share of tokens that have exactly the same active latents; and the norm of the difference of the two reconstructions of a token, relative to its reconstruction's norm, the largest of all tokens. 100% and 0 are exact; rounding in another order gives about 0.000001.",
    figures,
    cases: [],
    data: {},
  };
}

/** Compares rows of `a` with those of `b` that `partner` names. */
function compare(
  a: EncodedTokens,
  b: EncodedTokens,
  width: number,
  partner: (row: number) => number | undefined,
): {
  readonly rows: number;
  readonly sameLatents: number | null;
  readonly largestChange: number | null;
  readonly meanChange: number | null;
} {
  let [rows, same, largest, total] = [0, 0, 0, 0];
  for (let row = 0; row < rowCount(a); row++) {
    const other = partner(row);
    if (other === undefined) continue;
    rows += 1;
    const [one, two] = [latentsOfRow(a, row), latentsOfRow(b, other)];
    if (one.size === two.size && [...one.keys()].every((latent) => two.has(latent))) same += 1;
    const change = relativeDifference(
      a.reconstructions.subarray(row * width, (row + 1) * width),
      b.reconstructions.subarray(other * width, (other + 1) * width),
    );
    largest = Math.max(largest, change);
    total += change;
  }
  if (rows === 0) return { rows, sameLatents: null, largestChange: null, meanChange: null };
  return { rows, sameLatents: same / rows, largestChange: largest, meanChange: total / rows };
}

/** |a - b| / |a|; 0 where they are equal. */
function relativeDifference(a: Float32Array, b: Float32Array): number {
  let [difference, square] = [0, 0];
  for (let i = 0; i < a.length; i++) {
    difference += (a[i]! - b[i]!) ** 2;
    square += a[i]! ** 2;
  }
  return difference === 0 ? 0 : Math.sqrt(difference / square);
}
