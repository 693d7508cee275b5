/** The published formats. A new one is a file beside this one and a line here. */
import { MonosemError } from "../errors.js";
import type { SaeLoadOptions, StoredSae } from "../sae/storedSae.js";
import { circuitTracer } from "./circuitTracer.js";
import { dictionaryLearning } from "./dictionaryLearning.js";
import { gemmaScope } from "./gemmaScope.js";
import { gemmaScope2 } from "./gemmaScope2.js";
import { llamaScope } from "./llamaScope.js";
import { llamascopium } from "./llamascopium.js";
import { Location } from "./location.js";
import type { PublishedFormat } from "./publishedFormat.js";
import { saeLens } from "./saeLens.js";
import { sparsify } from "./sparsify.js";
import { torchFiles } from "./torchFiles.js";

/** No two recognise the same files. The last knows nothing but a suffix. */
const formats: readonly PublishedFormat[] = [
  saeLens,
  sparsify,
  gemmaScope,
  gemmaScope2,
  dictionaryLearning,
  llamaScope,
  llamascopium,
  circuitTracer,
  torchFiles,
];

/** The name of the format of the SAE in a folder or file, by the names of its files; undefined for anything else. */
export async function publishedFormatOf(path: string): Promise<string | undefined> {
  const location = await Location.of(path);
  return formats.find((format) => format.recognises(location))?.name;
}

/** The files of a folder each of which is an SAE by itself, by their names. @throws MonosemError ERR_NOT_FOUND, ERR_IO */
export async function saeFilesIn(folder: string): Promise<readonly string[]> {
  const location = await Location.of(folder);
  return location.files.filter((file) => formats.some((format) => format.recognises(location.within(file))));
}

/** What SAEs are recognised by, for an error message. */
export function knownFormats(): string {
  return formats.map(({ name, knownBy }) => `${knownBy} (${name})`).join("; ");
}

/** @throws MonosemError as `Sae.load` */
export async function readPublishedSae(path: string, options: SaeLoadOptions = {}): Promise<StoredSae> {
  const location = await Location.of(path);
  const format = formats.find((candidate) => candidate.recognises(location));
  if (format !== undefined) {
    const sae = await format.read(location, options);
    const { input, output } = sae.scale ?? { input: 1, output: 1 };
    if (![input, output].every((scale) => scale > 0 && Number.isFinite(scale))) {
      const message = `${path}: activations cannot be scaled by ${input} and its reconstructions by 1/${output}`;
      throw new MonosemError("ERR_FORMAT", message);
    }
    if (options.inputScale === undefined || sae.scale?.input === options.inputScale) return sae;
    throw new MonosemError(
      "ERR_INVALID_ARGUMENT",
      `inputScale is ${options.inputScale}, but the weights in ${path} are for ` +
        (sae.scale === undefined
          ? "activations as they are"
          : `activations times ${sae.scale.input}, as it says itself`),
    );
  }
  const found = location.files.slice(0, 20).join(", ") || "nothing";
  throw new MonosemError(
    "ERR_NOT_FOUND",
    `${path} holds no SAE of a known format. Looked for ${knownFormats()}. Found ${found}`,
  );
}
