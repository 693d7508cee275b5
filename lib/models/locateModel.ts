/** Where a language model is: a folder or file on this machine, or a repository on the hub, whose files then come into the cache. */
import { readFileSync } from "node:fs";
import { basename, resolve } from "node:path";
import { MonosemError } from "../errors.js";
import { exists } from "../formats/exists.js";
import { type DownloadOptions, downloadFiles, type HubSnapshot } from "../hub/download.js";
import { isRepositoryName } from "../hub/names.js";
import { closestNames } from "./closestNames.js";

/** Where a model was taken from. */
export interface ModelSource {
  /** That of its folder, or of its file without ".bin", or the last part of its repository's name. */
  readonly name: string;
  /** Or the file. */
  readonly directory: string;
  /** Undefined for a folder. */
  readonly hub: HubSnapshot | undefined;
}

let names: ReadonlyMap<string, string> | undefined;

/** Repositories by the short names that TransformerLens and SAEs have for models: modelNames.json. */
function modelNames(): ReadonlyMap<string, string> {
  names ??= new Map(
    Object.entries(JSON.parse(readFileSync(new URL("modelNames.json", import.meta.url), "utf8")) as object),
  );
  return names;
}

/**
 * The repository that a model's name stands for: "gpt2" and "gpt2-small" are "openai-community/gpt2", and "owner/name" is
 * itself; undefined for what is no name of a model.
 */
export function repositoryOfModel(name: string): string | undefined {
  const known = modelNames().get(name) ?? modelNames().get(name.toLowerCase());
  return known ?? (name.includes("/") && isRepositoryName(name) ? name : undefined);
}

/** Whether two names are of the same model: "gpt2-small", "openai-community/gpt2" and a folder called "gpt2" are. */
export function isSameModel(a: string, b: string): boolean {
  return canonicalName(a) === canonicalName(b);
}

function canonicalName(name: string): string {
  return (repositoryOfModel(name) ?? name).split("/").at(-1)!.toLowerCase();
}

/**
 * A folder of that name, where there is one; else the model on the hub, downloaded into the cache as far as it is not
 * there.
 *
 * @throws MonosemError ERR_NOT_FOUND when there is neither, with the names that come nearest; as `downloadFiles`
 */
export async function locateModel(model: string, options: DownloadOptions = {}): Promise<ModelSource> {
  if (await exists(model)) {
    return { name: basename(resolve(model), ".bin"), directory: model, hub: undefined };
  }
  const repository = repositoryOfModel(model);
  if (repository === undefined) {
    throw new MonosemError("ERR_NOT_FOUND", `the folder ${model} does not exist${namesNear(model)}`);
  }
  try {
    const hub = await downloadFiles(repository, undefined, filesOfModel, options);
    return { name: repository.split("/").at(-1)!, directory: hub.directory, hub };
  } catch (error) {
    if (!(error instanceof MonosemError) || error.code !== "ERR_NOT_FOUND") throw error;
    throw new MonosemError("ERR_NOT_FOUND", `the folder ${model} does not exist, and ${error.message}`, {
      cause: error,
    });
  }
}

/** What to say of a name that is no folder: names of models that come near, if it might be one. */
export function namesNear(name: string): string {
  if (!isRepositoryName(name)) return "";
  const near = closestNames(name, [...modelNames().keys()]).join(", ");
  return `, and no model is known by that name: did you mean ${near}?`;
}

const neededFiles = ["config.json"];
const welcomeFiles = [
  "tokenizer.json",
  "generation_config.json",
  "tokenizer_config.json",
  "special_tokens_map.json",
  "chat_template.jinja",
  "chat_template.json",
];

/**
 * The files of a repository that make up a model: configuration, tokenizer and weights in safetensors, whole or in pieces.
 *
 * @throws MonosemError ERR_NOT_FOUND naming what is missing
 */
export function filesOfModel(all: readonly string[]): readonly string[] {
  const missing = neededFiles.filter((name) => !all.includes(name));
  const pieces = all.filter((name) => /^model-\d{5}-of-\d{5}\.safetensors$/.test(name));
  const index = "model.safetensors.index.json";
  const weights = all.includes("model.safetensors") ? ["model.safetensors"] : [index, ...pieces];
  const expected = Number(/of-(\d{5})/.exec(pieces[0] ?? "")?.[1] ?? 1);
  const inPieces = all.includes(index) && pieces.length === expected;
  if (!all.includes("model.safetensors") && !inPieces)
    missing.push(pieces.length === 0 ? "model.safetensors" : `some of the ${expected} pieces of the weights`);
  if (missing.length > 0) {
    const found = all.filter((name) => !name.includes("/")).slice(0, 20);
    throw new MonosemError("ERR_NOT_FOUND", `${missing.join(", ")} is missing; there are ${found.join(", ")}`);
  }
  return [...neededFiles, ...welcomeFiles.filter((name) => all.includes(name)), ...weights];
}
