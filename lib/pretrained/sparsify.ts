/**
 * EleutherAI's sparsify (and its predecessor `sae`): `cfg.json` and `sae.safetensors` in a folder named after the module,
 * for example `layers.10`; the run's `config.json`, beside the folder, names the model.
 *
 * z = W_enc (x - b_dec) + b_enc, of transcoders z = W_enc x + b_enc; ReLU, then the k largest; a transcoder with
 * `skip_connection` adds x W_skipᵀ to its output. W_dec is [latents, dIn] already. SAEs with a skip connection,
 * activations other than topk, and latents with signs cannot be said by an architecture here.
 */
import { basename, dirname, join, resolve } from "node:path";
import { z } from "zod";
import { readJsonFile } from "../formats/jsonFile.js";
import { SafetensorsFile } from "../formats/safetensors.js";
import { known } from "../sae/metadata.js";
import type { StoredSae } from "../sae/storedSae.js";
import { quotedValue } from "../schemaMessages.js";
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
  d_in: z.int().positive(),
  k: z.int().positive(),
  activation: z.string().default("topk"),
  signed: z.boolean().default(false),
  transcode: z.boolean().default(false),
  skip_connection: z.boolean().default(false),
});

const runSchema = z.looseObject({ model: z.string().optional(), ctx_len: z.number().optional() });

export const sparsify: PublishedFormat = {
  name: "sparsify",
  knownBy: "cfg.json with sae.safetensors",
  recognises: (location) => location.has("cfg.json", "sae.safetensors"),

  async read(location) {
    const path = location.at("cfg.json");
    const cfg = parseJson(path, schema, await location.json("cfg.json"));
    if (cfg.activation !== "topk") {
      throw unsupported(path, `activation is ${quotedValue(cfg.activation)}; topk can be loaded`);
    }
    if (cfg.signed) throw unsupported(path, "signed is true: its latents may be negative");
    if (cfg.skip_connection && !cfg.transcode)
      throw unsupported(path, "it is no transcoder, but has a skip connection");
    await using file = await SafetensorsFile.open(location.at("sae.safetensors"));
    const [dSae] = matrixShape(file, "encoder.weight");
    const config = checkedConfig(path, {
      architecture: "topk",
      dIn: cfg.d_in,
      dSae,
      k: cfg.k,
      transcoder: cfg.transcode,
      skip: cfg.skip_connection,
      applyBDecToInput: !cfg.transcode,
    });
    const weights = await readWeights(file, config, {
      encoder: { tensor: "encoder.weight" },
      encoderBias: { tensor: "encoder.bias" },
      decoder: { tensor: "W_dec" },
      decoderBias: { tensor: "b_dec" },
      ...(cfg.skip_connection ? { skip: { tensor: "W_skip" } } : {}),
    });
    return { config, weights, metadata: await metadataOf(location, cfg.transcode) };
  },
};

async function metadataOf(location: Location, transcoder: boolean): Promise<StoredSae["metadata"]> {
  const folder = resolve(location.folder);
  const run = runSchema.safeParse(await readJsonFile(join(dirname(folder), "config.json")).catch(() => undefined));
  const { model, ctx_len } = run.success ? run.data : {};
  return {
    ...known({ modelName: model?.split("/").at(-1), contextSize: ctx_len }),
    ...hooksOf(basename(folder), transcoder),
  };
}

/** SAEs encode the output of the module, transcoders its input. */
function hooksOf(module: string, transcoder: boolean): StoredSae["metadata"] {
  if (/^embed/.test(module)) return transcoder ? {} : { hookName: "hook_embed" };
  const [, layer, site = ""] = /^(?:layers|h)\.(\d+)(?:\.(.+))?$/.exec(module) ?? [];
  if (layer === undefined) return {};
  const block = `blocks.${layer}`;
  const out = { "": "hook_resid_post", mlp: "hook_mlp_out", attention: "hook_attn_out", self_attn: "hook_attn_out" }[
    site
  ];
  if (out === undefined) return {};
  if (!transcoder) return { hookName: `${block}.${out}` };
  return site === "mlp" ? { hookName: `${block}.mlp.hook_in`, hookNameOut: `${block}.${out}` } : {};
}
