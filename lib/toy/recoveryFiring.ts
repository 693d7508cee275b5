/** How well the firing of latents tells the firing of true features. */
import type { CodesContent } from "../engine/codes.js";

export interface FiringRecovery {
  /** Means over the latents; where one is undefined (a latent or a feature that never fires) it counts as 0. */
  readonly precision: number;
  readonly recall: number;
  readonly f1: number;
  /** Latents that never fired. */
  readonly deadLatents: number;
  /** Mean number of true features that fire in a sample. */
  readonly trueL0: number;
}

/** Counts, batch by batch, when each latent fires and when the feature does that it is taken for. */
export class FiringCounts {
  readonly #featureOf: Uint32Array;
  readonly #latentFired: Float64Array;
  readonly #featureFired: Float64Array;
  readonly #bothFired: Float64Array;
  /** The last sample, counted from 1, in which a feature fired. */
  readonly #lastFired: Float64Array;
  #samples = 0;

  /**
   * @param featureOf - the feature that each latent is taken for, [latents]
   * @param features - number of true features
   */
  constructor(featureOf: Uint32Array, features: number) {
    this.#featureOf = featureOf;
    this.#latentFired = new Float64Array(featureOf.length);
    this.#bothFired = new Float64Array(featureOf.length);
    this.#featureFired = new Float64Array(features);
    this.#lastFired = new Float64Array(features);
  }

  /** The codes of an SAE and the true ones, of the same samples. A latent fires where its value is not 0. */
  add(latents: CodesContent, truth: CodesContent): void {
    const rows = truth.rowOffsets.length - 1;
    for (let row = 0; row < rows; row++) {
      const sample = ++this.#samples;
      for (let entry = truth.rowOffsets[row]!; entry < truth.rowOffsets[row + 1]!; entry++) {
        if (truth.values[entry] === 0) continue;
        const feature = truth.features[entry]!;
        this.#featureFired[feature]!++;
        this.#lastFired[feature] = sample;
      }
      for (let entry = latents.rowOffsets[row]!; entry < latents.rowOffsets[row + 1]!; entry++) {
        if (latents.values[entry] === 0) continue;
        const latent = latents.features[entry]!;
        this.#latentFired[latent]!++;
        if (this.#lastFired[this.#featureOf[latent]!] === sample) this.#bothFired[latent]!++;
      }
    }
  }

  read(): FiringRecovery {
    const latents = this.#featureOf.length;
    let [precision, recall, f1, deadLatents] = [0, 0, 0, 0];
    for (const [latent, feature] of this.#featureOf.entries()) {
      const both = this.#bothFired[latent]!;
      const fired = this.#latentFired[latent]!;
      const should = this.#featureFired[feature]!;
      if (fired === 0) deadLatents++;
      if (both === 0) continue;
      precision += both / fired;
      recall += both / should;
      f1 += (2 * both) / (fired + should);
    }
    return {
      precision: precision / latents,
      recall: recall / latents,
      f1: f1 / latents,
      deadLatents,
      trueL0: this.#featureFired.reduce((sum, count) => sum + count, 0) / this.#samples,
    };
  }
}
