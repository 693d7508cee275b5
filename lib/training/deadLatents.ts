import type { Codes, FeatureSet } from "../engine/codes.js";
import type { Device } from "../engine/device.js";
import type { Tensor } from "../engine/tensor.js";

/**
 * Counts, for every latent, the tokens since it last fired (value > 0). A latent with at least `deadAfterTokens` of
 * them is dead. A batch is counted before its dead latents are taken, so a latent that fires in it is alive in it, as in
 * OpenAI's code and dictionary_learning.
 */
export class DeadLatents {
  /** f64 [dSae] */
  readonly tokensSinceFired: Tensor;
  readonly #device: Device;
  readonly #deadAfterTokens: number;
  #tokensSeen: number;

  /** @param counters continues where a checkpoint left off */
  constructor(
    device: Device,
    dSae: number,
    deadAfterTokens: number,
    counters?: { data: Float64Array; tokensSeen: number },
  ) {
    this.#device = device;
    this.#deadAfterTokens = deadAfterTokens;
    this.#tokensSeen = counters?.tokensSeen ?? 0;
    this.tokensSinceFired = counters ? device.tensor(counters.data, [dSae]) : device.zeros([dSae], "f64");
  }

  record(codes: Codes): void {
    this.#device.kernels.updateTokensSinceFired(codes, codes.rows, this.tokensSinceFired);
    this.#tokensSeen += codes.rows;
  }

  /** The dead latents, the caller's to dispose; undefined while too few tokens were seen for any to be dead. */
  current(): FeatureSet | undefined {
    if (this.#tokensSeen < this.#deadAfterTokens) return undefined;
    return this.#device.kernels.featuresNotFiredFor(this.tokensSinceFired, this.#deadAfterTokens);
  }

  /** {@link current}, read from the device; empty while none can be dead. */
  async read(): Promise<Uint32Array> {
    using dead = this.current();
    return dead === undefined ? new Uint32Array() : dead.read();
  }

  /** Counts these latents as having just fired. Waits for the device. */
  async revive(latents: Iterable<number>): Promise<void> {
    const counters = (await this.tokensSinceFired.read()) as Float64Array;
    for (const latent of latents) counters[latent] = 0;
    this.tokensSinceFired.write(counters);
  }

  dispose(): void {
    this.tokensSinceFired.dispose();
  }
}
