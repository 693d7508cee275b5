/**
 * What an SAE architecture is: a name, its options, how it selects latents, and the gradient of its loss, written out.
 *
 * The loss scale is one for all: summed over dIn, averaged over the tokens of the batch. Everything after the encoder is
 * sparse: an architecture states its gradient as entry terms (codes and the dense matrix they multiply), never as a
 * matrix of size [tokens, dSae], and the optimizer visits each feature's rows once.
 */
import { z } from "zod";
import type { Codes, EntryValues, FeatureSet } from "../engine/codes.js";
import type { Device } from "../engine/device.js";
import type { Kernels } from "../engine/kernels.js";
import type { Tensor } from "../engine/tensor.js";

/** The parameters of an SAE, f32, feature-major: row i of the encoder and row i of the decoder belong to latent i. */
export interface SaeParameters {
  /** [dSae, dIn] (SAELens' W_enc, transposed) */
  readonly encoder: Tensor;
  /** [dSae] */
  readonly encoderBias: Tensor;
  /** [dSae, dIn] (SAELens' W_dec) */
  readonly decoder: Tensor;
  /** [dIn] */
  readonly decoderBias: Tensor;
}

export const parameterNames: readonly (keyof SaeParameters)[] = ["encoder", "encoderBias", "decoder", "decoderBias"];

/** What a forward pass works with. */
export interface Forward {
  readonly kernels: Kernels;
  readonly parameters: SaeParameters;
}

/** What the gradient of one training step works with. */
export interface GradientStep extends Forward {
  readonly device: Device;
  /** The batch, [tokens, dIn]. */
  readonly x: Tensor;
  /** What the encoder saw: x, less the decoder bias where the SAE subtracts it; x itself otherwise. */
  readonly input: Tensor;
  readonly tokens: number;
  /** What the architecture's `encode` selected for this batch. */
  readonly codes: Codes;
  /** Decoder rows are kept at norm 1, so that penalties need no weighting by the norm. */
  readonly decoderUnitNorm: boolean;
  /** Factor of the sparsity coefficient during its warm-up: 0 < sparsityScale <= 1. */
  readonly sparsityScale: number;
  /** The latents that count as dead after this batch; undefined while none can be. */
  readonly deadLatents: FeatureSet | undefined;
  /** A handle that lives until the step is queued. */
  keep<T extends Disposable>(handle: T): T;
}

/** A loss term: scale * sum, the sum an f64 [1] on the device, read only when somebody logs it. */
export interface Loss {
  readonly sum: Tensor;
  readonly scale: number;
  /** The latents the term is about, where it is about some; the term is 0 when there are none. */
  readonly latents?: FeatureSet;
}

/**
 * One way from the input through latents to an output: codes -> decoder -> output. dLoss/dOutput = scale * dOutput and
 * dLoss/dz = dPreActivations give the gradients of the encoder, its bias and the decoder along this path.
 */
export interface DecodePath {
  readonly codes: Codes;
  /** [tokens, dIn] */
  readonly dOutput: Tensor;
  readonly scale: number;
  /** One per entry of `codes`. */
  readonly dPreActivations: EntryValues;
  /** Whether the output contains the decoder bias. */
  readonly throughDecoderBias: boolean;
}

/** The gradient of one step, as the architecture's paper would state it. */
export interface Gradients {
  /** By name, in the order in which they are logged; the loss is their sum. */
  readonly losses: Readonly<Record<string, Loss>>;
  /** x̂ - x, [tokens, dIn] */
  readonly residual: Tensor;
  readonly paths: readonly DecodePath[];
  /** Adds scale * coefficients[i] * |decoder_i| to the loss, so its gradient to decoder row i. */
  readonly decoderNormPenalty?: { readonly coefficients: Tensor; readonly scale: number };
}

/** One zod type per option; the keys are those of the configuration file. */
export type OptionShape<Options> = { readonly [Key in keyof Options]-?: z.ZodType<Options[Key]> };

/** How an architecture is written down; see topk.ts. */
export interface ArchitectureDefinition<Name extends string, Options, TrainingOptions> {
  readonly name: Name;
  /** What a trained SAE of this architecture needs to encode; saved with it. */
  readonly options: OptionShape<Options>;
  /** What only shapes its training. */
  readonly trainingOptions: OptionShape<TrainingOptions>;
  /** Norm of the decoder rows at initialisation. */
  readonly initialDecoderNorm: number;
  /** `input` is x, less the decoder bias where the SAE subtracts it; [tokens, dIn]. */
  encode(forward: Forward & { readonly options: Options }, input: Tensor): Codes;
  gradients(step: GradientStep & { readonly options: Options & TrainingOptions }): Gradients;
}

/** An architecture whose options have been filled in. */
export interface ConfiguredEncoder {
  encode(forward: Forward, input: Tensor): Codes;
}
export interface ConfiguredTraining extends ConfiguredEncoder {
  gradients(step: GradientStep): Gradients;
}

export interface Architecture<Name extends string, Options, TrainingOptions> {
  readonly name: Name;
  readonly options: OptionShape<Options>;
  readonly trainingOptions: OptionShape<TrainingOptions>;
  readonly initialDecoderNorm: number;
  /** With the options of a validated configuration (which may hold other keys too). */
  configure(config: Options): ConfiguredEncoder;
  configureTraining(config: Options & TrainingOptions): ConfiguredTraining;
}

export function defineArchitecture<Name extends string, Options, TrainingOptions>(
  definition: ArchitectureDefinition<Name, Options, TrainingOptions>,
): Architecture<Name, Options, TrainingOptions> {
  return {
    name: definition.name,
    options: definition.options,
    trainingOptions: definition.trainingOptions,
    initialDecoderNorm: definition.initialDecoderNorm,
    configure: (options) => ({
      encode: (forward, input) => definition.encode({ ...forward, options }, input),
    }),
    configureTraining: (options) => ({
      encode: (forward, input) => definition.encode({ ...forward, options }, input),
      gradients: (step) => definition.gradients({ ...step, options }),
    }),
  };
}

export const positiveInteger: z.ZodType<number> = z.int().positive();
export const naturalNumber: z.ZodType<number> = z.int().nonnegative();
export const nonNegative: z.ZodType<number> = z.number().nonnegative();
export const positive: z.ZodType<number> = z.number().positive();
