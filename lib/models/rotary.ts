/**
 * Rotary positions (Su et al. 2021, arXiv:2104.09864): how fast each pair turns, and tables of the angles.
 *
 * The frequencies of a context of the length that the model was trained for are base^(-2i / dimensions). The scalings to
 * longer contexts are those of the checkpoints' configurations: "linear" (Chen et al. 2023, arXiv:2306.15595) slows all
 * of them down, "llama3" and "yarn" (Peng et al. 2023, arXiv:2309.00071) only those that turn slowly anyway.
 *
 * Two depend on how long a context is. "dynamic" (NTK-aware) takes, beyond the trained length L, the base
 * base (factor n / L - factor + 1)^(d / (d - 2)) for n tokens; "longrope" (Ding et al. 2024, arXiv:2402.13753) has a factor
 * for each pair up to the trained length and another beyond. Keys that are cached keep their rotation, so a generation takes
 * the frequencies of the length that it may grow to, in all of its passes; transformers changes them on the way.
 */
import { z } from "zod";
import type { Device } from "../engine/device.js";
import type { Tensor } from "../engine/tensor.js";
import { MonosemError } from "../errors.js";
import { quotedValue } from "../schemaMessages.js";
import type { RotaryConfig } from "./modelConfig.js";

/** The entry `rope_scaling` of a config.json, or `rope_parameters` of newer ones. */
export interface RopeParameters {
  readonly rope_type?: string | undefined;
  readonly type?: string | undefined; // older checkpoints
  readonly rope_theta?: number | undefined;
  readonly partial_rotary_factor?: number | undefined;
  readonly factor?: number | undefined;
  readonly low_freq_factor?: number | undefined;
  readonly high_freq_factor?: number | undefined;
  readonly original_max_position_embeddings?: number | null | undefined;
  readonly attention_factor?: number | null | undefined;
  readonly beta_fast?: number | null | undefined;
  readonly beta_slow?: number | null | undefined;
  readonly mscale?: number | null | undefined;
  readonly mscale_all_dim?: number | null | undefined;
  readonly truncate?: boolean | undefined;
  readonly short_factor?: readonly number[] | undefined;
  readonly long_factor?: readonly number[] | undefined;
}

/** How many times longer a context or a wave is, and the like: from 0.1 to 1000 in real models. Others leave f32's range. */
const ratio = z.number().min(1e-4).max(1e4);

/** The slowest pair's wave: from 1e4 to 5e10 in real models. */
export const rotaryBase: z.ZodType<number> = z.number().gt(1).max(1e15);

/** Tokens of a context. */
const contextLength = z
  .number()
  .gt(1)
  .max(2 ** 31 - 1);

export const ropeSchema: z.ZodType<RopeParameters> = z.looseObject({
  rope_type: z.string().optional(),
  type: z.string().optional(),
  rope_theta: rotaryBase.optional(),
  partial_rotary_factor: z.number().positive().max(1).optional(),
  factor: ratio.optional(),
  low_freq_factor: ratio.optional(),
  high_freq_factor: ratio.optional(),
  original_max_position_embeddings: contextLength.nullish(),
  attention_factor: ratio.nullish(),
  beta_fast: ratio.nullish(),
  beta_slow: ratio.nullish(),
  mscale: ratio.nullish(),
  mscale_all_dim: ratio.nullish(),
  truncate: z.boolean().optional(),
  short_factor: z.array(ratio).optional(),
  long_factor: z.array(ratio).optional(),
});

/** Of a head that turns; the widest have 512. */
const maximumDimensions = 2 ** 16;

/** The kind of scaling: transformers' `rope_type`. */
function kindOf({ rope_type, type }: RopeParameters): string {
  return rope_type ?? type ?? "default";
}

/**
 * The tokens of the longest context, of a model whose configuration says `trained`: only "dynamic" scaling reaches further
 * than that.
 */
export function contextSizeOf(rope: RopeParameters, trained: number): number {
  return kindOf(rope) === "dynamic" ? Math.floor(trained * Math.max(1, rope.factor ?? 1)) : trained;
}

/**
 * The frequencies that a configuration asks for, of `dimensions` / 2 pairs in halves.
 *
 * @param sizes - `contextSize` is that of the configuration
 * @param path - of the configuration, for messages
 * @throws MonosemError ERR_UNSUPPORTED for another scaling, ERR_FORMAT for a scaling that lacks one of its numbers
 */
export function rotaryConfig(
  rope: RopeParameters,
  sizes: { readonly base: number; readonly dimensions: number; readonly contextSize: number },
  path: string,
): RotaryConfig {
  const { base, dimensions, contextSize } = sizes;
  const need = (name: "factor" | "low_freq_factor" | "high_freq_factor"): number => {
    const value = rope[name];
    if (value !== undefined) return value;
    throw new MonosemError("ERR_FORMAT", `${path}: the rotary scaling needs ${JSON.stringify(name)}`);
  };
  if (dimensions > maximumDimensions) {
    throw new MonosemError("ERR_FORMAT", `${path}: ${dimensions} rotary dimensions are more than ${maximumDimensions}`);
  }
  const plain = plainFrequencies(base, dimensions / 2);
  const trainedLength = rope.original_max_position_embeddings ?? contextSize;
  const kind = kindOf(rope);
  switch (kind) {
    case "default":
      return { frequencies: plain, factor: 1, interleaved: false };
    case "linear": {
      const factor = need("factor");
      return { frequencies: plain.map((frequency) => frequency / factor), factor: 1, interleaved: false };
    }
    case "llama3": {
      const [factor, low, high] = [need("factor"), need("low_freq_factor"), need("high_freq_factor")];
      if (high <= low) {
        const found = `${high} and ${low}`;
        throw new MonosemError(
          "ERR_FORMAT",
          `${path}: the rotary scaling needs a high_freq_factor above its low_freq_factor, found ${found}`,
        );
      }
      const frequencies = plain.map((frequency) => {
        const turns = (trainedLength * frequency) / (2 * Math.PI); // within the trained length
        const kept = Math.min(Math.max((turns - low) / (high - low), 0), 1);
        return kept * frequency + ((1 - kept) * frequency) / factor;
      });
      return { frequencies, factor: 1, interleaved: false };
    }
    case "yarn": {
      const factor = need("factor");
      /** Of the pair that turns so many times within the trained length. */
      const pairOf = (turns: number): number =>
        (dimensions * Math.log(trainedLength / (turns * 2 * Math.PI))) / (2 * Math.log(base));
      const whole = rope.truncate ?? true;
      const [first, last] = [pairOf(rope.beta_fast ?? 32), pairOf(rope.beta_slow ?? 1)];
      const low = Math.max(whole ? Math.floor(first) : first, 0);
      const high = Math.min(whole ? Math.ceil(last) : last, dimensions - 1);
      const frequencies = plain.map((frequency, i) => {
        const slowed = Math.min(Math.max((i - low) / (high === low ? 0.001 : high - low), 0), 1);
        return (slowed * frequency) / factor + (1 - slowed) * frequency;
      });
      const scaleOf = (scale: number): number => (factor <= 1 ? 1 : 0.1 * scale * Math.log(factor) + 1);
      const { mscale, mscale_all_dim: ofAll, attention_factor: given } = rope;
      const derived = mscale && ofAll ? scaleOf(mscale) / scaleOf(ofAll) : scaleOf(1);
      return { frequencies, factor: given ?? derived, interleaved: false };
    }
    case "dynamic": {
      const beyond = { length: contextSize, base, factor: need("factor") };
      return { frequencies: plain, beyond, factor: 1, interleaved: false };
    }
    case "longrope": {
      const slowed = (name: "short_factor" | "long_factor"): number[] => {
        const factors = rope[name] ?? [];
        if (factors.length === plain.length) return plain.map((frequency, i) => frequency / factors[i]!);
        const problem = `the rotary scaling needs ${plain.length} numbers as ${JSON.stringify(name)}, found ${factors.length}`;
        throw new MonosemError("ERR_FORMAT", `${path}: ${problem}`);
      };
      const factor = rope.factor ?? contextSize / trainedLength;
      const derived = factor <= 1 ? 1 : Math.sqrt(1 + Math.log(factor) / Math.log(trainedLength));
      return {
        frequencies: slowed("short_factor"),
        beyond: { length: trainedLength, frequencies: slowed("long_factor") },
        factor: rope.attention_factor ?? derived,
        interleaved: false,
      };
    }
    default:
      throw new MonosemError(
        "ERR_UNSUPPORTED",
        `${path}: rotary scaling ${quotedValue(kind)} is not supported; supported are default, linear, dynamic, llama3, yarn, longrope`,
      );
  }
}

function plainFrequencies(base: number, pairs: number): number[] {
  return Array.from({ length: pairs }, (_, i) => base ** (-i / pairs));
}

/** Those in a context of `length` tokens. */
function frequenciesIn(length: number, { frequencies, beyond }: RotaryConfig): readonly number[] {
  if (beyond === undefined || length <= beyond.length) return frequencies;
  if ("frequencies" in beyond) return beyond.frequencies;
  const pairs = frequencies.length;
  const stretch = (beyond.factor * length) / beyond.length - (beyond.factor - 1);
  return plainFrequencies(beyond.base * stretch ** (pairs / (pairs - 1)), pairs);
}

/** Cosines and sines [positions, pairs] of the positions that have been asked for, on a device. */
export class RotaryTable {
  readonly interleaved: boolean;
  readonly #config: RotaryConfig;
  readonly #device: Device;
  #rows = 0;
  #frequencies: readonly number[];
  #cosines: Tensor | undefined;
  #sines: Tensor | undefined;

  constructor(config: RotaryConfig, device: Device) {
    this.interleaved = config.interleaved;
    this.#config = config;
    this.#frequencies = config.frequencies;
    this.#device = device;
  }

  /**
   * Of positions below `end`, i32 [tokens], in a context that may grow to `length` tokens: [tokens, pairs]; the caller's to
   * dispose.
   */
  at(positions: Tensor, end: number, length: number): { readonly cosines: Tensor; readonly sines: Tensor } {
    const frequencies = frequenciesIn(length, this.#config);
    if (frequencies.some((frequency, pair) => frequency !== this.#frequencies[pair])) this.dispose();
    this.#frequencies = frequencies;
    if (end > this.#rows) this.#grow(Math.max(end, 2 * this.#rows));
    const { kernels } = this.#device;
    return {
      cosines: kernels.gatherRows(this.#cosines!, positions),
      sines: kernels.gatherRows(this.#sines!, positions),
    };
  }

  dispose(): void {
    this.#cosines?.dispose();
    this.#sines?.dispose();
    this.#rows = 0;
  }

  #grow(rows: number): void {
    const { factor } = this.#config;
    const frequencies = this.#frequencies;
    const pairs = frequencies.length;
    const table = (wave: (angle: number) => number): Tensor =>
      this.#device.tensor(
        Float32Array.from(
          { length: rows * pairs },
          (_, i) => factor * wave(Math.floor(i / pairs) * frequencies[i % pairs]!),
        ),
        [rows, pairs],
      );
    this.dispose();
    this.#cosines = table(Math.cos);
    this.#sines = table(Math.sin);
    this.#rows = rows;
  }
}
