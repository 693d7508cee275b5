import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Device } from "../../lib/engine/device.js";
import { writeSafetensors } from "../../lib/formats/safetensors.js";
import { Sae, type SaeMetadata } from "../../lib/sae/sae.js";
import { testDevice } from "../testDevice.js";

export const dIn = 6;
export const dSae = 10;

/** Reproducible numbers in [-1, 1). */
export function numbers(count: number, seed = 1): Float32Array {
  let state = seed;
  return Float32Array.from({ length: count }, () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 31 - 1;
  });
}

/** A file with a tensor "activations" [rows, dIn]. */
export async function writeActivations(
  folder: string,
  rows: number,
  change?: (data: Float32Array) => void,
): Promise<string> {
  const data = numbers(rows * dIn);
  change?.(data);
  const path = join(folder, "activations.safetensors");
  await writeSafetensors(path, { activations: { shape: [rows, dIn], data } });
  return path;
}

/** A folder with a small TopK SAE, not trained. */
export async function writeSae(
  folder: string,
  metadata: SaeMetadata = {},
  width: number = dIn,
  shape: { readonly dSae: number; readonly k: number; readonly hookWidths?: number[] } = { dSae, k: 4 },
): Promise<string> {
  const path = join(folder, "sae");
  const device = await Device.open(testDevice, { threads: 1 });
  const config = { architecture: "topk" as const, dIn: width, ...shape, applyBDecToInput: true };
  await Sae.create(config, device, 0, { metadata }).save(path);
  await device.close();
  return path;
}

/** The same of a crosscoder over two hook points of the tiny model. */
export function writeCrosscoder(folder: string): Promise<string> {
  const hookNames = ["blocks.1.hook_resid_post", "blocks.2.hook_resid_post"];
  const config = { dSae, k: 4, hookWidths: [192, 192] };
  return writeSae(folder, { modelName: "tiny-gpt2", hookNames, contextSize: 48 }, 384, config);
}

/** The same of "abstopk", which has the parameters and the options of TopK: see absTopk.mjs. */
export async function writeAbsTopkSae(
  folder: string,
  metadata: SaeMetadata = {},
  width: number = dIn,
): Promise<string> {
  const path = await writeSae(folder, metadata, width);
  const cfg = JSON.parse(readFileSync(join(path, "cfg.json"), "utf8"));
  writeFileSync(join(path, "cfg.json"), JSON.stringify({ ...cfg, architecture: "abstopk" }));
  return path;
}
