/**
 * The hook points of the model families, under TransformerLens' names.
 *
 * A name, what shape the activation has and when it is computed: no more. The forward passes (gpt2.ts) compute the
 * activations in this order; a test holds the two together.
 */
import { MonosemError } from "../errors.js";
import { closestNames } from "./closestNames.js";
import type { ModelConfig } from "./modelConfig.js";

/** One dimension of an activation. `queryPos` and `keyPos` are positions too; `1` is a dimension of size one. */
export type Dimension = "batch" | "pos" | "dModel" | "head" | "dHead" | "dMlp" | "queryPos" | "keyPos" | "1";

/** A place in a model where an activation can be read or replaced. */
export interface HookPoint {
  readonly name: string;
  readonly shape: readonly Dimension[];
  /** The block that computes it: -1 before the first block, the number of blocks after the last. */
  readonly layer: number;
}

const residual: readonly Dimension[] = ["batch", "pos", "dModel"];
const heads: readonly Dimension[] = ["batch", "pos", "head", "dHead"];
const pattern: readonly Dimension[] = ["batch", "head", "queryPos", "keyPos"];
const neurons: readonly Dimension[] = ["batch", "pos", "dMlp"];
const perToken: readonly Dimension[] = ["batch", "pos", "1"];

/** The hook points of one GPT-2 block, without its prefix `blocks.N.`, in order of execution. */
const gpt2Block: readonly (readonly [name: string, shape: readonly Dimension[]])[] = [
  ["hook_resid_pre", residual], // what enters the block
  ["ln1.hook_scale", perToken], // sqrt(variance + epsilon)
  ["ln1.hook_normalized", residual], // (x - mean) / scale, before weight and bias
  ["attn.hook_q", heads],
  ["attn.hook_k", heads],
  ["attn.hook_v", heads],
  ["attn.hook_attn_scores", pattern], // scaled, -Infinity where the key lies after the query
  ["attn.hook_pattern", pattern], // their softmax
  ["attn.hook_z", heads], // pattern . v, before the output projection
  ["hook_attn_out", residual], // what attention adds to the residual stream, bias included
  ["hook_resid_mid", residual],
  ["ln2.hook_scale", perToken],
  ["ln2.hook_normalized", residual],
  ["mlp.hook_pre", neurons], // before the activation function
  ["mlp.hook_post", neurons], // after it
  ["hook_mlp_out", residual], // what the MLP adds to the residual stream, bias included
  ["hook_resid_post", residual], // equals the next block's hook_resid_pre
];

/** Every hook point of a GPT-2, in order of execution. */
export function gpt2HookPoints(config: Pick<ModelConfig, "nLayers">): readonly HookPoint[] {
  const { nLayers } = config;
  const blocks = Array.from({ length: nLayers }, (_, layer) =>
    gpt2Block.map(([name, shape]) => ({ name: `blocks.${layer}.${name}`, shape, layer })),
  );
  return [
    { name: "hook_embed", shape: residual, layer: -1 },
    { name: "hook_pos_embed", shape: residual, layer: -1 },
    ...blocks.flat(),
    { name: "ln_final.hook_scale", shape: perToken, layer: nLayers },
    { name: "ln_final.hook_normalized", shape: residual, layer: nLayers },
  ];
}

/**
 * The hook point of that name.
 *
 * @throws MonosemError ERR_NOT_FOUND, with the names that come nearest
 */
export function findHookPoint(points: readonly HookPoint[], name: string): HookPoint {
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
const attentionNames = ["q", "k", "v", "z", "result", "pattern", "attn_scores"];
const mlpNames = ["pre", "mid", "post"];

/**
 * The full name of a hook point from TransformerLens' short one (its `get_act_name`): `("resid_pre", 5)` is
 * `blocks.5.hook_resid_pre`, `("k", 6)` is `blocks.6.attn.hook_k`, `("normalized", 27, "ln2")` is
 * `blocks.27.ln2.hook_normalized`, `("scale")` is `ln_final.hook_scale`, `("embed")` is `hook_embed`. A full name is
 * returned as it is.
 *
 * @param layerType - where the name alone does not say: "ln1", "ln2"; "attn" ("a") and "mlp" ("m") are accepted
 */
export function getActName(name: string, layer?: number, layerType?: string): string {
  if (layer === undefined && layerType === undefined && (name.includes(".") || name.startsWith("hook_"))) return name;
  let component = layerType === undefined ? "" : (layerTypeAliases.get(layerType) ?? layerType);
  if (attentionNames.includes(name)) component = "attn";
  else if (mlpNames.includes(name)) component = "mlp";
  else if (layer === undefined && (name === "scale" || name === "normalized")) component = "ln_final";
  return [layer === undefined ? [] : `blocks.${layer}`, component === "" ? [] : component, `hook_${name}`]
    .flat()
    .join(".");
}
