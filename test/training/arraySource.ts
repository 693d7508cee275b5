import type { ActivationHook, ActivationSource, SourceState } from "../../lib/activations/source.js";
import type { Device } from "../../lib/engine/device.js";
import type { Tensor } from "../../lib/engine/tensor.js";

/** The smallest source: rows of an array, in order, starting over at the end unless told to stop there. */
export class ArraySource implements ActivationSource {
  readonly dIn: number;
  readonly hooks?: readonly ActivationHook[];
  readonly #rows: Float32Array;
  readonly #device: Device;
  readonly #repeat: boolean;
  position = 0;

  constructor(
    rows: Float32Array,
    dIn: number,
    device: Device,
    { repeat = true, hooks }: { repeat?: boolean; hooks?: readonly ActivationHook[] } = {},
  ) {
    if (hooks !== undefined) this.hooks = hooks;
    this.#rows = rows;
    this.dIn = dIn;
    this.#device = device;
    this.#repeat = repeat;
  }

  async next(batchSize: number): Promise<Tensor | undefined> {
    const rows = this.#rows.length / this.dIn;
    if (this.position === rows) {
      if (!this.#repeat) return undefined;
      this.position = 0;
    }
    const end = Math.min(rows, this.position + batchSize);
    const batch = this.#rows.slice(this.position * this.dIn, end * this.dIn);
    const shape = [end - this.position, this.dIn];
    this.position = end;
    return this.#device.tensor(batch, shape);
  }

  async saveState(): Promise<SourceState> {
    return {
      state: { position: this.position },
      tensors: { last: { shape: [1], data: Int32Array.of(this.position) } },
    };
  }

  async restoreState({ state, tensors }: SourceState): Promise<void> {
    this.position = (state as { position: number }).position;
    if (tensors.last?.data[0] !== this.position) throw new Error("the source's tensors were not kept");
  }

  dispose(): void {}
}
