/** Formats that are a single PyTorch file, told apart by the tensors in it and by its name. */
import { MonosemError } from "../errors.js";
import type { StoredSae } from "../sae/storedSae.js";
import { hookZ } from "./hookZ.js";
import { goodfire, qresearch } from "./linearLayers.js";
import type { Location } from "./location.js";
import { openai } from "./openai.js";
import type { PublishedFormat } from "./publishedFormat.js";
import { qwenScope } from "./qwenScope.js";
import { TorchStateDict } from "./torchStateDict.js";

export interface TorchFileFormat {
  readonly name: string;
  /** That it is known by. */
  readonly tensors: readonly string[];
  /** For people: what the file must be called, where the tensors do not say enough. */
  readonly fileName?: string;
  fits?(location: Location, file: string): boolean;
  /** As `PublishedFormat.read`, from a file that fits. */
  read(location: Location, state: TorchStateDict, file: string): Promise<StoredSae>;
}

const torchFileFormats: readonly TorchFileFormat[] = [openai, goodfire, qwenScope, hookZ, qresearch];
const pattern = /\.pth?$/;

export const torchFiles: PublishedFormat = {
  name: "PyTorch file",
  knownBy: `one .pt or .pth file (${torchFileFormats.map(({ name }) => name).join(", ")})`,
  // beside a config.json it is more likely a model's, unless it was named
  recognises: (location) =>
    location.only(pattern) !== undefined && (location.file !== undefined || !location.files.includes("config.json")),

  async read(location) {
    const file = location.only(pattern)!;
    const named = location.within(file);
    await using state = await TorchStateDict.open(location.at(file));
    const format = torchFileFormats.find(({ tensors, fits }) => state.has(...tensors) && (fits?.(named, file) ?? true));
    if (format !== undefined) return await format.read(named, state, file);
    const looked = torchFileFormats.map(
      ({ name, tensors, fileName }) =>
        `${name} (${tensors.join(", ")}${fileName === undefined ? "" : `, in ${fileName}`})`,
    );
    const found = [...state.entries.keys()].slice(0, 20).join(", ") || "none";
    throw new MonosemError(
      "ERR_UNSUPPORTED",
      `${state.path} holds no SAE of a known format. Looked for the tensors of ${looked.join("; ")}; found ${found}`,
    );
  },
};
