/** What describes a trained SAE, as types derived from the registered architectures. */
import { z } from "zod";
import { MonosemError } from "../errors.js";
import { checkedBy } from "../schemaMessages.js";
import type { Architecture, ConfiguredEncoder, ConfiguredTraining } from "./architecture.js";
import { type ArchitectureName, architectureNamed, type architectures } from "./architectures.js";

type OptionsOf<Name extends ArchitectureName> =
  (typeof architectures)[Name] extends Architecture<string, infer Options, infer _> ? Options : never;
type TrainingOptionsOf<Name extends ArchitectureName> =
  (typeof architectures)[Name] extends Architecture<string, infer _, infer Options> ? Options : never;

interface SaeShape {
  /** Width of the activations that are encoded. */
  readonly dIn: number;
  /** Number of latents. */
  readonly dSae: number;
  /** Whether it reconstructs other activations than those that it encodes. Default: false. */
  readonly transcoder?: boolean | undefined;
  /** Width of what a transcoder reconstructs. Default: dIn. */
  readonly dOut?: number | undefined;
  /** Whether x W_skipᵀ is added to the output of a transcoder. Default: false. */
  readonly skip?: boolean | undefined;
  /** Widths of a crosscoder's hooks, which lie side by side in the activations; their sum is dIn. */
  readonly hookWidths?: readonly number[] | undefined;
  /** Whether the encoder sees x - b_dec instead of x; never in a transcoder. */
  readonly applyBDecToInput: boolean;
}

/** What is done with activations before they are encoded. */
export interface SaeNormalization {
  /**
   * "layer-norm": every activation is encoded as (x - mean) / (std + 1e-5), std with Bessel's correction, and
   * reconstructions are multiplied by std and moved by mean (SAELens' "layer_norm"). "constant-norm": encoded as
   * x sqrt(dIn) / |x|, and reconstructions are multiplied by |x| / sqrt(dIn) (SAELens' "constant_norm_rescale"; an x of
   * zeros gives NaN). Default: "none".
   */
  readonly normalizeActivations?: "none" | "layer-norm" | "constant-norm" | undefined;
}

/** A trained SAE: its architecture, its sizes, and what encoding needs, for example `k`. */
export type SaeConfig = {
  [Name in ArchitectureName]: SaeShape & SaeNormalization & { readonly architecture: Name } & OptionsOf<Name>;
}[ArchitectureName];

/** What shapes the training of an SAE of any architecture. */
export interface CommonTrainingOptions {
  /**
   * Keeps the decoder rows at norm 1: their gradient along themselves is removed, and they are renormalised after every
   * step. Sparsity penalties are then not weighted by the norms.
   */
  readonly decoderUnitNorm: boolean;
  /** A latent that has not fired for this many tokens counts as dead. */
  readonly deadAfterTokens: number;
  /** Every so many steps dead latents get new weights (Bricken et al. 2023); 0: never. Default 0. */
  readonly resampleEvery?: number | undefined;
  readonly bDecInit: "zero" | "geometric-median";
  /**
   * "expected-average-only-in": activations times sqrt(dIn) / E|x|, folded into the weights when training ends.
   * "layer-norm": see {@link SaeNormalization}; losses are then in the normalised scale.
   */
  readonly normalizeActivations: "none" | "expected-average-only-in" | "layer-norm";
  /** Of the source's hooks those that are encoded, side by side. Default: all of them. */
  readonly hook?: string | readonly string[] | undefined;
  /** Of the source's hooks the one that a transcoder reconstructs. */
  readonly targetHook?: string | undefined;
  /** Of its folder in the output, where several SAEs are trained together. */
  readonly name?: string | undefined;
  /** Of the initial weights. Default: the training's. */
  readonly seed?: number | undefined;
  /** Folder of an SAE to start from. */
  readonly init?: string | undefined;
}

/** A trained SAE and how it is trained, as `parseConfig` gives it. */
export type SaeTrainingConfig = {
  [Name in ArchitectureName]: SaeShape & { readonly architecture: Name } & OptionsOf<Name> &
    TrainingOptionsOf<Name> &
    CommonTrainingOptions;
}[ArchitectureName];

/** A configuration in which `applyBDecToInput` may be missing: then as `parseConfig` has it, true but for a transcoder. */
export type NewSaeConfig = MayOmitBDec<SaeConfig | SaeTrainingConfig>;

type MayOmitBDec<Config extends SaeShape> = Config extends unknown
  ? Omit<Config, "applyBDecToInput"> & Partial<Pick<Config, "applyBDecToInput">>
  : never;

export function encoderOf(config: SaeConfig): ConfiguredEncoder {
  return architectureNamed(config.architecture).configure(config);
}

/**
 * The architecture with its options; those that have defaults may be missing in a configuration written by hand.
 *
 * @param steps - of the run, where it is known
 * @throws MonosemError ERR_CONFIG naming the option, what it must be and what it is.
 */
export function trainingOf(config: SaeTrainingConfig, steps?: number): ConfiguredTraining {
  const architecture = architectureNamed(config.architecture);
  const schema = z.object({ ...architecture.options, ...architecture.trainingOptions } as Record<string, z.ZodType>);
  const filled = { ...config, ...parsedBy(schema, config) };
  refuseProblems(filled, steps);
  return architecture.configureTraining(filled);
}

/** A checked configuration of a trained SAE, defaults filled in. */
export type CheckedSaeConfig = SaeConfig & {
  readonly transcoder: boolean;
  readonly dOut: number;
  readonly skip: boolean;
  readonly normalizeActivations: "none" | "layer-norm" | "constant-norm";
};

/**
 * The part of a configuration that describes the trained SAE, checked: training options are left out, defaults filled
 * in.
 *
 * @throws MonosemError ERR_CONFIG naming the option, what it must be and what it is.
 */
export function parseSaeConfig(config: object): CheckedSaeConfig {
  const architecture = architectureNamed((config as { architecture?: unknown }).architecture);
  const schema = z.object({
    architecture: z.literal(architecture.name),
    dIn: z.int().positive(),
    dSae: z.int().positive(),
    transcoder: z.boolean().default(false),
    dOut: z.int().positive().optional(),
    skip: z.boolean().default(false),
    hookWidths: z.array(z.int().positive()).min(1).optional(),
    applyBDecToInput: z.boolean(),
    // a folded scale is no property of the trained SAE any more
    normalizeActivations: z.preprocess(
      (value) => (value === "expected-average-only-in" ? "none" : value),
      z.enum(["none", "layer-norm", "constant-norm"]).default("none"),
    ),
    ...architecture.options,
  });
  const data = parsedBy(schema, config);
  const parsed = { ...data, dOut: data.dOut ?? data.dIn } as unknown as CheckedSaeConfig;
  refuseProblems(parsed);
  return parsed;
}

function parsedBy<T>(schema: z.ZodType<T>, config: object): T {
  const result = checkedBy(schema, config);
  if (result.success) return result.data;
  throw new MonosemError("ERR_CONFIG", `SAE configuration: ${result.problems.join("; ")}`);
}

function refuseProblems(config: SaeConfig | SaeTrainingConfig, steps?: number): void {
  for (const [option, message] of configurationProblems(config, steps)) {
    const found = JSON.stringify((config as unknown as Record<string, unknown>)[option]);
    throw new MonosemError("ERR_CONFIG", `SAE configuration: ${option} ${message}, found ${found}`);
  }
}

/**
 * What does not fit together in a configuration whose options are each valid, as [option, message].
 *
 * @param steps of the run that it is for, where they are known
 */
export function configurationProblems(
  config: SaeConfig | SaeTrainingConfig,
  steps?: number,
): readonly (readonly [option: string, message: string])[] {
  const { dIn, dOut = dIn, transcoder = false, skip = false, hookWidths } = config;
  const { check } = architectureNamed(config.architecture);
  const problems: (readonly [string, string])[] = [...check({ ...config, steps })];
  if (transcoder) {
    if (config.applyBDecToInput) {
      problems.push([
        "applyBDecToInput",
        "must be false for a transcoder: the decoder bias is not of the input's space",
      ]);
    }
    const { normalizeActivations } = config;
    if (normalizeActivations === "layer-norm" || normalizeActivations === "constant-norm") {
      problems.push([
        "normalizeActivations",
        `must not be ${normalizeActivations} for a transcoder, whose output is not its input`,
      ]);
    }
  } else {
    if (dOut !== dIn) problems.push(["dOut", `must be dIn (${dIn}) unless the SAE is a transcoder`]);
    if (skip) problems.push(["skip", "must be false unless the SAE is a transcoder: it would copy its input"]);
  }
  if (hookWidths !== undefined) {
    const sum = hookWidths.reduce((total, width) => total + width, 0);
    if (sum !== dIn) problems.push(["hookWidths", `must add up to dIn (${dIn}), not ${sum}`]);
    if (transcoder) problems.push(["hookWidths", "must be left out for a transcoder"]);
  }
  return problems;
}
