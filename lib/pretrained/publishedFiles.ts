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
const configurations = /\.(json|ya?ml)$/;

/** The folder that is to be listed: that of the SAE, or the one in which it is a file. */
export function folderToList(format: string, path: string): string | undefined {
  const folder = isFile(format, path) ? posix.dirname(path) : path;
  return folder === "." ? undefined : folder;
}

/**
 * The files of an SAE among those of its folder.
 *
 * @throws MonosemError ERR_NOT_FOUND naming what is missing
 */
export function filesOfSae(format: string, path: string, names: readonly string[]): readonly string[] {
  if (format === unknownFormat) return filesOfUnknown(path, names);
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

/** Of a file: itself and the configurations beside it; of a folder: what lies directly in it. */
function filesOfUnknown(path: string, names: readonly string[]): readonly string[] {
  const file = isFile(unknownFormat, path);
  const folder = posix.normalize(file ? posix.dirname(path) : path);
  const beside = names.filter((name) => posix.dirname(name) === folder);
  const found = beside.filter((name) => (file ? name === path || configurations.test(name) : knownEndings.test(name)));
  if (found.length > 0 && (!file || names.includes(path))) return found;
  const listed = names.slice(0, 10).join(", ");
  throw new MonosemError("ERR_NOT_FOUND", `${path} is or holds no file of a known kind; there are ${listed}`);
}

function isFile(format: string, path: string): boolean {
  if (format === unknownFormat) return knownEndings.test(path);
  return publishedFiles[format]!.needed.includes("{path}");
}
