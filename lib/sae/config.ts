/** What describes a trained SAE, as types derived from the registered architectures. */
import { z } from "zod";
import { MonosemError } from "../errors.js";
import type { Architecture, ConfiguredEncoder, ConfiguredTraining } from "./architecture.js";
import { type ArchitectureName, architectureNames, architectures } from "./architectures.js";

type OptionsOf<Name extends ArchitectureName> =
  (typeof architectures)[Name] extends Architecture<string, infer Options, infer _> ? Options : never;
type TrainingOptionsOf<Name extends ArchitectureName> =
  (typeof architectures)[Name] extends Architecture<string, infer _, infer Options> ? Options : never;

interface SaeShape {
  /** Width of the activations. */
  readonly dIn: number;
  /** Number of latents. */
  readonly dSae: number;
  /** Whether the encoder sees x - b_dec instead of x. */
  readonly applyBDecToInput: boolean;
}

/** A trained SAE: its architecture, its sizes, and what encoding needs, for example `k`. */
export type SaeConfig = {
  [Name in ArchitectureName]: SaeShape & { readonly architecture: Name } & OptionsOf<Name>;
}[ArchitectureName];

/** What shapes the training of an SAE of any architecture. */
export interface CommonTrainingOptions {
  /**
   * Keeps the decoder rows at norm 1: their gradient along themselves is removed, and they are renormalised after every
   * step. The sparsity penalty of `relu` is then not weighted by the norms.
   */
  readonly decoderUnitNorm: boolean;
  /** A latent that has not fired for this many tokens counts as dead. */
  readonly deadAfterTokens: number;
  readonly bDecInit: "zero" | "geometric-median";
  /** "expected-average-only-in": activations times sqrt(dIn) / E|x|, folded into the weights when training ends. */
  readonly normalizeActivations: "none" | "expected-average-only-in";
  /** Folder of an SAE to start from. */
  readonly init?: string | undefined;
}

/** A trained SAE and how it is trained. */
export type SaeTrainingConfig = {
  [Name in ArchitectureName]: SaeShape & { readonly architecture: Name } & OptionsOf<Name> &
    TrainingOptionsOf<Name> &
    CommonTrainingOptions;
}[ArchitectureName];

/** The architecture of that name with its option types erased, for code that works with any of them. */
export function architectureNamed(name: ArchitectureName): Architecture<ArchitectureName, object, object> {
  return architectures[name];
}

export function encoderOf(config: SaeConfig): ConfiguredEncoder {
  return architectureNamed(config.architecture).configure(config);
}

export function trainingOf(config: SaeTrainingConfig): ConfiguredTraining {
  return architectureNamed(config.architecture).configureTraining(config);
}

/**
 * The part of a configuration that describes the trained SAE, checked: training options are left out.
 *
 * @throws MonosemError ERR_CONFIG naming the option, what it must be and what it is.
 */
export function parseSaeConfig(config: object): SaeConfig {
  const { architecture } = config as { architecture?: unknown };
  const name = architectureNames.find((known) => known === architecture);
  if (name === undefined) {
    throw new MonosemError(
      "ERR_CONFIG",
      `SAE architecture ${JSON.stringify(architecture)} is unknown; known are ${architectureNames.join(", ")}`,
    );
  }
  const schema = z.object({
    architecture: z.literal(name),
    dIn: z.int().positive(),
    dSae: z.int().positive(),
    applyBDecToInput: z.boolean(),
    ...architectureNamed(name).options,
  });
  const result = schema.safeParse(config);
  if (!result.success) {
    const issues = result.error.issues.map((issue) => `${issue.path.join(".")}: ${issue.message}`);
    throw new MonosemError("ERR_CONFIG", `SAE configuration: ${issues.join("; ")}`);
  }
  const parsed = result.data as SaeConfig;
  if (parsed.architecture === "topk" && parsed.k > parsed.dSae) {
    throw new MonosemError(
      "ERR_CONFIG",
      `SAE configuration: k is ${parsed.k} but there are only ${parsed.dSae} latents`,
    );
  }
  return parsed;
}
