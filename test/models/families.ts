import { copyFile, mkdir, readdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { SafetensorsFile } from "../../lib/formats/safetensors.js";

/** Where the tiny models of fixtures/models/make_models.py are. */
export const modelFixtures: string = fileURLToPath(new URL("../fixtures/models/", import.meta.url));

/** Copies a tiny model into a folder, and gives it a tokenizer whose tokens are the first 23 letters. */
export async function copyModel(name: string, folder: string): Promise<void> {
  await mkdir(folder, { recursive: true });
  for (const file of await readdir(join(modelFixtures, name))) {
    if (file !== "reference.safetensors") await copyFile(join(modelFixtures, name, file), join(folder, file));
  }
  const vocab = Object.fromEntries(Array.from({ length: 23 }, (_, i) => [String.fromCharCode(65 + i), i]));
  const tokenizer = {
    version: "1.0",
    added_tokens: [],
    normalizer: null,
    pre_tokenizer: { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true },
    post_processor: null,
    decoder: { type: "ByteLevel", add_prefix_space: true, trim_offsets: true, use_regex: true },
    model: { type: "BPE", vocab, merges: [] },
  };
  await writeFile(join(folder, "tokenizer.json"), JSON.stringify(tokenizer));
}

/** What PyTorch and TransformerLens compute, by name; make_models.py says which. */
export async function readModelReference(
  name: string,
): Promise<Map<string, { shape: readonly number[]; data: Float32Array }>> {
  await using file = await SafetensorsFile.open(join(modelFixtures, name, "reference.safetensors"));
  const arrays = new Map<string, { shape: readonly number[]; data: Float32Array }>();
  for (const [key, { dtype, shape }] of file.entries) {
    const data =
      dtype === "I32" ? Float32Array.from((await file.read(key)).data as Int32Array) : await file.readFloat32(key);
    arrays.set(key, { shape, data });
  }
  return arrays;
}
