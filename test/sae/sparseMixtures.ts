import type { Sae } from "../../lib/sae/sae.js";

export interface SparseMixtures {
  /** [rows, dIn] */
  readonly activations: Float32Array;
  /** Mean over the true features of the largest cosine that a decoder row has with them. */
  meanBestCosine(sae: Sae): Promise<number>;
}

/** Activations that are sums of a few of more directions than there are dimensions, with magnitudes from 0.5 to 1.5. */
export function sparseMixtures(options: {
  readonly features: number;
  readonly dIn: number;
  /** Features per activation. */
  readonly active: number;
  readonly rows: number;
  readonly seed: number;
}): SparseMixtures {
  const { features, dIn, active, rows, seed } = options;
  const random = mulberry32(seed);
  const directions = Array.from({ length: features }, () => {
    const row = Array.from({ length: dIn }, () => random() + random() + random() - 1.5);
    const norm = Math.hypot(...row);
    return row.map((value) => value / norm);
  });
  const activations = new Float32Array(rows * dIn);
  for (let row = 0; row < rows; row++) {
    for (let n = 0; n < active; n++) {
      const direction = directions[Math.floor(random() * features)]!;
      const magnitude = 0.5 + random();
      for (let d = 0; d < dIn; d++) activations[row * dIn + d]! += magnitude * direction[d]!;
    }
  }
  return {
    activations,
    async meanBestCosine(sae) {
      const decoder = await sae.parameters.decoder.readFloat32();
      const rowsOfDecoder = Array.from({ length: decoder.length / dIn }, (_, i) =>
        Array.from(decoder.subarray(i * dIn, (i + 1) * dIn)),
      );
      const best = directions.map((direction) =>
        Math.max(
          ...rowsOfDecoder.map(
            (row) => row.reduce((sum, value, d) => sum + value * direction[d]!, 0) / Math.hypot(...row),
          ),
        ),
      );
      return best.reduce((sum, cosine) => sum + cosine, 0) / features;
    },
  };
}

/** A small generator of uniform numbers in [0, 1). */
function mulberry32(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
}
