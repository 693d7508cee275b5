import type { PairingOptions } from "../analysis/pairing.js";
import type { HookChoice } from "../analysis/saeHook.js";
import type { Device } from "../engine/device.js";
import { MonosemError } from "../errors.js";
import type { HookedTransformer } from "../models/hookedTransformer.js";
import type { Sae } from "../sae/sae.js";
import type { CorpusFlags } from "./corpusOptions.js";
import type { ExportFlags } from "./featureExports.js";
import { loadModel, loadSae } from "./folders.js";
import type { DeviceFlags, TokenizerFlags } from "./options.js";
import type { ReportFlags } from "./reportOutput.js";

/** Flags of `monosem features`, of which each way of using it needs some. */
export interface FeaturesFlags extends DeviceFlags, TokenizerFlags, CorpusFlags, ExportFlags, ReportFlags {
  readonly sae?: string;
  readonly model?: string;
  readonly corpus?: readonly string[];
  readonly hook?: readonly string[];
  readonly top: number;
  readonly latents?: readonly number[];
  readonly store?: string;
  readonly saveEvery?: number;
  readonly resume?: boolean;
  readonly from?: string;
  readonly prompt?: string;
  readonly by?: "activation" | "quantile" | "logit";
  readonly target?: string;
  readonly kinds?: boolean;
  readonly labels?: string;
  readonly pattern?: readonly string[];
  readonly redTeam?: string;
}

const placeholders = {
  sae: "--sae <dir>",
  model: "--model <dir>",
  corpus: "--corpus <glob...>",
  from: "--from <dir>",
  store: "--store <dir>",
  prompt: "--prompt <text>",
  target: "--target <token>",
  kinds: "--kinds",
} as const;

/** The value of a flag that is needed. @throws MonosemError ERR_CONFIG where it was not given, saying what it is needed for */
export function required<Name extends keyof typeof placeholders>(
  flags: FeaturesFlags,
  name: Name,
  purpose = "",
): NonNullable<FeaturesFlags[Name]> {
  const value = flags[name];
  if (value !== undefined) return value as NonNullable<FeaturesFlags[Name]>;
  throw new MonosemError("ERR_CONFIG", `required option '${placeholders[name]}' not specified${purpose}`);
}

/** Options, by commander's name for them, that a way of using the command would not look at. */
const outputs = ["html", "htmlPrompts", "all", "saedashboard", "neuronpedia", "sourceSet", "store"] as const;
const unusedWith = {
  kinds: ["prompt", ...outputs, "corpus"],
  prompt: [...outputs, "corpus", "latents"],
} as const;

/** @throws MonosemError ERR_CONFIG for an option that would be ignored beside `--kinds` or `--prompt` */
export function refuseUnused(flags: FeaturesFlags): void {
  const mode = flags.kinds ? "kinds" : flags.prompt === undefined ? undefined : "prompt";
  if (mode === undefined) return;
  const unused = unusedWith[mode].find((name) => flags[name] !== undefined);
  if (unused === undefined) return;
  const option = unused.replaceAll(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
  throw new MonosemError("ERR_CONFIG", `--${option} does not go with --${mode}: leave out one of the two`);
}

export interface SaeInModel extends Disposable {
  readonly sae: Sae;
  readonly model: HookedTransformer;
  /** To be given on with the two. */
  readonly chosen: PairingOptions & { readonly hook?: HookChoice };
}

/** Loads what `--sae` and `--model` name. */
export async function loadSaeInModel(flags: FeaturesFlags, device: Device, signal: AbortSignal): Promise<SaeInModel> {
  const [saeName, modelName] = [required(flags, "sae"), required(flags, "model")];
  const sae = await loadSae(saeName, device, signal);
  const model = await loadModel(modelName, device, { tokenizer: flags.tokenizer, signal, saes: [sae] });
  const { allowMismatch, hook } = flags;
  return {
    sae,
    model,
    chosen: { allowMismatch, ...(hook === undefined ? {} : { hook }) },
    [Symbol.dispose]() {
      model.dispose();
      sae.dispose();
    },
  };
}

/** @throws MonosemError ERR_INVALID_ARGUMENT for a latent that the SAE does not have */
export function checkLatents({ latents = [] }: FeaturesFlags, dSae: number): void {
  for (const latent of latents) {
    if (latent < dSae) continue;
    const message = `--latents: there is no latent ${latent}; the SAE has ${dSae}, numbered 0 to ${dSae - 1}`;
    throw new MonosemError("ERR_INVALID_ARGUMENT", message);
  }
}
