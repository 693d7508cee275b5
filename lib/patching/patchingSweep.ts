import { MonosemError } from "../errors.js";
import type { HookedTransformer } from "../models/hookedTransformer.js";
import { getActName } from "../models/hookPoints.js";
import { activationPatching } from "./activationPatching.js";
import type { AttributionPatchingResult } from "./attributionPatching.js";
import { type LatentPatchingOptions, latentsByDifference } from "./latentDifferences.js";
import { latentPatching } from "./latentPatching.js";
import type { PatchingOptions, PatchingResult } from "./patchedRuns.js";
import { headsOf, type Patch } from "./patchRows.js";
import { alignment, type PromptPair } from "./promptPair.js";

/** Effects of patches as a table. Labels are texts of any origin. */
export interface PatchingMap {
  readonly title: string;
  readonly rowTitle: string;
  readonly rows: readonly string[];
  readonly columns: readonly string[];
  /** [rows][columns], normalised as `PatchingResult.effects`. */
  readonly effects: readonly (readonly number[])[];
}

/** What the columns of a sweep over layers are. */
export type SweepOver = "position" | "head" | "head-and-position";

export interface PatchingSweep extends Omit<PatchingResult, "scores" | "effects"> {
  readonly maps: readonly PatchingMap[];
}

/**
 * Patches every layer at every position, or every head, one by one: a map for each component.
 *
 * @param components - TransformerLens' short names ("resid_pre", "attn_out", "mlp_out", "z", "pattern"), which are taken
 *   in every layer, or whole names of hook points
 * @param over - columns: `position`, or `head` (all positions together); `head-and-position` has a row for each head
 * @throws MonosemError as `activationPatching`; ERR_INVALID_ARGUMENT for a component without heads, or none
 */
export async function patchingSweep(
  components: readonly string[],
  over: SweepOver,
  options: PatchingOptions,
): Promise<PatchingSweep> {
  const { model, pair } = options;
  if (components.length === 0) throw new MonosemError("ERR_INVALID_ARGUMENT", "no components were named");
  const grids = components.map((component) => gridOf(model, pair, component, over));
  const patches = grids.flatMap(({ cells }) => cells.flat());
  const { scores, effects, ...result } = await activationPatching(patches, options);
  let next = 0;
  const maps = grids.map(({ cells, ...labels }) => ({
    ...labels,
    effects: cells.map((row) => row.map(() => effects[next++]!)),
  }));
  return { ...result, maps };
}

interface Grid extends Omit<PatchingMap, "effects"> {
  readonly cells: readonly (readonly Patch[])[];
}

function gridOf(model: HookedTransformer, pair: PromptPair, component: string, over: SweepOver): Grid {
  const whole = component.includes(".") || component.startsWith("hook_");
  const hooks = whole
    ? [component]
    : Array.from({ length: model.config.nLayers }, (_, layer) => getActName(component, layer));
  const layerName = (index: number): string => (whole ? component : String(index));
  const positions = [...alignment(pair).keys()];
  const heads = Array.from({ length: over === "position" ? 0 : headCount(model, hooks[0]!) }, (_, head) => head);
  const title = whole ? component : `${component} of each layer`;
  switch (over) {
    case "position":
      return {
        title,
        rowTitle: "layer",
        rows: hooks.map((_, index) => layerName(index)),
        columns: positionLabels(model, pair),
        cells: hooks.map((hook) => positions.map((position) => ({ hook, positions: [position] }))),
      };
    case "head":
      return {
        title: `${title}, by head`,
        rowTitle: "layer",
        rows: hooks.map((_, index) => layerName(index)),
        columns: heads.map((head) => `head ${head}`),
        cells: hooks.map((hook) => heads.map((head) => ({ hook, heads: [head] }))),
      };
    case "head-and-position":
      return {
        title: `${title}, by head and position`,
        rowTitle: "layer.head",
        rows: hooks.flatMap((_, index) => heads.map((head) => `${layerName(index)}.${head}`)),
        columns: positionLabels(model, pair),
        cells: hooks.flatMap((hook) =>
          heads.map((head) => positions.map((position) => ({ hook, positions: [position], heads: [head] }))),
        ),
      };
  }
}

function headCount(model: HookedTransformer, hook: string): number {
  const count = headsOf(model, hook);
  if (count !== undefined) return count;
  throw new MonosemError(
    "ERR_INVALID_ARGUMENT",
    `hook point ${hook} has shape [${model.hookShape(hook).join(", ")}], and no heads; z, q, k, v and pattern have`,
  );
}

/** The tokens at positions that are aligned: of the clean prompt, and where it is another one, of the corrupted prompt. */
export function positionLabels(model: HookedTransformer, pair: PromptPair): readonly string[] {
  return Array.from(alignment(pair), ([clean, corrupted]) => {
    const text = (id: number): string => model.tokenizer.tokenText(id);
    const [here, there] = [pair.clean[clean]!, pair.corrupted[corrupted]!];
    return here === there ? text(here) : `${text(here).trim()}/${text(there).trim()}`;
  });
}

const ALL_POSITIONS = "all";

/**
 * Patches latents one by one, at all positions together and at each: those whose writing differs most between the
 * prompts, the largest effects first. How much a latent differs does not say how large its effect is: where more differ
 * than `most`, one of large effect may be among those that are left out.
 *
 * @param most - latents
 * @throws MonosemError as `latentPatching`; ERR_INVALID_ARGUMENT where no latent differs
 */
export async function latentPatchingSweep(
  most: number,
  options: LatentPatchingOptions,
): Promise<PatchingSweep & { readonly latentsThatDiffer: number }> {
  const { model, pair, sae } = options;
  const positions = [...alignment(pair).keys()];
  let latentsThatDiffer = 0;
  const { patches, scores, effects, ...result } = await latentPatching(async (found) => {
    latentsThatDiffer = found.differences.size;
    const latents = (await latentsByDifference(sae, found)).slice(0, most);
    if (latents.length === 0) {
      throw new MonosemError("ERR_INVALID_ARGUMENT", "no latent of the SAE differs between the prompts");
    }
    return latents.flatMap((latent) => [
      { latents: [latent] },
      ...positions
        .filter((position) => found.differences.get(latent)!.has(position))
        .map((position) => ({ latents: [latent], positions: [position] })),
    ]);
  }, options);
  const byLatent = new Map<number, { whole: number; readonly at: Map<number, number> }>();
  patches.forEach((patch, index) => {
    const [latent] = patch.latents;
    const row = byLatent.get(latent!) ?? { whole: 0, at: new Map<number, number>() };
    if (patch.positions === undefined) row.whole = effects[index]!;
    else row.at.set(patch.positions[0]!, effects[index]!);
    byLatent.set(latent!, row);
  });
  const rows = Array.from(byLatent, ([latent, { whole, at }]) => ({ latent, effect: whole, positions: at })).sort(
    (a, b) => Math.abs(b.effect) - Math.abs(a.effect) || a.latent - b.latent,
  );
  return { ...result, latentsThatDiffer, maps: [latentMap("latents, patched", rows, model, pair)] };
}

/** The strongest latents that attribution patching found, as a map. */
export function attributionMap(
  { latents }: AttributionPatchingResult,
  most: number,
  { model, pair }: Pick<PatchingOptions, "model" | "pair">,
): PatchingMap {
  return latentMap("latents, linear estimate (attribution patching)", latents.slice(0, most), model, pair);
}

function latentMap(
  title: string,
  latents: readonly {
    readonly latent: number;
    readonly effect: number;
    readonly positions: ReadonlyMap<number, number>;
  }[],
  model: HookedTransformer,
  pair: PromptPair,
): PatchingMap {
  const positions = [...alignment(pair).keys()];
  return {
    title,
    rowTitle: "latent",
    rows: latents.map(({ latent }) => String(latent)),
    columns: [ALL_POSITIONS, ...positionLabels(model, pair)],
    // A latent that does not differ at a position changes nothing there.
    effects: latents.map((one) => [one.effect, ...positions.map((position) => one.positions.get(position) ?? 0)]),
  };
}
