/** Latents in the formats of other systems' dashboards. */
import { dirname, resolve } from "node:path";
import type { Command } from "commander";
import { MonosemError } from "../errors.js";
import type { ExportedLatents, ExportedRun } from "../features/dashboardFeature.js";
import { NEURONPEDIA_FILES, sourceFolder, writeNeuronpedia } from "../features/neuronpedia.js";
import { SAE_DASHBOARD_FILES, writeSaeDashboard } from "../features/saeDashboard.js";
import type { HookedTransformer } from "../models/hookedTransformer.js";
import type { Sae } from "../sae/sae.js";
import { requireFolder } from "./folders.js";
import { checkOutputFolder, checkReplaceable } from "./outputFiles.js";
import { startProgress } from "./progress.js";

export interface ExportFlags {
  readonly saedashboard?: string;
  readonly neuronpedia?: string;
  readonly sourceSet?: string;
  readonly creator: string;
}

export function addExportOptions(command: Command): Command {
  return command
    .option("--saedashboard <dir>", "also write the latents as SAEDashboard's batches")
    .option("--neuronpedia <dir>", "also write the latents in the layout that Neuronpedia imports")
    .option("--source-set <name>", "what the exports call SAEs of this kind (default: such as res-768)")
    .option("--creator <name>", "whom the export for Neuronpedia names as the SAE's maker", "monosem");
}

/** The text that latents were observed on. */
export type ExportedText = Pick<ExportedRun, "contexts" | "contextSize" | "dataset">;

/** Writes what was asked for, and tells the folders. */
export type WriteExports = (latents: ExportedLatents, text: ExportedText, signal: AbortSignal) => Promise<string[]>;

/**
 * What the flags ask for, once it is sure that it can be written: before the work starts.
 *
 * @param input - the hook points that the SAE reads
 * @throws MonosemError ERR_UNSUPPORTED for an SAE that those formats have no place for, ERR_INVALID_ARGUMENT for names that
 *   cannot be theirs; as `checkOutputFolder`
 */
export async function planExports(
  flags: ExportFlags,
  { sae, model, input }: { readonly sae: Sae; readonly model: HookedTransformer; readonly input: readonly string[] },
): Promise<WriteExports> {
  const { saedashboard, neuronpedia, creator } = flags;
  if (saedashboard === undefined && neuronpedia === undefined) return async () => [];
  const { nLayers, dModel, dMlp, name } = model.config;
  const { architecture, dSae } = sae.config;
  const { layer, kind } = placeOf(input);
  const sourceSet = flags.sourceSet ?? `${kind}-${dSae}`;
  const id = (sae.metadata.modelName ?? name).split("/").at(-1)!;
  const source = {
    model: { id, layers: nLayers, dimension: dModel, neuronsPerLayer: dMlp },
    layer,
    sourceSet,
    hookName: input[0]!,
    description: `${architecture} SAEs of ${dSae} latents on ${input[0]} of ${id}`,
    creatorName: creator,
  };
  if (saedashboard !== undefined) await checkOutputFolder(saedashboard, SAE_DASHBOARD_FILES);
  if (neuronpedia !== undefined) {
    await requireFolder(dirname(resolve(neuronpedia)), (problem) => `cannot write ${neuronpedia}: ${problem}`);
    await checkReplaceable(sourceFolder(neuronpedia, source), NEURONPEDIA_FILES);
  }
  return async (latents, text, signal) => {
    const progress = startProgress("exporting", latents.latents.length, "latents");
    const shared = {
      ...text,
      direction: (latent: number) => decoderRow(sae, latent),
      signal,
      onProgress: (written: number) => progress.update(written),
    };
    const folders: string[] = [];
    try {
      if (saedashboard !== undefined) {
        await writeSaeDashboard(saedashboard, latents, { ...shared, modelId: id, layer, saeSet: sourceSet });
        folders.push(saedashboard);
      }
      if (neuronpedia !== undefined) {
        folders.push(await writeNeuronpedia(neuronpedia, latents, { ...shared, ...source }));
      }
    } finally {
      progress.stop();
    }
    return folders;
  };
}

const KINDS: Readonly<Record<string, string>> = {
  hook_resid_pre: "res-pre",
  hook_resid_mid: "res-mid",
  hook_resid_post: "res",
  hook_attn_out: "att",
  "attn.hook_z": "att",
  hook_mlp_out: "mlp",
};

/** Where an SAE stands, as those formats have it: in one layer. */
function placeOf(input: readonly string[]): { layer: number; kind: string } {
  const [, layer, hook] = /^blocks\.(\d+)\.(.+)$/.exec(input.length === 1 ? input[0]! : "") ?? [];
  if (layer !== undefined) return { layer: Number(layer), kind: KINDS[hook!] ?? "hook" };
  throw new MonosemError(
    "ERR_UNSUPPORTED",
    `the dashboards of other systems show SAEs that read one hook point in a layer; this one reads ${input.join(", ")}`,
  );
}

async function decoderRow(sae: Sae, latent: number): Promise<Float32Array> {
  using index = sae.device.tensor(Int32Array.of(latent), [1]);
  using row = sae.device.kernels.gatherRows(sae.parameters.decoder, index);
  return await row.readFloat32();
}
