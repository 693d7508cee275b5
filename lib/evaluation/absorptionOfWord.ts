/** What counts as absorption: thresholds of SAEBench's first-letter evaluation (Chanin et al. 2024, arXiv:2409.14507). */
export const ABSORPTION = {
  /** Full: the latent that stands in for the main ones has at least this cosine with the probe. */
  fullCosine: 0.025,
  /** Fraction: each latent that stands in has at least this cosine with the probe. */
  fractionCosine: 0.1,
  /** What stands in is at least this share of the activation's projection onto the probe. */
  leastShare: 0.4,
  /** Fraction: at most so many latents stand in together. */
  mostAbsorbers: 3,
} as const;

/** A latent below this does not fire. */
const SILENT = 1e-8;

export interface WordAbsorption {
  /**
   * The share of the concept's part in the activation that other latents carry in place of the main ones, 0 to 1.
   */
  readonly fraction: number;
  /** Whether no main latent fires and one other latent stands in for them. */
  readonly full: boolean;
}

/**
 * How far latents that are not meant for a concept have taken it over on one word that has it. Every latent has a
 * projection, activation x cosine of its decoder row with the concept's probe.
 *
 * @param word.projection - of the activation onto the probe's direction, of norm 1
 * @param word.latents - the latents that fire on the word, and their values
 * @param word.cosines - [dSae], of every decoder row with the probe
 * @param word.mainLatents - those that stand for the concept elsewhere
 */
export function absorptionOfWord({
  projection,
  latents,
  cosines,
  mainLatents,
}: {
  readonly projection: number;
  readonly latents: { readonly indices: ArrayLike<number>; readonly values: ArrayLike<number> };
  readonly cosines: Float64Array;
  readonly mainLatents: ReadonlySet<number>;
}): WordAbsorption {
  let main = 0;
  let mainFires = false;
  let top = { cosine: 0, projection: 0 };
  const others: number[] = [];
  for (let i = 0; i < latents.indices.length; i++) {
    const latent = latents.indices[i]!;
    const cosine = cosines[latent]!;
    const projected = latents.values[i]! * cosine;
    if (projected > top.projection) top = { cosine, projection: projected };
    if (mainLatents.has(latent)) {
      main += projected;
      mainFires ||= latents.values[i]! >= SILENT;
    } else if (cosine >= ABSORPTION.fractionCosine && projected > 0) {
      others.push(projected);
    }
  }
  if (!(projection > 0)) return { fraction: 0, full: false };
  const full =
    !mainFires && top.cosine >= ABSORPTION.fullCosine && top.projection / projection >= ABSORPTION.leastShare;
  const absorbed = others
    .sort((a, b) => b - a)
    .slice(0, ABSORPTION.mostAbsorbers)
    .reduce((sum, value) => sum + value, 0);
  if (main >= projection || absorbed / projection < ABSORPTION.leastShare) return { fraction: 0, full };
  if (main <= 0) return { fraction: 1, full };
  const replaced = Math.min(absorbed, projection - main);
  return { fraction: replaced / (replaced + main), full };
}
