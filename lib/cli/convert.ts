import { readdir } from "node:fs/promises";
import type { Command } from "commander";
import { visibleText } from "../analysis/visibleText.js";
import type { Device } from "../engine/device.js";
import { MonosemError } from "../errors.js";
import { publishedFormatOf } from "../pretrained/formats.js";
import { Sae } from "../sae/sae.js";
import { loadSae } from "./folders.js";
import { withInterruption } from "./interruption.js";
import { type DeviceFlags, deviceOption, positiveNumber, threadsOption, withDevice } from "./options.js";

interface ConvertFlags extends DeviceFlags {
  readonly inputScale?: number;
}

export function registerConvert(program: Command): void {
  program
    .command("convert")
    .argument("<in>", "folder or file of an SAE of any format that is known")
    .argument("<out>", "folder to write; new or empty")
    .summary("rewrite an SAE of another system as a SAELens folder")
    .description(
      `Reads an SAE that another system saved and writes it as monosem and SAELens do:
cfg.json and sae_weights.safetensors in float32. Scales that the format keeps
beside its weights are folded into them; latents and reconstructions stay the
same.

Formats: SAELens (all versions), Gemma Scope (params.npz) and Gemma Scope 2,
dictionary_learning and SAEBench (ae.pt), OpenAI (.pt), sparsify, Llama Scope and
Llamascopium, Goodfire, qresearch, Qwen Scope, circuit-tracer's transcoders.`,
    )
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
  monosem convert resid_post_mlp_v5_32k/autoencoders/8.pt converted
  monosem convert gemma-2b-res-jb/blocks.12.hook_resid_post converted --input-scale 0.2138`,
    )
    .action((input: string, output: string, flags: ConvertFlags) =>
      withInterruption(() => withDevice(flags, (device) => convert(input, output, device, flags.inputScale))),
    );
}

async function convert(input: string, output: string, device: Device, inputScale: number | undefined): Promise<void> {
  await refuseFilled(output);
  using sae = inputScale === undefined ? await loadSae(input, device) : await Sae.load(input, device, { inputScale });
  await sae.save(output);
  const { architecture, dIn, dSae, transcoder } = sae.config;
  const what = `${architecture} ${transcoder ? "transcoder" : "SAE"}, dIn ${dIn}, dSae ${dSae}`;
  process.stdout.write(`${visibleText(`${await publishedFormatOf(input)}: ${what} -> ${output}`)}\n`);
}

/** A folder with other files could be recognised as two formats afterwards. */
async function refuseFilled(output: string): Promise<void> {
  const files = await readdir(output).catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") return [];
    throw new MonosemError("ERR_CONFIG", `cannot write to ${output}: ${error.message}`, { cause: error });
  });
  if (files.length > 0) {
    throw new MonosemError("ERR_CONFIG", `${output} is not empty (${files.slice(0, 3).join(", ")}): name a new folder`);
  }
}
