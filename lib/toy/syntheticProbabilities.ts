/** How often the features of synthetic data fire, before and after making up for their hierarchy. */
import type { SyntheticConfig } from "./syntheticConfig.js";

/** Zipf's law, shifted and stretched to reach from `max` to `min` ([features], falling). */
export function zipfProbabilities({ features, probabilities }: SyntheticConfig): Float64Array {
  const { exponent, min, max } = probabilities;
  const lowest = features ** -exponent;
  const stretch = features === 1 ? 0 : (max - min) / (1 - lowest);
  return Float64Array.from({ length: features }, (_, i) =>
    features === 1 ? max : min + stretch * ((i + 1) ** -exponent - lowest),
  );
}

/** The parent of every feature, [features]; -1 where there is none. */
export function hierarchyParents({ features, hierarchy }: SyntheticConfig): Int32Array {
  const { roots, children, depth } = hierarchy;
  const parents = new Int32Array(features).fill(-1);
  let level = { begin: 0, end: Math.min(roots, features) };
  for (let below = 1; below <= depth; below++) {
    const end = Math.min(level.end + (level.end - level.begin) * children, features);
    for (let i = level.end; i < end; i++) parents[i] = level.begin + Math.floor((i - level.end) / children);
    level = { begin: level.end, end };
  }
  return parents;
}

/**
 * The probabilities to draw with, so that features fire about as often as `base` says although a child fires only
 * together with its parent (1 / p of the parent) and only one child at a time (1 + the siblings that would fire as well,
 * given the parent); at most 1.
 */
export function compensatedProbabilities(base: Float64Array, parents: Int32Array): Float64Array {
  const ofChildren = new Float64Array(base.length);
  const children = new Uint32Array(base.length);
  for (const [feature, parent] of parents.entries()) {
    if (parent < 0) continue;
    ofChildren[parent]! += base[feature]!;
    children[parent]!++;
  }
  return base.map((probability, feature) => {
    const parent = parents[feature]!;
    if (parent < 0 || base[parent] === 0) return probability;
    const siblings = children[parent]! > 1 ? Math.max(0, ofChildren[parent]! - probability) : 0;
    return Math.min(1, (probability / base[parent]!) * (1 + siblings / base[parent]!));
  });
}
