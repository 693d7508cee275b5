/**
 * What an SAE architecture is: a name, its options and parameters, how it selects latents, and the gradient of its loss,
 * written out.
 *
 * The loss scale is one for all: summed over the output, averaged over the tokens of the batch. Everything after the
 * encoder is sparse: an architecture states its gradient as paths (codes and the dense matrix they multiply), never as a
 * matrix of size [tokens, dSae], and the optimizer visits each latent's rows once.
 */
import { z } from "zod";
import type { Json } from "../activations/source.js";
import type { Codes, EntryValues, FeatureSet } from "../engine/codes.js";
import type { Device } from "../engine/device.js";
import type { Kernels } from "../engine/kernels.js";
import type { Tensor } from "../engine/tensor.js";

/**
 * The parameters of an SAE by name, f32. Weights are feature-major: row i of the encoder and row i of the decoder belong
 * to latent i. Every SAE has those named here; its architecture adds others, such as `encoderBias` or `threshold`.
 */
export type SaeParameters<Own extends string = never> = {
  /** [dSae, dIn] (SAELens' W_enc, transposed) */
  readonly encoder: Tensor;
  /** [dSae, dOut] (SAELens' W_dec) */
  readonly decoder: Tensor;
  /** [dOut] */
  readonly decoderBias: Tensor;
  /** [dOut, dIn], of skip transcoders: x W_skipᵀ is added to the output (SAELens' W_skip) */
  readonly skip?: Tensor;
} & { readonly [Name in Own]: Tensor } & { readonly [name: string]: Tensor | undefined };

/** A parameter that an architecture adds to encoder, decoder and decoder bias. */
export interface ParameterSpecification<Options> {
  /** "latents": [dSae]. "encoder": [dSae, dIn]. */
  readonly shape: "latents" | "encoder";
  /** Every element at the start, or "encoder" for a copy of the encoder. */
  readonly initial: number | "encoder" | ((options: Options) => number);
  /** What SAELens calls it; the tensor's name in a saved folder. */
  readonly savedAs: string;
  /** False: no gradient reaches it; the architecture itself sets it after each step. Default true. */
  readonly trained?: boolean;
  /**
   * Whether it is in the scale of the pre-activations, and so is multiplied by the decoder norms when they are folded
   * (`Sae.foldDecoderNorm`). Default true; false for exponents such as the gated SAE's r_mag.
   */
  readonly inPreActivationScale?: boolean;
}

/** What a forward pass works with. */
export interface Forward<Own extends string = never> {
  readonly kernels: Kernels;
  readonly parameters: SaeParameters<Own>;
}

/** What a training step works with. */
export interface TrainingStep<Own extends string = never, State extends string = never> extends Forward<Own> {
  readonly device: Device;
  /** What the encoder sees, [tokens, dIn]: the activations, less the decoder bias where the SAE subtracts it. */
  readonly input: Tensor;
  /** What latents and decoder bias are to reconstruct, [tokens, dOut]: the activations of a plain SAE. */
  readonly target: Tensor;
  readonly tokens: number;
  /** Steps finished before this one. */
  readonly step: number;
  /** Decoder rows are kept at norm 1, so that penalties need no weighting by the norm. */
  readonly decoderUnitNorm: boolean;
  /** Widths of a crosscoder's hooks, whose decoder norms are summed; undefined: the decoder row is one vector. */
  readonly hookWidths: readonly number[] | undefined;
  /** Factor of the sparsity coefficient during its warm-up: 0 < sparsityScale <= 1. */
  readonly sparsityScale: number;
  /** The architecture's own running state, f64; zeros before the first step, saved with checkpoints. */
  readonly state: { readonly [Name in State]: Tensor };
  /** A handle that lives until the step is queued. */
  keep<T extends Disposable>(handle: T): T;
}

/** What the training forward pass gives: the latents, and whatever else the gradient will want again. */
export interface Encoded {
  /** The latents that count: for L0, for dead latents, for the reconstruction. Kept by the step. */
  readonly codes: Codes;
}

export interface GradientStep<
  Own extends string = never,
  State extends string = never,
  Encoding extends Encoded = Encoded,
> extends TrainingStep<Own, State> {
  /** What the architecture's `encodeForTraining` gave for this batch. */
  readonly encoded: Encoding;
  /** encoded.codes */
  readonly codes: Codes;
  /** The latents that count as dead after this batch; undefined while none can be. Waits for the device, once. */
  deadLatents(): FeatureSet | undefined;
}

/** A loss term: scale * sum, the sum an f64 [1] on the device, read only when somebody logs it. */
export interface Loss {
  readonly sum: Tensor;
  readonly scale: number;
  /** The latents the term is about, where it is about some; the term is 0 when there are none. */
  readonly latents?: FeatureSet;
}

/** Codes -> decoder -> output. With dLoss/dOutput = scale * dOutput it gives the gradient of the decoder and its bias. */
export interface DecoderPath {
  readonly codes: Codes;
  /** [tokens, dOut] */
  readonly dOutput: Tensor;
  readonly scale: number;
  /** Whether the output contains the decoder bias (and the skip term). */
  readonly throughDecoderBias: boolean;
}

/** Input -> encoder -> pre-activations. dLoss/dz per entry gives the gradient of the encoder's rows and bias. */
export interface EncoderPath {
  readonly codes: Codes;
  readonly dPreActivations: EntryValues;
  /** The [dSae, dIn] parameter that made them. Default "encoder". */
  readonly rows?: string;
  /** The [dSae] parameter that was added to them; undefined where `vectors` states the biases' gradients. */
  readonly bias?: string;
}

/** The gradient of one step, as the architecture's paper would state it. */
export interface Gradients {
  /** By name, in the order in which they are logged; the loss is their sum. */
  readonly losses: Readonly<Record<string, Loss>>;
  /** x̂ - target, [tokens, dOut] */
  readonly residual: Tensor;
  readonly decoderPaths: readonly DecoderPath[];
  readonly encoderPaths: readonly EncoderPath[];
  /** Gradients of [dSae] parameters that do not come from an encoder path; added to those that do. */
  readonly vectors?: Readonly<Record<string, Tensor>>;
  /** Adds scale * coefficients[i] * |decoder_i| to the loss, so its gradient to decoder row i. */
  readonly decoderNormPenalty?: { readonly coefficients: Tensor; readonly scale: number };
}

/** One zod type per option; the keys are those of the configuration file. */
export type OptionShape<Options> = { readonly [Key in keyof Options]-?: z.ZodType<Options[Key]> };

/** How an architecture is stored in a folder that SAELens can read. */
export interface SavedForm<Options> {
  /** `architecture` in cfg.json. SAELens loads those that it knows itself. */
  readonly name: string;
  /** Other such names, each for SAEs that have these options. */
  readonly variants?: Readonly<Record<string, Partial<Options>>>;
  /** The keys of cfg.json that hold its options. */
  readonly keys?: (options: Options) => Readonly<Record<string, Json>>;
  /** The options that such keys say; they are checked afterwards. Default: the keys with our names. */
  readonly options?: (cfg: Readonly<Record<string, unknown>>) => Readonly<Record<string, unknown>>;
}

/** What else bears on whether options fit. */
export interface CheckedWith {
  readonly dIn: number;
  readonly dSae: number;
  /** Of the run, where there is one. */
  readonly steps?: number | undefined;
}

/** How an architecture is written down; see topk.ts. */
export interface ArchitectureDefinition<
  Name extends string,
  Options,
  TrainingOptions,
  Own extends string,
  State extends string,
  Encoding extends Encoded,
> {
  readonly name: Name;
  /** What a trained SAE of this architecture needs to encode; saved with it. */
  readonly options: OptionShape<Options>;
  /** What only shapes its training. */
  readonly trainingOptions: OptionShape<TrainingOptions>;
  /** The parameters besides encoder, decoder and decoder bias. */
  readonly parameters: { readonly [Key in Own]: ParameterSpecification<Options & TrainingOptions> };
  /** Running state of the training: number of f64 elements. */
  readonly state?: { readonly [Key in State]: number };
  /**
   * Whether latents scale with everything that is `inPreActivationScale`: twice that, twice the latents. Default true;
   * false where the latent is, say, a square root, so that decoder norms cannot be folded into the encoder.
   */
  readonly homogeneous?: boolean;
  /** Norm of the decoder rows at initialisation, where they are not kept at 1. */
  readonly initialDecoderNorm: number;
  /** The default of `decoderUnitNorm`. */
  readonly decoderUnitNorm: boolean;
  /**
   * How it is saved; or the name of another architecture with the same parameters, as which it encodes and is saved once
   * it is trained (with its default options).
   */
  readonly saved: SavedForm<Options> | { readonly as: string };
  /** What the options must fulfil together, with the sizes and the length of a run: complaints as [option, message]. */
  readonly check?: (
    options: Options & TrainingOptions & CheckedWith,
  ) => readonly (readonly [option: string, message: string])[];
  /** The latents of a trained SAE. `input` is [tokens, dIn], less the decoder bias where the SAE subtracts it. */
  encode(forward: Forward<Own> & { readonly options: Options }, input: Tensor): Codes;
  /**
   * Of latents g ReLU(z) whose gate g is computed beside z: both. Without it z is input · encoder + encoderBias, and
   * alone decides.
   */
  gatedPreActivations?(forward: Forward<Own>, input: Tensor): GatedPreActivations;
  /** The latents in training, where they differ from `encode`'s or more is wanted of the forward pass. */
  encodeForTraining?(step: TrainingStep<Own, State> & { readonly options: Options & TrainingOptions }): Encoding;
  gradients(step: GradientStep<Own, State, Encoding> & { readonly options: Options & TrainingOptions }): Gradients;
  /** Queued after the optimizer's step: constraints on parameters, running state. */
  afterStep?(step: GradientStep<Own, State, Encoding> & { readonly options: Options & TrainingOptions }): void;
}

/** f32 [tokens, dSae] each; the caller's to dispose. */
export interface GatedPreActivations {
  /** z */
  readonly preActivations: Tensor;
  /** g */
  readonly gate: Tensor;
}

/** An architecture whose options have been filled in. */
export interface ConfiguredEncoder {
  encode(forward: Forward, input: Tensor): Codes;
  /** Undefined where nothing but z decides. */
  gatedPreActivations(forward: Forward, input: Tensor): GatedPreActivations | undefined;
}
export interface ConfiguredTraining {
  encode(step: TrainingStep): Encoded;
  gradients(step: GradientStep): Gradients;
  afterStep(step: GradientStep): void;
}

/** An architecture as the library uses it, the types of its options and parameters erased where they differ. */
export interface Architecture<Name extends string, Options, TrainingOptions> {
  readonly name: Name;
  readonly options: OptionShape<Options>;
  readonly trainingOptions: OptionShape<TrainingOptions>;
  readonly parameters: Readonly<Record<string, ParameterSpecification<Options & TrainingOptions>>>;
  readonly state: Readonly<Record<string, number>>;
  readonly homogeneous: boolean;
  readonly initialDecoderNorm: number;
  readonly decoderUnitNorm: boolean;
  readonly saved: SavedForm<Options> | { readonly as: string };
  check(options: Options & TrainingOptions & CheckedWith): readonly (readonly [option: string, message: string])[];
  /** With the options of a validated configuration (which may hold other keys too). */
  configure(config: Options): ConfiguredEncoder;
  configureTraining(config: Options & TrainingOptions): ConfiguredTraining;
}

export function defineArchitecture<
  Name extends string,
  Options,
  TrainingOptions,
  Own extends string,
  State extends string = never,
  Encoding extends Encoded = Encoded,
>(
  definition: ArchitectureDefinition<Name, Options, TrainingOptions, Own, State, Encoding>,
): Architecture<Name, Options, TrainingOptions> {
  type Step = TrainingStep<Own, State>;
  type Gradient = GradientStep<Own, State, Encoding>;
  return {
    name: definition.name,
    options: definition.options,
    trainingOptions: definition.trainingOptions,
    parameters: definition.parameters,
    state: definition.state ?? {},
    homogeneous: definition.homogeneous ?? true,
    initialDecoderNorm: definition.initialDecoderNorm,
    decoderUnitNorm: definition.decoderUnitNorm,
    saved: definition.saved,
    check: (options) => definition.check?.(options) ?? [],
    configure: (options) => ({
      encode: (forward, input) => definition.encode({ ...(forward as Forward<Own>), options }, input),
      gatedPreActivations: (forward, input) => definition.gatedPreActivations?.(forward as Forward<Own>, input),
    }),
    configureTraining: (options) => ({
      encode: (step) =>
        definition.encodeForTraining?.({ ...(step as Step), options }) ?? {
          codes: step.keep(definition.encode({ ...(step as Step), options }, step.input)),
        },
      gradients: (step) => definition.gradients({ ...(step as Gradient), options }),
      afterStep: (step) => definition.afterStep?.({ ...(step as Gradient), options }),
    }),
  };
}

// Types of options, of which the library exports these. Others are zod's own.

/** 1, 2, ... */
export const positiveInteger: z.ZodType<number> = z.int().positive();
/** 0, 1, 2, ... */
export const naturalNumber: z.ZodType<number> = z.int().nonnegative();
/** A number that is 0 or larger. */
export const nonNegative: z.ZodType<number> = z.number().nonnegative();
/** A number larger than 0. */
export const positive: z.ZodType<number> = z.number().positive();
