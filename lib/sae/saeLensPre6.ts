/**
 * The flat `cfg.json` of SAELens before version 6, in the form of version 6: names that changed, defaults that were, what
 * is metadata now. The rules are those of SAELens' own upgrade.
 */
import { MonosemError } from "../errors.js";
import { quotedValue } from "../schemaMessages.js";

const renamed: Readonly<Record<string, string>> = {
  hook_point: "hook_name",
  hook_point_head_index: "hook_head_index",
  activation_fn_str: "activation_fn",
};

const metadataKeys = [
  "model_name",
  "hook_name",
  "model_class_name",
  "hook_head_index",
  "model_from_pretrained_kwargs",
  "prepend_bos",
  "exclude_special_tokens",
  "neuronpedia_id",
  "context_size",
  "seqpos_slice",
  "dataset_path",
  "sae_lens_training_version",
];

/** Such a configuration has no `metadata`: that is where version 6 puts what is not about the numbers. */
export function isPre6(cfg: Readonly<Record<string, unknown>>): boolean {
  return cfg.metadata === undefined;
}

/** @throws MonosemError ERR_UNSUPPORTED for an activation function that version 6 does not know either */
export function upgradePre6(path: string, flat: Readonly<Record<string, unknown>>): Readonly<Record<string, unknown>> {
  const cfg: Record<string, unknown> = Object.fromEntries(
    Object.entries(flat).map(([key, value]) => [(Object.hasOwn(renamed, key) && renamed[key]) || key, value]),
  );
  const { architecture = "standard", activation_fn = "relu", activation_fn_kwargs, normalize_activations } = cfg;
  if (activation_fn !== "relu" && activation_fn !== "topk") {
    throw new MonosemError(
      "ERR_UNSUPPORTED",
      `${path}: activation_fn is ${quotedValue(activation_fn)}; relu and topk can be loaded`,
    );
  }
  const hookZ = typeof cfg.hook_name === "string" && cfg.hook_name.includes("hook_z");
  const metadata = metadataKeys.filter((key) => (cfg[key] ?? null) !== null).map((key) => [key, cfg[key]]);
  return {
    reshape_activations: hookZ ? "hook_z" : "none",
    ...cfg,
    ...(activation_fn === "topk"
      ? { architecture: "topk", k: (activation_fn_kwargs as { k?: unknown } | undefined)?.k ?? cfg.k }
      : { architecture }),
    normalize_activations: oldNormalization(normalize_activations),
    metadata: Object.fromEntries([["prepend_bos", true], ...metadata]),
  };
}

/** It was a boolean once. */
function oldNormalization(value: unknown): unknown {
  if (typeof value === "boolean") return value ? "expected_average_only_in" : "none";
  return value ?? "none";
}
