import { MonosemError } from "../errors.js";
import { quotedValue } from "../schemaMessages.js";
import type { Family } from "./families/family.js";
import { gemma2 } from "./families/gemma2.js";
import { gpt2 } from "./families/gpt2.js";
import { gptNeox } from "./families/gptNeox.js";
import { llama } from "./families/llama.js";
import { mistral } from "./families/mistral.js";
import { qwen2 } from "./families/qwen2.js";
import { qwen3 } from "./families/qwen3.js";
import type { Architecture } from "./modelConfig.js";

const families: Readonly<Record<Architecture, Family>> = {
  gpt2,
  gpt_neox: gptNeox,
  llama,
  mistral,
  qwen2,
  qwen3,
  gemma2,
};

/**
 * The family that a config.json belongs to.
 *
 * @param path - of the config.json, for the message
 * @throws MonosemError ERR_UNSUPPORTED, with the families that there are
 */
export function familyOf(json: Record<string, unknown>, path: string): Family {
  const { model_type: type } = json;
  if (typeof type === "string" && Object.hasOwn(families, type)) return families[type as Architecture];
  const found = type === undefined ? "no model_type" : `model_type ${quotedValue(type)}`;
  const known = Object.keys(families).map((name) => JSON.stringify(name));
  throw new MonosemError("ERR_UNSUPPORTED", `${path} has ${found}; supported are ${known.join(", ")}`);
}
