import type { Tensor } from "../engine/tensor.js";

/** A row of a dictionary and how similar it is to another. */
export interface NearRow {
  readonly row: number;
  readonly cosine: number;
}

/**
 * The rows of a dictionary that are most similar to each of its rows. Nothing of size rows² is written: they are found by
 * the fused encoder, with the dictionary as encoder and its own rows as inputs. Exact; a row of norm 0 has cosine 0 to all.
 */
export class NearestRows {
  readonly #unit: Tensor;
  readonly #zeros: Tensor;

  /** @param directions - [rows, width] */
  constructor(directions: Tensor) {
    this.#unit = directions.device.kernels.normaliseRows(directions);
    this.#zeros = directions.device.zeros([directions.shape[0]!]);
  }

  /** Of `rows` rows from `first` on the `count` most similar others, most similar first; of equals the lower. */
  async of(first: number, rows: number, count: number): Promise<NearRow[][]> {
    const { kernels } = this.#unit.device;
    const all = this.#unit.shape[0]!;
    using block = kernels.sliceRows(this.#unit, first, rows);
    // One of the most similar is the row itself, or another that is no less similar.
    using codes = kernels.encode(block, this.#unit, this.#zeros, { select: "topk", k: Math.min(count + 1, all) });
    const { rowOffsets, features, preActivations } = await codes.read();
    return Array.from({ length: rows }, (_, index) => {
      const near: NearRow[] = [];
      for (let entry = rowOffsets[index]!; entry < rowOffsets[index + 1]!; entry++) {
        const row = features[entry]!;
        if (row !== first + index) near.push({ row, cosine: Math.min(1, Math.max(-1, preActivations[entry]!)) });
      }
      return near.sort((a, b) => b.cosine - a.cosine || a.row - b.row).slice(0, count);
    });
  }

  [Symbol.dispose](): void {
    this.#unit.dispose();
    this.#zeros.dispose();
  }
}
