import { readSaeLensFolder } from "../sae/saeLensFolder.js";
import type { PublishedFormat } from "./publishedFormat.js";

/** What this library and SAELens save. */
export const saeLens: PublishedFormat = {
  name: "SAELens",
  knownBy: "cfg.json with sae_weights.safetensors",
  // the weights may be missing: then that is the error, and no other format is meant
  recognises: ({ file, files }) =>
    files.includes("cfg.json") &&
    !files.includes("sae.safetensors") &&
    (file === undefined || ["cfg.json", "sae_weights.safetensors"].includes(file)),
  read: (location, options) => readSaeLensFolder(location.folder, options),
};
