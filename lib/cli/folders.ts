/** The folders that arguments name: what is in them, and, where that is not what was asked for, what to name instead. */
import { stat } from "node:fs/promises";
import { dirname, extname, join } from "node:path";
import { filesMatching } from "../activations/fileGlob.js";
import { processingOfSaes } from "../analysis/pairing.js";
import type { Device } from "../engine/device.js";
import { MonosemError } from "../errors.js";
import { exists } from "../formats/exists.js";
import { readJsonFile } from "../formats/jsonFile.js";
import { HookedTransformer } from "../models/hookedTransformer.js";
import { repositoryOfModel } from "../models/locateModel.js";
import type { ProcessingOptions } from "../models/processing.js";
import { publishedFormatOf, saeFilesIn } from "../pretrained/formats.js";
import { type PublishedSae, publishedSae, splitPublishedName } from "../pretrained/registry.js";
import { Sae } from "../sae/sae.js";
import { withDownloadProgress } from "./downloadProgress.js";

const modelFolder = "a model's folder holds config.json, model.safetensors and tokenizer.json";
const saeFolder = "an SAE's folder holds cfg.json and sae_weights.safetensors, or what another system saved";

/**
 * The SAE in a folder, or where there is no such folder the published one of that name.
 *
 * @throws MonosemError as `Sae.load`; ERR_NOT_FOUND says where the SAE is, if the folder is the output of a training run.
 */
export async function loadSae(name: string, device: Device, signal?: AbortSignal): Promise<Sae> {
  const published = await publishedUnlessThere(name);
  if (published !== undefined) {
    const { release, saeId } = published;
    return await withDownloadProgress(signal, (options) => Sae.fromPretrained({ release, saeId, ...options }, device));
  }
  if (await holdsSae(name)) return await Sae.load(name, device);
  await requireFolder(name, (problem) => `${problem}; ${saeFolder}`);
  const run = await trainingRunIn(name);
  if (run !== undefined) throw await outputOfRun(name, run);
  if (await holdsModelConfig(name)) {
    throw new MonosemError("ERR_NOT_FOUND", `${name} holds a model, not an SAE: ${saeFolder}`);
  }
  throw new MonosemError("ERR_NOT_FOUND", `${name} holds no SAE: ${saeFolder}${await saeBelow(name)}`);
}

export interface LoadModelOptions extends ProcessingOptions {
  /** The model's weights are processed as they were in the training of these, too. */
  readonly saes?: readonly Sae[];
  /** Where its tokenizer is, if not with it. */
  readonly tokenizer?: string | undefined;
  readonly signal?: AbortSignal | undefined;
}

/**
 * The model in a folder or in a file `.bin` of llama2.c, or where there is neither the one of that name on the hub.
 *
 * @throws MonosemError as `HookedTransformer.load`; ERR_NOT_FOUND says what the folder holds instead of a model.
 */
export async function loadModel(
  name: string,
  device: Device,
  { saes = [], signal, ...given }: LoadModelOptions = {},
): Promise<HookedTransformer> {
  const options = { ...given, processingFor: processingOfSaes(saes) };
  if (extname(name) === ".bin") return await HookedTransformer.load(name, device, options);
  if (!(await exists(name)) && repositoryOfModel(name) !== undefined) {
    return await withDownloadProgress(signal, (download) =>
      HookedTransformer.load(name, device, { ...options, ...download }),
    );
  }
  await requireFolder(name, (problem) => `${problem}; ${modelFolder}`);
  if ((await trainingRunIn(name)) !== undefined) {
    const message = `${name} is the output of a training run, not a model: ${modelFolder}`;
    throw new MonosemError("ERR_NOT_FOUND", message);
  }
  if (await holdsModelConfig(name)) return await HookedTransformer.load(name, device, options);
  const found = (await holdsSae(name)) ? "an SAE, not a model" : "no model";
  throw new MonosemError("ERR_NOT_FOUND", `${name} holds ${found}: ${modelFolder}`);
}

/** The published SAE that a name stands for where no folder and no file has it. */
export async function publishedUnlessThere(name: string): Promise<PublishedSae | undefined> {
  const split = (await exists(name)) ? undefined : splitPublishedName(name);
  return split === undefined ? undefined : publishedSae(split.release, split.saeId);
}

/**
 * @param message - of the error, from what is wrong with the folder
 * @throws MonosemError ERR_NOT_FOUND
 */
export async function requireFolder(path: string, message = (problem: string): string => problem): Promise<void> {
  const found = await stat(path).catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT" || error.code === "ENOTDIR") return undefined;
    throw new MonosemError("ERR_IO", message(`cannot look into the folder ${path}: ${error.message}`), {
      cause: error,
    });
  });
  if (found?.isDirectory()) return;
  const problem = found === undefined ? `the folder ${path} does not exist` : `${path} is not a folder`;
  throw new MonosemError("ERR_NOT_FOUND", message(problem));
}

/** Whether a folder, or a file, is an SAE of a known format by the names of its files. */
export async function holdsSae(path: string): Promise<boolean> {
  return (await exists(path)) && (await publishedFormatOf(path)) !== undefined;
}

/** The trainer writes a config.json, too: see {@link trainingRunIn}. */
export function holdsModelConfig(directory: string): Promise<boolean> {
  return exists(join(directory, "config.json"));
}

/** The folders of the SAEs that a training run with this output folder saves; undefined for any other folder. */
export async function trainingRunIn(directory: string): Promise<readonly string[] | undefined> {
  if (!(await holdsModelConfig(directory))) return undefined;
  const config = await readJsonFile(join(directory, "config.json"));
  if (typeof config !== "object" || config === null || !("sae" in config)) return undefined;
  return Array.isArray(config.sae)
    ? config.sae.map((sae: { readonly name?: unknown } | null) => join(directory, String(sae?.name), "sae"))
    : [join(directory, "sae")];
}

/** @param folders - of the run's SAEs, as `trainingRunIn` says */
export async function outputOfRun(directory: string, folders: readonly string[]): Promise<MonosemError> {
  const saved: string[] = [];
  for (const folder of folders) if (await holdsSae(folder)) saved.push(folder);
  const where =
    saved.length === 0
      ? `it has not saved ${folders.join(", ")} yet`
      : saved.length === 1
        ? `its SAE is in ${saved[0]}`
        : `its SAEs are in ${saved.join(", ")}`;
  return new MonosemError("ERR_NOT_FOUND", `${directory} is the output of a training run; ${where}`);
}

/**
 * Where in a folder that is no SAE there are some: of several that are trained together each has a folder of its name
 * with the SAE's in it, and some systems keep a file for each layer.
 */
export async function saeBelow(directory: string): Promise<string> {
  const below = join(directory, "sae");
  if (await holdsSae(below)) return `; there is one in ${below}`;
  const files = await saeFilesIn(directory);
  if (files.length === 0) return "";
  const shown = files.slice(0, 12).join(", ");
  return `; it has several in ${files.length > 12 ? `${files.length} files: ${shown}, ...` : shown}: name one of them`;
}

/** The folders that the arguments name, patterns replaced by the SAEs that match. */
export async function saeFolders(patterns: readonly string[]): Promise<readonly string[]> {
  const folders: string[] = [];
  for (const pattern of patterns) {
    if (/[*?]/.test(pattern)) folders.push(...(await filesMatching(join(pattern, "cfg.json"))).map(dirname));
    else folders.push(pattern);
  }
  return [...new Set(folders)];
}
