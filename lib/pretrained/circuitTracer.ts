/**
 * Transcoders for circuit-tracer: `layer_N.safetensors`, one per layer, beside a `config.yaml` of the whole set.
 *
 * z = W_enc x + b_enc, W_enc [latents, dIn]; ReLU, or z 1[z > θ] with `activation_function.threshold`; `W_skip` [dOut, dIn]
 * adds x W_skipᵀ to the output. The configuration names model and hooks. Sets of cross-layer transcoders, whose encoders
 * and decoders are files of their own (`W_enc_N.safetensors`), write to several layers and cannot be said here.
 */
import { parse } from "yaml";
import { z } from "zod";
import { MonosemError } from "../errors.js";
import { readBounded } from "../formats/boundedFile.js";
import { ioError } from "../formats/fileBytes.js";
import { SafetensorsFile } from "../formats/safetensors.js";
import { known } from "../sae/metadata.js";
import type { StoredSae } from "../sae/storedSae.js";
import type { Location } from "./location.js";
import {
  checkedConfig,
  matrixShape,
  type PublishedFormat,
  parseJson,
  readWeights,
  unsupported,
} from "./publishedFormat.js";

const schema = z.looseObject({
  model_name: z.string().optional(),
  feature_input_hook: z.string().optional(),
  feature_output_hook: z.string().optional(),
});

const pattern = /^layer_(\d+)\.safetensors$/;
const configFile = "config.yaml";
/** Published ones have some hundred bytes; the parser takes up to 20 microseconds for each. */
const maximumYamlBytes = 2 ** 17;
const threshold = "activation_function.threshold";

export const circuitTracer: PublishedFormat = {
  name: "circuit-tracer",
  knownBy: "layer_N.safetensors, named itself where there are several",
  recognises: (location) => location.only(pattern) !== undefined,

  async read(location) {
    const name = location.only(pattern)!;
    await using file = await SafetensorsFile.open(location.at(name));
    const [dSae, dIn] = matrixShape(file, "W_enc");
    const [, dOut] = matrixShape(file, "W_dec");
    const jump = file.entries.has(threshold);
    const skip = file.entries.has("W_skip");
    const config = checkedConfig(file.path, {
      architecture: jump ? "jumprelu" : "relu",
      dIn,
      dSae,
      transcoder: true,
      dOut,
      skip,
      applyBDecToInput: false,
    });
    const weights = await readWeights(file, config, {
      encoder: { tensor: "W_enc" },
      encoderBias: { tensor: "b_enc" },
      ...(jump ? { threshold: { tensor: threshold } } : {}),
      decoder: { tensor: "W_dec" },
      decoderBias: { tensor: "b_dec" },
      ...(skip ? { skip: { tensor: "W_skip" } } : {}),
    });
    if (weights.threshold?.values.some((value) => value < 0)) {
      throw unsupported(file.path, "a threshold is below 0: its latent may be negative");
    }
    return { config, weights, metadata: await metadataOf(location, pattern.exec(name)![1]!) };
  },
};

async function metadataOf(location: Location, layer: string): Promise<StoredSae["metadata"]> {
  if (!location.files.includes(configFile)) return {};
  const path = location.at(configFile);
  const cfg = parseJson(path, schema, await readYaml(path));
  const hook = (name: string | undefined) => (name === undefined ? undefined : `blocks.${layer}.${hookName(name)}`);
  return known({
    modelName: cfg.model_name,
    hookName: hook(cfg.feature_input_hook),
    hookNameOut: hook(cfg.feature_output_hook),
  });
}

/** circuit-tracer adds hooks to a model's MLPs; where one is TransformerLens', that is its name. */
function hookName(name: string): string {
  return name === "mlp.hook_out" ? "hook_mlp_out" : name;
}

async function readYaml(path: string): Promise<unknown> {
  const bytes = await readBounded(path, maximumYamlBytes).catch((error: unknown) => {
    throw error instanceof MonosemError ? error : ioError("read", path, error);
  });
  if (bytes === undefined) {
    throw new MonosemError(
      "ERR_FORMAT",
      `${path} has more than ${maximumYamlBytes} bytes, which is no configuration of transcoders`,
    );
  }
  try {
    // A key that stands twice means what stands last, as in Python. Looking for such takes time quadratic in their number.
    return parse(bytes.toString("utf8"), { logLevel: "error", uniqueKeys: false });
  } catch (cause) {
    throw new MonosemError("ERR_FORMAT", `${path} is not YAML: ${(cause as Error).message}`, { cause });
  }
}
