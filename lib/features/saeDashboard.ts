import { open } from "node:fs/promises";
import { join } from "node:path";
import { checkOptions, type OptionNames } from "../checkArguments.js";
import { throwIfAborted } from "../errors.js";
import { writeDirectoryAtomically } from "../formats/atomicFile.js";
import {
  dashboardFeature,
  type ExportedLatents,
  type ExportedRun,
  exportedRunOptionNames,
} from "./dashboardFeature.js";
import { strictJson } from "./strictJson.js";

/** What such a folder holds: nothing else is ever in it. */
export const SAE_DASHBOARD_FILES: RegExp = /^batch-\d+\.json$/;

/** As SAEDashboard has them. */
export const LATENTS_PER_BATCH = 128;

export interface SaeDashboardOptions extends ExportedRun {
  readonly modelId: string;
  /** The layer that the SAE reads. */
  readonly layer: number;
  /** The name that SAEs of this kind share, such as "res-jb". */
  readonly saeSet: string;
  /** Tells several SAEs of one set and layer apart. */
  readonly saeIdSuffix?: string;
  readonly signal?: AbortSignal;
  /** After each latent, with the latents written so far. */
  readonly onProgress?: (latents: number) => void;
}

const optionNames: OptionNames<SaeDashboardOptions> = {
  ...exportedRunOptionNames,
  modelId: true,
  layer: true,
  saeSet: true,
  saeIdSuffix: true,
  signal: "signal",
  onProgress: "function",
};

/**
 * Writes latents as SAEDashboard does: a folder of `batch-0.json`, `batch-1.json`, ... with 128 latents each, which
 * `NeuronpediaDashboardBatch` reads. Latents are written one by one, so that memory does not grow with their number.
 *
 * @param folder one of that name is replaced as a whole
 * @throws MonosemError ERR_NON_FINITE for a number that is none, ERR_IO, ERR_ABORTED; a previous folder is then in place
 */
export async function writeSaeDashboard(
  folder: string,
  { latents, latent, tokenText }: ExportedLatents,
  options: SaeDashboardOptions,
): Promise<void> {
  checkOptions("writeSaeDashboard", options, optionNames);
  const { modelId, layer, saeSet, saeIdSuffix, signal, onProgress } = options;
  const head = strictJson(
    { model_id: modelId, layer, sae_set: saeSet, sae_id_suffix: saeIdSuffix ?? null, features: [] },
    "the batch",
  ).slice(0, -"]}".length);
  await writeDirectoryAtomically(folder, async (directory) => {
    for (let first = 0; first < latents.length; first += LATENTS_PER_BATCH) {
      const file = await open(join(directory, `batch-${first / LATENTS_PER_BATCH}.json`), "wx");
      try {
        await file.appendFile(head);
        for (const [index, number] of latents.slice(first, first + LATENTS_PER_BATCH).entries()) {
          throwIfAborted(signal, "the export");
          const feature = await dashboardFeature(await latent(number), options, tokenText);
          await file.appendFile(`${index === 0 ? "" : ",\n"}${strictJson(feature, `latent ${number}`)}`);
          onProgress?.(first + index + 1);
        }
        await file.appendFile("]}\n");
      } finally {
        await file.close();
      }
    }
  });
}
