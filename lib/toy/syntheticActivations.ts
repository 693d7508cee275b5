import type { ActivationSource, Json, SourceState } from "../activations/source.js";
import type { Tensor } from "../engine/tensor.js";
import { MonosemError, throwIfAborted } from "../errors.js";
import type { SyntheticModel } from "./syntheticModel.js";

/** Samples of a synthetic model as an endless source of training batches, one after another, none twice. */
export class SyntheticActivations implements ActivationSource {
  readonly dIn: number;
  readonly #model: SyntheticModel;
  #next: number;

  /**
   * @param model - remains the caller's to dispose
   * @param firstSample - the number of the first sample
   */
  constructor(model: SyntheticModel, firstSample = 0) {
    this.dIn = model.config.dIn;
    this.#model = model;
    this.#next = firstSample;
  }

  /**
   * The next samples, f32 [batchSize, dIn]; never undefined.
   *
   * @throws MonosemError ERR_ABORTED, ERR_INVALID_ARGUMENT, ERR_DISPOSED
   */
  async next(batchSize: number, signal?: AbortSignal): Promise<Tensor> {
    throwIfAborted(signal, "drawing synthetic activations");
    using codes = this.#model.codes(batchSize, this.#next);
    const activations = this.#model.activations(codes);
    this.#next += batchSize;
    return activations;
  }

  /** The number of the next sample; the model itself is not part of the state. */
  async saveState(): Promise<SourceState> {
    return { state: { ...this.#identity(), next: this.#next }, tensors: {} };
  }

  /** @throws MonosemError ERR_CONFIG when the state was saved from another model, ERR_FORMAT when it is malformed. */
  async restoreState({ state }: SourceState): Promise<void> {
    const { next, ...identity } = (typeof state === "object" && state !== null ? state : {}) as Record<string, Json>;
    if (JSON.stringify(identity) !== JSON.stringify(this.#identity())) {
      throw new MonosemError("ERR_CONFIG", "the saved state belongs to other synthetic data than this");
    }
    if (!Number.isSafeInteger(next) || (next as number) < 0) {
      throw new MonosemError("ERR_FORMAT", `the saved state of synthetic data has no sample number: ${next}`);
    }
    this.#next = next as number;
  }

  /** Nothing to free: the model belongs to the caller. */
  dispose(): void {}

  #identity(): Record<string, Json> {
    return { source: "synthetic", config: this.#model.config as unknown as Json };
  }
}
