/** Which files of a repository are an SAE, by the format that it was published in. */
import { posix } from "node:path";
import { MonosemError } from "../errors.js";

/** Names beside the SAE's path: {path} is that, {name} without the ending of the file that it names. */
interface PublishedFiles {
  readonly needed: readonly string[];
  /** Of each list one. */
  readonly oneOf?: readonly (readonly string[])[];
  readonly welcome?: readonly string[];
}

/** The format of a repository that is in no registry: whatever lies in the folder itself. */
export const unknownFormat = "unknown";

const publishedFiles: Readonly<Record<string, PublishedFiles>> = {
  saelens: { needed: ["{path}/cfg.json", "{path}/sae_weights.safetensors"] },
  "gemma-scope": { needed: ["{path}/params.npz"] },
  "llama-scope": { needed: ["{path}/hyperparams.json", "{path}/checkpoints/final.safetensors"] },
  sparsify: { needed: ["{path}/cfg.json", "{path}/sae.safetensors"] },
  "dictionary-learning": { needed: ["{path}/config.json", "{path}/ae.pt"] },
  "hook-z": { needed: ["{path}", "{name}_cfg.json"] },
  "circuit-tracer": {
    needed: ["{path}"],
    oneOf: [["wandb-config.yaml", "wanb-config.yaml"]],
    welcome: ["config.yaml"],
  },
  "qwen-scope": { needed: ["{path}"] },
  goodfire: { needed: ["{path}"] },
};

const knownEndings = /\.(json|ya?ml|safetensors|npz|pt|pth)$/;

/** The folder that is to be listed: that of the SAE, or the one in which it is a file. */
export function folderToList(format: string, path: string): string | undefined {
  const folder = isFile(format) ? posix.dirname(path) : path;
  return folder === "." ? undefined : folder;
}

/**
 * The files of an SAE among those of its folder.
 *
 * @throws MonosemError ERR_NOT_FOUND naming what is missing
 */
export function filesOfSae(format: string, path: string, names: readonly string[]): readonly string[] {
  if (format === unknownFormat) {
    const folder = path === "." ? "" : `${path}/`;
    const found = names.filter((name) => posix.dirname(`/${name}`) === posix.dirname(`/${folder}x`));
    const fitting = found.filter((name) => knownEndings.test(name));
    if (fitting.length > 0) return fitting;
    throw new MonosemError("ERR_NOT_FOUND", `${path} holds no file of a known kind (${names.slice(0, 10).join(", ")})`);
  }
  const { needed, oneOf = [], welcome = [] } = publishedFiles[format]!;
  const resolved = (name: string): string =>
    name.replace("{path}", () => path).replace("{name}", () => path.replace(/\.\w+$/, ""));
  const has = new Set(names);
  const chosen = needed.map(resolved);
  const missing = chosen.filter((name) => !has.has(name));
  for (const list of oneOf) {
    const found = list.find((name) => has.has(name));
    if (found === undefined) missing.push(list.join(" or "));
    else chosen.push(found);
  }
  if (missing.length > 0) {
    throw new MonosemError("ERR_NOT_FOUND", `${missing.join(", ")} is missing, which an SAE of format ${format} has`);
  }
  return [...chosen, ...welcome.filter((name) => has.has(name))];
}

/** Whether an SAE's path names a file, not a folder. */
export function isFile(format: string): boolean {
  return publishedFiles[format]?.needed.includes("{path}") ?? false;
}
