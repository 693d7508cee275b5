import { architectureNamed } from "./architectures.js";
import type { CheckedSaeConfig } from "./config.js";

/** One parameter of an SAE. */
export interface ParameterLayout {
  readonly name: string;
  readonly shape: readonly number[];
  /** What SAELens calls it. */
  readonly savedAs: string;
  /** Whether SAELens stores the transpose: encoders, which it keeps as [dIn, dSae]. */
  readonly savedTransposed: boolean;
  /** Whether gradients move it. */
  readonly trained: boolean;
}

/** The parameters that an SAE of this configuration has, encoder first, the decoder's after the architecture's own. */
export function parameterLayout(config: Omit<CheckedSaeConfig, "normalizeActivations">): readonly ParameterLayout[] {
  const { architecture, dIn, dSae, dOut, skip } = config;
  const stored = { savedTransposed: false, trained: true };
  const encoderLike = { shape: [dSae, dIn], savedTransposed: true };
  return [
    { ...stored, ...encoderLike, name: "encoder", savedAs: "W_enc" },
    ...Object.entries(architectureNamed(architecture).parameters).map(([name, { shape, savedAs, trained = true }]) => ({
      ...stored,
      ...(shape === "encoder" ? encoderLike : { shape: [dSae] }),
      name,
      savedAs,
      trained,
    })),
    { ...stored, name: "decoder", shape: [dSae, dOut], savedAs: "W_dec" },
    { ...stored, name: "decoderBias", shape: [dOut], savedAs: "b_dec" },
    ...(skip ? [{ ...stored, name: "skip", shape: [dOut, dIn], savedAs: "W_skip" }] : []),
  ];
}
