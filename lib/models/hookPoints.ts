/**
 * The hook points of the model families, under TransformerLens' names.
 *
 * A name, what shape the activation has and when it is computed: no more. The forward pass (transformer.ts) computes the
 * activations in this order; a test holds the two together.
 */
import { refuseArgument } from "../checkArguments.js";
import { MonosemError } from "../errors.js";
import { closestNames } from "./closestNames.js";
import type { ModelConfig } from "./modelConfig.js";

/**
 * One dimension of an activation. `queryPos` and `keyPos` are positions too; `keyHead` are the heads of keys and values;
 * `1` is a dimension of size one.
 */
export type Dimension =
  | "batch"
  | "pos"
  | "dModel"
  | "head"
  | "keyHead"
  | "dHead"
  | "dMlp"
  | "queryPos"
  | "keyPos"
  | "1";

/** A place in a model where an activation can be read or replaced. */
export interface HookPoint {
  readonly name: string;
  readonly shape: readonly Dimension[];
  /** The block that computes it: -1 before the first block, the number of blocks after the last. */
  readonly layer: number;
}

/** What decides which hook points a model has. */
type Structure = Pick<
  ModelConfig,
  "nLayers" | "rotary" | "queryKeyNorms" | "gatedMlp" | "parallelBlocks" | "postNorms"
>;

type Named = readonly [name: string, shape: readonly Dimension[]];

const residual: readonly Dimension[] = ["batch", "pos", "dModel"];
const heads: readonly Dimension[] = ["batch", "pos", "head", "dHead"];
const keyHeads: readonly Dimension[] = ["batch", "pos", "keyHead", "dHead"];
const pattern: readonly Dimension[] = ["batch", "head", "queryPos", "keyPos"];
const neurons: readonly Dimension[] = ["batch", "pos", "dMlp"];

/** A norm's scale, sqrt(variance + epsilon) or sqrt(mean square + epsilon), and its result before weight and bias. */
function norm(name: string, vector: readonly Dimension[] = residual): Named[] {
  return [
    [`${name}.hook_scale`, [...vector.slice(0, -1), "1"]],
    [`${name}.hook_normalized`, vector],
  ];
}

/** The hook points of one block, without its prefix `blocks.N.`, in order of execution. */
function blockHookPoints({ rotary, queryKeyNorms, gatedMlp, parallelBlocks, postNorms }: Structure): Named[] {
  return [
    ["hook_resid_pre", residual], // what enters the block
    ...norm("ln1"),
    ["attn.hook_q", heads],
    ["attn.hook_k", keyHeads],
    ["attn.hook_v", keyHeads],
    ...(queryKeyNorms ? [...norm("attn.q_norm", heads), ...norm("attn.k_norm", keyHeads)] : []),
    ...(rotary
      ? ([
          ["attn.hook_rot_q", heads],
          ["attn.hook_rot_k", keyHeads],
        ] as const)
      : []), // with their positions
    ["attn.hook_attn_scores", pattern], // scaled and capped, -Infinity where the query does not see the key
    ["attn.hook_pattern", pattern], // their softmax
    ["attn.hook_z", heads], // pattern . v, before the output projection
    ...(postNorms ? norm("ln1_post") : []),
    ["hook_attn_out", residual], // what attention adds to the residual stream, bias and ln1_post included
    ...(parallelBlocks ? [] : ([["hook_resid_mid", residual]] as const)),
    ...norm("ln2"),
    ["mlp.hook_pre", neurons], // before the activation function
    ...(gatedMlp ? ([["mlp.hook_pre_linear", neurons]] as const) : []), // what the gate is multiplied with
    ["mlp.hook_post", neurons], // what the output projection reads
    ...(postNorms ? norm("ln2_post") : []),
    ["hook_mlp_out", residual], // what the MLP adds to the residual stream, bias and ln2_post included
    ["hook_resid_post", residual], // equals the next block's hook_resid_pre
  ];
}

/** Every hook point of a model, in order of execution. */
export function hookPointsOf(model: Structure): readonly HookPoint[] {
  const { nLayers } = model;
  const block = blockHookPoints(model);
  const at = (layer: number, prefix: string, points: readonly Named[]): HookPoint[] =>
    points.map(([name, shape]) => ({ name: `${prefix}${name}`, shape, layer }));
  return [
    ...at(-1, "", [["hook_embed", residual], ...(model.rotary ? [] : ([["hook_pos_embed", residual]] as const))]),
    ...Array.from({ length: nLayers }, (_, layer) => at(layer, `blocks.${layer}.`, block)).flat(),
    ...at(nLayers, "", norm("ln_final")),
  ];
}

/**
 * The hook point of that name.
 *
 * @throws MonosemError ERR_NOT_FOUND, with the names that come nearest; ERR_INVALID_ARGUMENT for what is no text
 */
export function findHookPoint(points: readonly HookPoint[], name: string): HookPoint {
  if (typeof name !== "string") refuseArgument("the hook point", "its name (such as one of hookNames)", name);
  const point = points.find((candidate) => candidate.name === name);
  if (point === undefined) {
    const near = closestNames(
      name,
      points.map((candidate) => candidate.name),
    );
    throw new MonosemError(
      "ERR_NOT_FOUND",
      `the model has no hook point ${JSON.stringify(name)}; nearest: ${near.join(", ")}`,
    );
  }
  return point;
}

/**
 * The numbers that a hook point holds for each token: the product of its dimensions after [batch, pos]; undefined for
 * attention scores and patterns, which belong to pairs of positions.
 */
export function widthPerToken(point: HookPoint, config: ModelConfig): number | undefined {
  const sizes: Partial<Record<Dimension, number>> = {
    dModel: config.dModel,
    head: config.nHeads,
    keyHead: config.nKeyValueHeads,
    dHead: config.dHead,
    dMlp: config.dMlp,
    1: 1,
  };
  const [first, second, ...rest] = point.shape;
  if (first !== "batch" || second !== "pos") return undefined;
  return rest.reduce((width, dimension) => width * sizes[dimension]!, 1);
}

const layerTypeAliases: ReadonlyMap<string, string> = new Map([
  ["a", "attn"],
  ["attention", "attn"],
  ["m", "mlp"],
  ["b", ""],
  ["block", ""],
  ["blocks", ""],
]);
const nameAliases: ReadonlyMap<string, string> = new Map([
  ["attn", "pattern"],
  ["attn_logits", "attn_scores"],
  ["key", "k"],
  ["query", "q"],
  ["value", "v"],
  ["mlp_pre", "pre"],
  ["mlp_mid", "mid"],
  ["mlp_post", "post"],
]);
const attentionNames = ["q", "k", "v", "z", "result", "pattern", "attn_scores", "rot_q", "rot_k"];
const mlpNames = ["pre", "mid", "post", "pre_linear"];

/**
 * The full name of a hook point from TransformerLens' short one (its `get_act_name`): `("resid_pre", 5)` is
 * `blocks.5.hook_resid_pre`, `("k", 6)` and `("k6")` are `blocks.6.attn.hook_k`, `("normalized", 27, "ln2")` is
 * `blocks.27.ln2.hook_normalized`, `("scale")` is `ln_final.hook_scale`, `("embed")` is `hook_embed`. A full name is
 * returned as it is.
 *
 * @param layerType - where the name alone does not say: "ln1", "ln2"; "attn" ("a") and "mlp" ("m") are accepted
 * @throws MonosemError ERR_INVALID_ARGUMENT for a layer that is no natural number
 */
export function getActName(name: string, layer?: number, layerType?: string): string {
  if (typeof name !== "string") refuseArgument("getActName: name", "the short name of a hook point", name);
  if (layer !== undefined && !(Number.isSafeInteger(layer) && layer >= 0)) {
    refuseArgument("getActName: layer", "the number of a layer, from 0", layer);
  }
  if (layer === undefined && layerType === undefined) {
    if (name.includes(".") || name.startsWith("hook_")) return name;
    const compact = /^([a-z]+)(\d+)([a-z]?.*)$/.exec(name);
    if (compact !== null) return getActName(compact[1]!, Number(compact[2]), compact[3]!);
  }
  const full = nameAliases.get(name) ?? name;
  let component = layerType === undefined ? "" : (layerTypeAliases.get(layerType) ?? layerType);
  if (attentionNames.includes(full)) component = "attn";
  else if (mlpNames.includes(full)) component = "mlp";
  else if (layer === undefined && (full === "scale" || full === "normalized")) component = "ln_final";
  return [layer === undefined ? [] : `blocks.${layer}`, component === "" ? [] : component, `hook_${full}`]
    .flat()
    .join(".");
}
