/**
 * A GPT-2 that other people trained, with the intermediate tensors that they published: minGPT's gpt-nano of llm-viz
 * (MIT licence), which sorts six letters. Runs where the files are at hand.
 */
import { existsSync } from "node:fs";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, expect, test } from "vitest";
import { Device } from "../../lib/engine/device.js";
import { HookedTransformer } from "../../lib/models/hookedTransformer.js";
import { testDevice } from "../testDevice.js";
import { writeGpt2 } from "./syntheticGpt2.js";
import { relativeError } from "./tinyGpt2.js";

const directory = fileURLToPath(new URL("../../../shared/data/models/gpt-nano-sort/", import.meta.url));
const available = existsSync(directory);

type Published = Record<string, { shape: number[]; data: string }>;
const floats = ({ data }: { data: string }): Float32Array =>
  new Float32Array(Uint8Array.from(Buffer.from(data, "base64")).buffer);

let device: Device;
let model: HookedTransformer;
let folder: string;
let partials: Published;

beforeAll(async () => {
  if (!available) return;
  const readJson = async (name: string): Promise<Published> =>
    JSON.parse(await readFile(join(directory, name), "utf8"));
  const { config: _, ...published } = await readJson("gpt-nano-sort-model.json");
  partials = await readJson("gpt-nano-sort-t0-partials.json");
  const tensors = Object.fromEntries(
    Object.entries(published).map(([name, tensor]) => {
      const data = floats(tensor);
      if (!/\.c_(attn|proj|fc)\.weight$/.test(name)) return [name, { shape: tensor.shape, data }];
      // Published as torch.nn.Linear, [out, in]; Hugging Face's GPT-2 has Conv1D, [in, out].
      const [outputs, inputs] = tensor.shape as [number, number];
      const transposed = data.map((_value, i) => data[(i % outputs) * inputs + Math.floor(i / outputs)]!);
      return [name, { shape: [inputs, outputs], data: transposed }];
    }),
  );
  const config = { model_type: "gpt2", n_layer: 3, n_head: 3, n_embd: 48, n_positions: 11, vocab_size: 3 };
  folder = await mkdtemp(join(tmpdir(), "monosem-nano-sort-"));
  await writeGpt2(folder, { ...config, tie_word_embeddings: false }, tensors);
  device = await Device.open(testDevice, { threads: 2 });
  model = await HookedTransformer.load(folder, device);
});

afterAll(async () => {
  if (!available) return;
  model.dispose();
  await device.close();
  await rm(folder, { recursive: true });
});

test.runIf(available)("activations equal the published ones", async () => {
  const ids = Array.from(floats(partials.idx!));
  const { output, cache } = await model.runWithCache([ids.slice(0, 11), ids.slice(11, 22), ids.slice(22)]);
  // Attention scores are published without the causal mask; queries, keys and values as [batch, head, position, dHead].
  const published = {
    hook_embed: "tok_emb",
    "blocks.0.hook_resid_pre": "x",
    "blocks.0.attn.hook_pattern": "attSm",
    "blocks.0.attn.hook_z": "y",
    "blocks.0.hook_attn_out": "yProj",
    "blocks.0.hook_resid_mid": "attnResid",
    "blocks.0.mlp.hook_pre": "fc",
    "blocks.0.mlp.hook_post": "gelu",
    "blocks.0.hook_mlp_out": "mlp",
    "blocks.0.hook_resid_post": "block0",
    "blocks.1.hook_resid_post": "block1",
    "blocks.2.hook_resid_post": "block2",
  };
  for (const [name, key] of Object.entries(published)) {
    expect(relativeError(await cache.get(name)!.readFloat32(), floats(partials[key]!)), name).toBeLessThan(1e-5);
  }
  expect(relativeError(await output.readFloat32(), floats(partials.lm_head!))).toBeLessThan(1e-5);
  for (const tensor of [output, ...cache.values()]) tensor.dispose();
});

test.runIf(available)("greedy generation sorts all 729 inputs", async () => {
  const prompts = Array.from({ length: 729 }, (_, n) =>
    Array.from({ length: 6 }, (_, i) => Math.floor(n / 3 ** i) % 3),
  );
  // Five more tokens fill the context; the sixth is the prediction at its end.
  const generated = await model.generate(prompts, { maxNewTokens: 5, temperature: 0 });
  using logits = await model.forward(generated);
  const values = await logits.readFloat32();
  for (const [n, prompt] of prompts.entries()) {
    const last = values.subarray((n * 11 + 10) * 3, (n * 11 + 11) * 3);
    const sorted = [...generated[n]!.slice(6), last.indexOf(Math.max(...last))];
    expect(sorted).toEqual(prompt.toSorted((a, b) => a - b));
  }
});
