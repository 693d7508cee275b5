import { readdir } from "node:fs/promises";
import type { Command } from "commander";
import { visibleText } from "../analysis/visibleText.js";
import type { Device } from "../engine/device.js";
import { MonosemError } from "../errors.js";
import { publishedFormatOf } from "../pretrained/formats.js";
import { known, type SaeMetadata } from "../sae/metadata.js";
import { Sae } from "../sae/sae.js";
import { isUnfinishedSaeLensFolder, saeLensCfg } from "../sae/saeLensFolder.js";
import { loadSae } from "./folders.js";
import { withInterruption } from "./interruption.js";
import { type DeviceFlags, deviceOption, positiveNumber, threadsOption, withDevice } from "./options.js";

interface ConvertFlags extends DeviceFlags {
  readonly modelName?: string;
  readonly hook?: readonly string[];
  readonly hookOut?: string;
  readonly inputScale?: number;
}

export function registerConvert(program: Command): void {
  program
    .command("convert")
    .argument("<in>", "folder or file of an SAE of any format that is known")
    .argument("<out>", "folder to write; new or empty")
    .summary("rewrite an SAE of another system as a SAELens folder")
    .description(
      `Reads an SAE that another system saved and writes it as monosem and SAELens do: cfg.json and sae_weights.safetensors in float32. Scales that the format keeps beside its weights are folded into them; latents and reconstructions stay the same.

Some formats say by the names of repository and folder alone which model and hook point an SAE is for. Where those are lost, a warning says what is unknown; --model-name, --hook and --hook-out supply it.

Formats: SAELens (all versions), Gemma Scope (params.npz) and Gemma Scope 2, dictionary_learning and SAEBench (ae.pt), OpenAI (.pt), sparsify, Llama Scope and Llamascopium, Goodfire, qresearch, Qwen Scope, circuit-tracer's transcoders.`,
    )
    .option("--model-name <name>", "model that it was trained on, such as gemma-2-2b")
    .option(
      "--hook <name>",
      "hook point that it reads, such as blocks.12.hook_resid_post; repeatable, for a crosscoder",
      (name: string, earlier: readonly string[] = []) => [...earlier, name],
    )
    .option("--hook-out <name>", "hook point whose activations a transcoder reconstructs")
    .option(
      "--input-scale <number>",
      'the factor by which activations are multiplied, of a SAELens folder that says "expected_average_only_in" and not which',
      positiveNumber,
    )
    .addOption(deviceOption())
    .addOption(threadsOption())
    .addHelpText(
      "after",
      `
Examples:
  monosem convert gemma-scope-2b-pt-res/layer_12/width_16k/average_l0_82 converted
  monosem convert moved/average_l0_82 converted --model-name gemma-2-2b --hook blocks.12.hook_resid_post
  monosem convert resid_post_mlp_v5_32k/autoencoders/8.pt converted
  monosem convert gemma-2b-res-jb/blocks.12.hook_resid_post converted --input-scale 0.2138`,
    )
    .action((input: string, output: string, flags: ConvertFlags) =>
      withInterruption(() => withDevice(flags, (device) => convert(input, output, flags, device))),
    );
}

/** The values of `architecture` in cfg.json with which SAELens 6 loads a folder. */
const KNOWN_TO_SAELENS: ReadonlySet<string> = new Set([
  "standard",
  "topk",
  "gated",
  "jumprelu",
  "transcoder",
  "skip_transcoder",
  "jumprelu_transcoder",
  "jumprelu_skip_transcoder",
]);

async function convert(input: string, output: string, flags: ConvertFlags, device: Device): Promise<void> {
  await refuseFilled(output);
  const { inputScale } = flags;
  using read = inputScale === undefined ? await loadSae(input, device) : await Sae.load(input, device, { inputScale });
  const sae = new Sae(read.config, read.parameters, device, { ...read.metadata, ...suppliedMetadata(read, flags) });
  await sae.save(output);
  const unknown = unknownOf(sae);
  if (unknown.length > 0) {
    const warning = `warning: nothing in ${input} or its path says ${unknown.join(", ")}; what is missing can be given`;
    process.stderr.write(`${visibleText(warning)}\n`);
  }
  const written = String(saeLensCfg(sae.config, sae.metadata).architecture);
  if (!KNOWN_TO_SAELENS.has(written)) {
    process.stderr.write(
      `note: SAELens knows no "${visibleText(written)}": monosem reads the folder, SAELens does not\n`,
    );
  }
  const { architecture, dIn, dSae, transcoder, hookWidths } = sae.config;
  const kind = transcoder ? "transcoder" : hookWidths === undefined ? "SAE" : "crosscoder";
  const what = `${architecture} ${kind}, dIn ${dIn}, dSae ${dSae}`;
  process.stdout.write(`${visibleText(`${await publishedFormatOf(input)}: ${what} -> ${output}`)}\n`);
}

/** @throws MonosemError ERR_CONFIG for hook points that the SAE has no place for */
function suppliedMetadata({ config }: Sae, { modelName, hook, hookOut }: ConvertFlags): SaeMetadata {
  const { hookWidths, transcoder } = config;
  const hooks = hookWidths?.length ?? 1;
  if (hook !== undefined && hook.length !== hooks) {
    throw new MonosemError("ERR_CONFIG", `--hook names ${hook.length} hook points, but the SAE reads ${hooks}`);
  }
  if (hookOut !== undefined && !transcoder) {
    throw new MonosemError("ERR_CONFIG", "--hook-out is for transcoders: the SAE reconstructs what it reads");
  }
  return known({
    modelName,
    ...(hookWidths === undefined ? { hookName: hook?.[0] } : { hookNames: hook }),
    hookNameOut: hookOut,
  });
}

/** What commands will ask for, or cannot check. */
function unknownOf({ config: { hookWidths, transcoder }, metadata }: Sae): readonly string[] {
  const hook = hookWidths === undefined ? metadata.hookName : metadata.hookNames;
  return [
    ...(metadata.modelName === undefined ? ["its model (--model-name)"] : []),
    ...(hook === undefined ? ["its hook point (--hook)"] : []),
    ...(transcoder && metadata.hookNameOut === undefined ? ["the hook point it writes to (--hook-out)"] : []),
  ];
}

/** A folder with other files could be recognised as two formats afterwards; what a killed conversion left is none. */
async function refuseFilled(output: string): Promise<void> {
  const files = await readdir(output).catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") return [];
    throw new MonosemError("ERR_CONFIG", `cannot write to ${output}: ${error.message}`, { cause: error });
  });
  if (!isUnfinishedSaeLensFolder(files)) {
    throw new MonosemError("ERR_CONFIG", `${output} is not empty (${files.slice(0, 3).join(", ")}): name a new folder`);
  }
}
