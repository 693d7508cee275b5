/**
 * The SAEs of GPT-2 small's attention outputs by Kissane, Krzyzanowski and others (2024): `NAME.pt` beside `NAME_cfg.json`.
 * ReLU, the decoder bias subtracted; the heads' z lie side by side.
 */
import { z } from "zod";
import { readJsonFile } from "../formats/jsonFile.js";
import { checkedConfig, parseJson, readWeights } from "./publishedFormat.js";
import type { TorchFileFormat } from "./torchFiles.js";

const schema = z.looseObject({
  act_size: z.int().positive(),
  dict_size: z.int().positive(),
  act_name: z.string(),
});

export const hookZ: TorchFileFormat = {
  name: "hook_z",
  tensors: ["W_enc", "b_enc", "W_dec", "b_dec"],
  fileName: "NAME.pt beside NAME_cfg.json",
  fits: (location, name) => location.files.includes(configOf(name)),

  async read(location, file, name) {
    const path = location.at(configOf(name));
    const cfg = parseJson(path, schema, await readJsonFile(path));
    const config = checkedConfig(path, {
      architecture: "relu",
      dIn: cfg.act_size,
      dSae: cfg.dict_size,
      applyBDecToInput: true,
    });
    const weights = await readWeights(file, config, {
      encoder: { tensor: "W_enc", transposed: true },
      encoderBias: { tensor: "b_enc" },
      decoder: { tensor: "W_dec" },
      decoderBias: { tensor: "b_dec" },
    });
    const metadata = { modelName: "gpt2-small", hookName: cfg.act_name, contextSize: 128, prependBos: true };
    return { config, weights, metadata };
  },
};

function configOf(name: string): string {
  return name.replace(/\.pth?$/, "_cfg.json");
}
