/**
 * SAELens 6 folders: `cfg.json` and `sae_weights.safetensors` with W_enc [dIn, dSae], b_enc [dSae], W_dec [dSae, dIn],
 * b_dec [dIn].
 *
 * What is written loads in SAELens unchanged. What is read must be understood to the last key that changes numbers: an
 * option that this library does not compute is refused by name.
 */
import { join } from "node:path";
import { z } from "zod";
import type { Json } from "../activations/source.js";
import { MonosemError } from "../errors.js";
import { writeFileAtomically } from "../formats/atomicFile.js";
import { readJsonFile } from "../formats/jsonFile.js";
import { makeDirectory } from "../formats/makeDirectory.js";
import { type SafetensorsDType, SafetensorsFile, writeSafetensors } from "../formats/safetensors.js";
import type { ArchitectureName } from "./architectures.js";
import { parseSaeConfig, type SaeConfig } from "./config.js";
import type { SaeMetadata } from "./sae.js";

const configFile = "cfg.json";
const weightsFile = "sae_weights.safetensors";
/** The SAELens version whose meaning of the keys the folder follows; at least 6, or SAELens takes it for an older one. */
const saeLensVersion = "6.0.0";

export interface SaeLensWeights {
  readonly W_enc: Float32Array;
  readonly b_enc: Float32Array;
  readonly W_dec: Float32Array;
  readonly b_dec: Float32Array;
}

export interface SaeLensFolder {
  readonly config: SaeConfig;
  readonly weights: SaeLensWeights;
  readonly metadata: SaeMetadata;
}

/** @throws MonosemError ERR_NON_FINITE for NaN or infinity among the weights, ERR_IO when the file system refuses. */
export async function writeSaeLensFolder(
  directory: string,
  { config, weights, metadata }: SaeLensFolder,
): Promise<void> {
  for (const [name, values] of Object.entries(weights)) refuseNonFinite(values, `${directory}: ${name}`);
  const { dIn, dSae } = config;
  await makeDirectory(directory);
  await writeSafetensors(join(directory, weightsFile), {
    W_enc: { shape: [dIn, dSae], data: weights.W_enc },
    b_enc: { shape: [dSae], data: weights.b_enc },
    W_dec: { shape: [dSae, dIn], data: weights.W_dec },
    b_dec: { shape: [dIn], data: weights.b_dec },
  });
  const { modelName, hookName, contextSize, prependBos, ...others } = metadata;
  const cfg = {
    ...(config.architecture === "topk"
      ? { architecture: "topk", k: config.k, rescale_acts_by_decoder_norm: false }
      : { architecture: "standard" }),
    d_in: dIn,
    d_sae: dSae,
    dtype: "float32",
    device: "cpu",
    apply_b_dec_to_input: config.applyBDecToInput,
    normalize_activations: "none",
    reshape_activations: "none",
    metadata: {
      sae_lens_version: saeLensVersion,
      sae_lens_training_version: null,
      ...others,
      model_name: modelName,
      hook_name: hookName,
      context_size: contextSize,
      prepend_bos: prependBos,
    },
  };
  await writeFileAtomically(join(directory, configFile), `${JSON.stringify(cfg, null, 2)}\n`);
}

/** SAELens' names, and ours. */
const architectureOf: ReadonlyMap<string, ArchitectureName> = new Map([
  ["standard", "relu"],
  ["topk", "topk"],
]);
const dtypeOf: ReadonlyMap<string, SafetensorsDType> = new Map([
  ["float32", "F32"],
  ["float16", "F16"],
  ["bfloat16", "BF16"],
]);

/** Keys of cfg.json that matter to the numbers; others (device, training records) are left alone. */
const cfgSchema = z.object({
  architecture: z.string(),
  d_in: z.int().positive(),
  d_sae: z.int().positive(),
  dtype: z.string().default("float32"),
  apply_b_dec_to_input: z.boolean().default(true),
  normalize_activations: z.string().default("none"),
  reshape_activations: z.enum(["none", "hook_z"]).default("none"),
  finetuning_scaling_factor: z.boolean().default(false),
  k: z.unknown().optional(),
  rescale_acts_by_decoder_norm: z.boolean().default(false),
  metadata: z.record(z.string(), z.json()).default({}),
});

/** @throws MonosemError as `Sae.load` says. */
export async function readSaeLensFolder(
  directory: string,
): Promise<SaeLensFolder & { readonly weights: SaeLensWeights & { readonly rescaledByDecoderNorm: boolean } }> {
  const path = join(directory, configFile);
  const cfg = parseCfg(
    path,
    await readJsonFile(path, {
      missing: `${path} does not exist; an SAE folder holds ${configFile} and ${weightsFile}`,
    }),
  );
  const architecture = architectureOf.get(cfg.architecture);
  if (architecture === undefined) {
    unsupported(path, `architecture is "${cfg.architecture}"; ${[...architectureOf.keys()].join(", ")} can be loaded`);
  }
  if (cfg.normalize_activations !== "none") {
    unsupported(
      path,
      `normalize_activations is "${cfg.normalize_activations}", a scaling that is not folded into the weights: fold it ` +
        'in SAELens (fold_activation_norm_scaling_factor) and save again, so that it reads "none"',
    );
  }
  if (cfg.finetuning_scaling_factor) unsupported(path, "finetuning_scaling_factor is true");
  const dtype = dtypeOf.get(cfg.dtype.replace(/^torch\./, ""));
  if (dtype === undefined) {
    unsupported(path, `dtype is "${cfg.dtype}"; ${[...dtypeOf.keys()].join(", ")} can be loaded`);
  }

  const { d_in: dIn, d_sae: dSae } = cfg;
  const config = inFile(path, () =>
    parseSaeConfig({ architecture, dIn, dSae, applyBDecToInput: cfg.apply_b_dec_to_input, k: cfg.k }),
  );
  const weights = await readWeights(join(directory, weightsFile), dIn, dSae, dtype);
  const rescaledByDecoderNorm = architecture === "topk" && cfg.rescale_acts_by_decoder_norm;
  return { config, weights: { ...weights, rescaledByDecoderNorm }, metadata: readMetadata(cfg.metadata) };
}

async function readWeights(path: string, dIn: number, dSae: number, dtype: string): Promise<SaeLensWeights> {
  await using file = await SafetensorsFile.open(path);
  const shapes: Record<keyof SaeLensWeights, number[]> = {
    W_enc: [dIn, dSae],
    b_enc: [dSae],
    W_dec: [dSae, dIn],
    b_dec: [dIn],
  };
  const superfluous = [...file.entries.keys()].filter((name) => !(name in shapes));
  if (superfluous.length > 0) {
    throw new MonosemError(
      "ERR_FORMAT",
      `${path}: unexpected tensor ${superfluous.join(", ")}; expected ${Object.keys(shapes).join(", ")} and nothing else`,
    );
  }
  const read = async (name: keyof SaeLensWeights): Promise<Float32Array> => {
    const entry = file.entries.get(name);
    const shape = shapes[name];
    if (entry === undefined)
      throw new MonosemError("ERR_NOT_FOUND", `${path}: tensor ${name} [${shape.join(", ")}] is missing`);
    if (entry.dtype !== dtype) {
      throw new MonosemError(
        "ERR_FORMAT",
        `${path}: tensor ${name} is ${entry.dtype}, but cfg.json's dtype says ${dtype}`,
      );
    }
    if (entry.shape.join() !== shape.join()) {
      const transposed = shape.length === 2 && entry.shape.join() === [...shape].reverse().join();
      throw new MonosemError(
        "ERR_FORMAT",
        `${path}: tensor ${name} has shape [${entry.shape.join(", ")}], expected [${shape.join(", ")}]` +
          (transposed ? ": it is transposed" : ""),
      );
    }
    const values = await file.readFloat32(name, shape);
    refuseNonFinite(values, `${path}: tensor ${name}`);
    return values;
  };
  return {
    W_enc: await read("W_enc"),
    b_enc: await read("b_enc"),
    W_dec: await read("W_dec"),
    b_dec: await read("b_dec"),
  };
}

function readMetadata(metadata: Record<string, unknown>): SaeMetadata {
  const { model_name, hook_name, context_size, prepend_bos, sae_lens_version, sae_lens_training_version, ...others } =
    metadata as Record<string, Json>;
  return {
    ...others,
    ...(typeof model_name === "string" ? { modelName: model_name } : {}),
    ...(typeof hook_name === "string" ? { hookName: hook_name } : {}),
    ...(typeof context_size === "number" ? { contextSize: context_size } : {}),
    ...(typeof prepend_bos === "boolean" ? { prependBos: prepend_bos } : {}),
  };
}

function parseCfg(path: string, json: unknown): z.infer<typeof cfgSchema> {
  const result = cfgSchema.safeParse(json);
  if (result.success) return result.data;
  const issues = result.error.issues.map((issue) => `${issue.path.join(".") || "the whole"}: ${issue.message}`);
  throw new MonosemError("ERR_FORMAT", `${path} is no SAELens 6 configuration: ${issues.join("; ")}`);
}

function inFile<T>(path: string, parse: () => T): T {
  try {
    return parse();
  } catch (error) {
    throw new MonosemError("ERR_FORMAT", `${path}: ${(error as Error).message}`, { cause: error });
  }
}

function unsupported(path: string, what: string): never {
  throw new MonosemError("ERR_UNSUPPORTED", `${path}: ${what}`);
}

function refuseNonFinite(values: Float32Array, what: string): void {
  const index = values.findIndex((value) => !Number.isFinite(value));
  if (index >= 0) throw new MonosemError("ERR_NON_FINITE", `${what} holds ${values[index]} at element ${index}`);
}
