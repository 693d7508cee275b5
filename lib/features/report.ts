import type { LatentDecoderNorms } from "../analysis/decoderNorms.js";
import type { SummaryNumber } from "../analysis/featureReport.js";
import type { FeatureStatistics } from "../analysis/features.js";
import type { LatentRecord } from "./latentRecord.js";

/**
 * What reports on latents are made of, for a terminal (`featureReportText`), one page (`writeReportPage`) or a folder of
 * pages (`writeReportFolder`). Every string in it may be hostile: it is escaped where it is written.
 */
export interface FeatureReport {
  readonly title: string;
  /** Short facts under the title, such as ["model", "tiny-gpt2"]. */
  readonly facts: readonly (readonly [name: string, value: string])[];
  /** The numbers at the top. */
  readonly summary: readonly SummaryNumber[];
  /** How often all latents fire, not only those shown. */
  readonly densities: LatentDensities;
  /** The latents shown, in this order. */
  readonly latents: readonly number[];
  /** What is known of one of them. Asked for one after the other, so that they need not all be in memory. */
  readonly latent: (latent: number) => ReportedLatent | Promise<ReportedLatent>;
  /** Texts and the latents that are active on them, for the reader to choose from. */
  readonly prompts?: readonly RecordedPrompt[];
  /** The text of a token. */
  readonly tokenText: (id: number) => string;
}

export type LatentDensities = Pick<FeatureStatistics, "dSae" | "deadLatents" | "tokens" | "densityHistogram">;

type Known =
  | "latent"
  | "firingCount"
  | "density"
  | "maxActivation"
  | "minActivation"
  | "meanActivation"
  | "histogram"
  | "examples"
  | "negativeExamples";

/** A `LatentRecord`, or the part of one that was gathered: what is missing is not shown. */
export type ReportedLatent = Pick<LatentRecord, Known> & {
  readonly [Name in Exclude<keyof LatentRecord, Known>]?: LatentRecord[Name] | undefined;
} & {
  /** Of a crosscoder: how strongly the latent writes at each hook. */
  readonly decoderNorms?: LatentDecoderNorms["norms"] | undefined;
};

/** A text, and which latents are active on it, token by token. */
export interface RecordedPrompt {
  readonly text: string;
  readonly tokens: readonly {
    readonly token: number;
    readonly latents: readonly ActiveLatent[];
  }[];
}

/** A latent and its activation on a token. */
export interface ActiveLatent {
  readonly latent: number;
  readonly value: number;
}

/** The largest magnitude of a latent's activations: what shading is relative to. */
export function strongestOf({ maxActivation, minActivation }: ReportedLatent): number {
  return Math.max(maxActivation, -minActivation);
}
