/** The folders that arguments name: what is in them, and, where that is not what was asked for, what to name instead. */
import { access, stat } from "node:fs/promises";
import { extname, join } from "node:path";
import type { Device } from "../engine/device.js";
import { MonosemError } from "../errors.js";
import { readJsonFile } from "../formats/jsonFile.js";
import { HookedTransformer } from "../models/hookedTransformer.js";
import { Sae } from "../sae/sae.js";

const modelFolder = "a model's folder holds config.json, model.safetensors and tokenizer.json";
const saeFolder = "an SAE's folder holds cfg.json and sae_weights.safetensors";

/** @throws MonosemError as `Sae.load`; ERR_NOT_FOUND says where the SAE is, if the folder is the output of a training run. */
export async function loadSae(directory: string, device: Device): Promise<Sae> {
  await requireFolder(directory, (problem) => `${problem}; ${saeFolder}`);
  if (await holdsSae(directory)) return await Sae.load(directory, device);
  const run = await trainingRunIn(directory);
  if (run !== undefined) throw await outputOfRun(directory, run);
  if (await holdsModelConfig(directory)) {
    throw new MonosemError("ERR_NOT_FOUND", `${directory} holds a model, not an SAE: ${saeFolder}`);
  }
  throw new MonosemError("ERR_NOT_FOUND", `${directory} holds no SAE: ${saeFolder}${await saeBelow(directory)}`);
}

/**
 * @param directory - or a file `.bin` of llama2.c
 * @throws MonosemError as `HookedTransformer.load`; ERR_NOT_FOUND says what the folder holds instead of a model.
 */
export async function loadModel(directory: string, device: Device): Promise<HookedTransformer> {
  if (extname(directory) === ".bin") return await HookedTransformer.load(directory, device);
  await requireFolder(directory, (problem) => `${problem}; ${modelFolder}`);
  if ((await trainingRunIn(directory)) !== undefined) {
    const message = `${directory} is the output of a training run, not a model: ${modelFolder}`;
    throw new MonosemError("ERR_NOT_FOUND", message);
  }
  if (await holdsModelConfig(directory)) return await HookedTransformer.load(directory, device);
  const found = (await holdsSae(directory)) ? "an SAE, not a model" : "no model";
  throw new MonosemError("ERR_NOT_FOUND", `${directory} holds ${found}: ${modelFolder}`);
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

export function holdsSae(directory: string): Promise<boolean> {
  return exists(join(directory, "cfg.json"));
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

/** Of several SAEs that are trained together, each has a folder of its name with the SAE's in it. */
export async function saeBelow(directory: string): Promise<string> {
  const below = join(directory, "sae");
  return (await holdsSae(below)) ? `; there is one in ${below}` : "";
}

async function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}
