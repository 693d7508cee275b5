import { MonosemError } from "../errors.js";
import type { HookedTransformer } from "../models/hookedTransformer.js";
import type { Sae } from "../sae/sae.js";
import { requirePair } from "./checkPair.js";
import { checkModel, mismatch, type PairingOptions } from "./pairing.js";

/**
 * The hook point of `model` that `sae` reads: `hook`, or where it is not given the one in the SAE's metadata.
 *
 * @throws MonosemError ERR_CONFIG if neither names one, if the SAE was trained on another model, at another hook
 * point or otherwise (`checkModel`), or if the hook point's width is not the SAE's dIn; what `requirePair` throws; ERR_NOT_FOUND if the model has no such hook point.
 */
export function hookForSae(
  model: HookedTransformer,
  sae: Sae,
  hook?: string,
  { allowMismatch = false }: PairingOptions = {},
): string {
  requirePair(model, sae);
  const { hookName } = sae.metadata;
  const chosen = hook ?? hookName;
  if (chosen === undefined) {
    throw new MonosemError(
      "ERR_CONFIG",
      "the SAE does not say which hook point it was trained on: name it (on the command line with --hook)",
    );
  }
  if (!allowMismatch) {
    if (hookName !== undefined && chosen !== hookName) {
      mismatch(`the SAE was trained on hook point "${hookName}", but "${chosen}" was asked for`);
    }
    checkModel(model, sae, [chosen]);
  }
  requireWidth(model, [chosen], sae.config.dIn, "the SAE reads", "inputs");
  return chosen;
}

/** Where an SAE reads, and where its output belongs. Of a crosscoder several hook points, side by side in its vectors. */
export interface SaeHooks {
  readonly input: readonly string[];
  /** The input's, but for a transcoder. */
  readonly output: readonly string[];
}

/** A hook point, or of a crosscoder all of them, in the order in which they lie side by side. */
export type HookChoice = string | readonly string[];

/**
 * The hook points of `model` that `sae` reads and whose activations it reconstructs: `hook`, or those in its metadata.
 *
 * @throws MonosemError as `hookForSae`; ERR_CONFIG for a transcoder whose metadata do not say which activations it
 * reconstructs, or if those have another width than its dOut; for a crosscoder if neither `hook` nor its metadata name
 * its hook points, if the two differ, or if a hook point has another width than the crosscoder's.
 */
export function hooksForSae(
  model: HookedTransformer,
  sae: Sae,
  hook?: HookChoice,
  pairing: PairingOptions = {},
): SaeHooks {
  requirePair(model, sae);
  const { hookNameOut } = sae.metadata;
  const asked = hook === undefined ? [] : [hook].flat();
  const several = crosscoderHooks(sae, asked);
  if (several !== undefined) {
    if (!pairing.allowMismatch) checkModel(model, sae, several);
    requireWidth(model, several, sae.config.dIn, "the SAE reads", "inputs");
    for (const [index, width] of (sae.config.hookWidths ?? []).entries()) {
      requireWidth(model, several.slice(index, index + 1), width, "the crosscoder reads", "inputs there");
    }
    return { input: several, output: several };
  }
  const input = [hookForSae(model, sae, asked[0], pairing)];
  if (!sae.config.transcoder) return { input, output: input };
  if (hookNameOut === undefined) {
    throw new MonosemError("ERR_CONFIG", "the transcoder does not say which hook point's activations it reconstructs");
  }
  requireWidth(model, [hookNameOut], sae.config.dOut, "the transcoder writes", "outputs");
  return { input, output: [hookNameOut] };
}

/** Undefined where the SAE is no crosscoder, as far as it and `asked` tell. */
function crosscoderHooks(
  { config: { hookWidths, transcoder }, metadata: { hookNames } }: Sae,
  asked: readonly string[],
): readonly string[] | undefined {
  const trained = Array.isArray(hookNames) ? hookNames.map(String) : undefined;
  if (trained === undefined && hookWidths === undefined) {
    if (asked.length < 2) return undefined;
    const kind = transcoder ? "a transcoder" : "no crosscoder";
    throw new MonosemError(
      "ERR_CONFIG",
      `the SAE is ${kind} and reads one hook point, but ${quoted(asked)} were named`,
    );
  }
  const wanted = hookWidths?.length ?? trained!.length;
  if (trained === undefined ? asked.length !== wanted : asked.length > 0 && asked.join() !== trained.join()) {
    throw new MonosemError(
      "ERR_CONFIG",
      trained === undefined
        ? `the crosscoder does not say which hook points it was trained on: name all ${wanted}, in order (on the command line with --hook)`
        : `the crosscoder was trained on hook points ${quoted(trained)}, but ${quoted(asked)} was asked for: its folder names them, so that none need be given`,
    );
  }
  return trained ?? asked;
}

function quoted(names: readonly string[]): string {
  return names.map((name) => `"${name}"`).join(" and ");
}

function requireWidth(
  model: HookedTransformer,
  hooks: readonly string[],
  expected: number,
  does: string,
  what: string,
): void {
  const width = hooks.reduce((sum, hook) => sum + model.hookWidth(hook), 0);
  if (width === expected) return;
  throw new MonosemError(
    "ERR_CONFIG",
    `hook point ${quoted(hooks)} of model "${model.config.name}" is ${width} wide, but ${does} ${expected} ${what}`,
  );
}
