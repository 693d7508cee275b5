import type { ActivationModel } from "../../lib/activations/harvest.js";
import type { Device } from "../../lib/engine/device.js";
import { MonosemError } from "../../lib/errors.js";

/**
 * A model whose activation of a token says which token it is and where in its context it stands: [id, position].
 * A token per character; BOS is 0, the id that a truthiness test loses.
 */
export class FakeModel implements ActivationModel {
  readonly device: Device;
  readonly config = { name: "fake", contextSize: 64 };
  readonly tokenizer: ActivationModel["tokenizer"] = {
    bosTokenId: 0,
    vocabularySize: 128,
    specialTokenIds: new Set([0, 1]),
    encode: (text) => [...text].map((character) => (character === "$" ? 1 : character.charCodeAt(0))),
    tokenTexts: (ids) => Array.from(ids, (id) => String.fromCharCode(id)),
  };
  passes = 0;
  /** What the activations are, instead of [id, position]. */
  value: ((id: number, position: number) => readonly [number, number]) | undefined;

  constructor(device: Device) {
    this.device = device;
  }

  hookWidth(hook: string): number {
    if (hook !== "hook" && hook !== "liar") throw new MonosemError("ERR_NOT_FOUND", `no hook point ${hook}`);
    return hook === "liar" ? 3 : 2;
  }

  async activations(tokens: readonly (readonly number[])[]): ReturnType<ActivationModel["activations"]> {
    this.passes += 1;
    const value = this.value ?? ((id, position) => [id, position]);
    const rows = tokens.flatMap((context) => context.flatMap((id, position) => [...value(id, position)]));
    return this.device.tensor(Float32Array.from(rows), [rows.length / 2, 2]);
  }
}
