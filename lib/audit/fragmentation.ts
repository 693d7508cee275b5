import { keyedNumber } from "../interpretation/keyedNumber.js";
import { type AuditSection, named } from "./auditReport.js";
import { type Audited, type EncodedTokens, latentsOfRow, rowCount, tokenInContext } from "./encodedTokens.js";
import type { SimilarPair } from "./overlap.js";

/** When two latents belong together. */
export const FRAGMENTS = {
  /** Their decoder rows have at least this cosine. */
  leastCosine: 0.5,
  /** And they fire in the same stretches of text: at least this correlation (phi). */
  leastPhi: 0.2,
  /** Tokens of a stretch. */
  stretch: 8,
  /** Decoder rows that each is compared with, the nearest. */
  neighbours: 16,
} as const;

const CASES = 5;
const SHOWN_LATENTS = 8;

/** Concepts that several latents share: clusters of latents that write alike and fire in the same places. */
export function auditFragmentation(
  tokens: EncodedTokens,
  pairs: readonly SimilarPair[],
  { sae, model }: Audited,
  seed: number,
): AuditSection {
  const { dSae } = sae.config;
  const { stretches, firing, strongest } = stretchesOf(tokens, dSae);
  const alive = Array.from({ length: dSae }, (_, latent) => latent).filter((latent) => firing[latent]!.length > 0);
  const candidates = pairs.filter(({ first, second }) => firing[first]!.length > 0 && firing[second]!.length > 0);
  const together = ({ first, second }: { readonly first: number; readonly second: number }): boolean =>
    phi(firing[first]!, firing[second]!, stretches) >= FRAGMENTS.leastPhi;
  const linked = candidates.filter(together);
  // The same number of pairs, of latents that have nothing in common but that they are alive.
  const random = candidates.map((_, index) => {
    const draw = (salt: number): number => alive[Math.floor(keyedNumber(seed, index, salt) * alive.length)]!;
    const [first, second] = [draw(0), draw(1)];
    return { first, second: first === second ? alive[(alive.indexOf(first) + 1) % alive.length]! : second };
  });
  const linkedByChance = random.filter((pair) => pair.first !== pair.second && together(pair));
  const clusters = connected(linked);
  const inClusters = (of: readonly (readonly number[])[]): number | null =>
    alive.length === 0 ? null : of.reduce((sum, cluster) => sum + cluster.length, 0) / alive.length;
  const largest = [...clusters].sort((a, b) => b.length - a.length || a[0]! - b[0]!);
  return {
    topic: "fragmentation",
    title: "Fragmentation of concepts",
    definition: `Two latents belong together if their decoder rows have a cosine of at least ${FRAGMENTS.leastCosine} and they fire in the same stretches of ${FRAGMENTS.stretch} tokens: the correlation of "fires in the stretch" (phi) is at least ${FRAGMENTS.leastPhi}. Clusters are the connected components. The baseline is the same for as many random pairs of latents that fire, whatever their decoder rows. A cluster is one concept in several latents: copies, or a split into finer ones.`,
    figures: [
      {
        name: "latents that fire, in clusters",
        value: inClusters(clusters),
        unit: "share",
        baseline: { name: "random pairs", value: inClusters(connected(linkedByChance)) },
        sample: { count: alive.length, of: named(alive.length, "latent that fires", "latents that fire") },
      },
      {
        name: "pairs of like decoder rows that fire together",
        value: candidates.length === 0 ? null : linked.length / candidates.length,
        unit: "share",
        baseline: {
          name: "random pairs",
          value: candidates.length === 0 ? null : linkedByChance.length / candidates.length,
        },
        sample: {
          count: candidates.length,
          of: `${named(candidates.length, "pair", "pairs")}, in ${stretches} ${named(stretches, "stretch", "stretches")}`,
        },
      },
      {
        name: "latents in the largest cluster",
        value: largest[0]?.length ?? 0,
        unit: "number",
        baseline: {
          name: "random pairs",
          value: connected(linkedByChance).reduce((most, { length }) => Math.max(most, length), 0),
        },
        sample: { count: clusters.length, of: named(clusters.length, "cluster", "clusters") },
      },
    ],
    cases: largest.slice(0, CASES).map((cluster) => {
      const shown = cluster.slice(0, SHOWN_LATENTS).join(", ");
      const more = cluster.length > SHOWN_LATENTS ? ` and ${cluster.length - SHOWN_LATENTS} more` : "";
      const peaks = cluster.slice(0, 3).map((latent) => tokenInContext(model, tokens, strongest[latent]!));
      return `latents ${shown}${more}: strongest on ${peaks.join(" · ")}`;
    }),
    data: { clusters: clusters.map((cluster) => [...cluster]) },
  };
}

interface Stretches {
  /** How many there are. */
  readonly stretches: number;
  /** Of each latent those that it fires in, ascending. */
  readonly firing: readonly (readonly number[])[];
  /** Of each latent the row of its largest activation; -1 where it never fires. */
  readonly strongest: Int32Array;
}

function stretchesOf(tokens: EncodedTokens, dSae: number): Stretches {
  const firing = Array.from({ length: dSae }, (): number[] => []);
  const strongest = new Int32Array(dSae).fill(-1);
  const most = new Float64Array(dSae);
  const numbers = new Map<string, number>();
  for (let row = 0; row < rowCount(tokens); row++) {
    const place = `${tokens.sequenceOf[row]}:${Math.floor(tokens.positionOf[row]! / FRAGMENTS.stretch)}`;
    const stretch = numbers.get(place) ?? numbers.size;
    numbers.set(place, stretch);
    for (const [latent, value] of latentsOfRow(tokens, row)) {
      if (firing[latent]!.at(-1) !== stretch) firing[latent]!.push(stretch);
      if (Math.abs(value) <= most[latent]!) continue;
      most[latent] = Math.abs(value);
      strongest[latent] = row;
    }
  }
  return { stretches: numbers.size, firing, strongest };
}

/** Correlation of two events, from the ascending numbers of the cases in which each happens; 0 where one always happens. */
export function phi(a: readonly number[], b: readonly number[], cases: number): number {
  let both = 0;
  for (let i = 0, j = 0; i < a.length && j < b.length; ) {
    if (a[i] === b[j]) {
      both += 1;
      i += 1;
      j += 1;
    } else if (a[i]! < b[j]!) i += 1;
    else j += 1;
  }
  const spread = Math.sqrt(a.length * (cases - a.length) * b.length * (cases - b.length));
  return spread === 0 ? 0 : (both * cases - a.length * b.length) / spread;
}

/** The connected components of two and more, each ascending, by their first member. */
export function connected(
  pairs: readonly { readonly first: number; readonly second: number }[],
): readonly (readonly number[])[] {
  const parent = new Map<number, number>();
  const rootOf = (node: number): number => {
    let root = node;
    while ((parent.get(root) ?? root) !== root) root = parent.get(root)!;
    parent.set(node, root);
    return root;
  };
  for (const { first, second } of pairs) {
    const [a, b] = [rootOf(first), rootOf(second)];
    parent.set(Math.max(a, b), Math.min(a, b));
    parent.set(Math.min(a, b), Math.min(a, b));
  }
  const members = new Map<number, number[]>();
  for (const node of [...parent.keys()].sort((a, b) => a - b)) {
    const root = rootOf(node);
    members.set(root, [...(members.get(root) ?? []), node]);
  }
  return [...members.values()];
}
