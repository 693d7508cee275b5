/** Every family against what Hugging Face transformers and TransformerLens compute with the same random weights. */
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Device } from "../../lib/engine/device.js";
import { HookedTransformer } from "../../lib/models/hookedTransformer.js";
import { reachableBytes } from "../reachableBytes.js";
import { testDevice } from "../testDevice.js";
import { copyModel, readModelReference } from "./families.js";
import { relativeError } from "./tinyGpt2.js";

const names = [
  "gpt2",
  "gpt-neox",
  "gpt-neox-sequential",
  "llama",
  "llama-3",
  "llama-yarn",
  "llama-linear",
  "llama-dynamic",
  "llama-longrope",
  "mistral",
  "qwen2",
  "qwen3",
  "gemma2",
];

let device: Device;
let folder: string;

beforeAll(async () => {
  device = await Device.open(testDevice, { threads: 2 });
  folder = await mkdtemp(join(tmpdir(), "monosem-families-"));
  for (const name of names) await copyModel(name, join(folder, name));
});

afterAll(async () => {
  await device.close();
  await rm(folder, { recursive: true });
});

describe.each(names)("%s", (name) => {
  let model: HookedTransformer;
  let reference: Awaited<ReturnType<typeof readModelReference>>;
  let tokens: number[][];

  beforeAll(async () => {
    model = await HookedTransformer.load(join(folder, name), device);
    reference = await readModelReference(name);
    const { shape, data } = reference.get("tokens")!;
    const positions = shape[1]!;
    tokens = [0, 1].map((i) => Array.from(data.subarray(i * positions, (i + 1) * positions)));
  });
  afterAll(() => model.dispose());

  test("logits are those of transformers", async () => {
    using logits = await model.forward(tokens);
    expect(logits.shape).toEqual(reference.get("logits")!.shape);
    expect(relativeError(await logits.readFloat32(), reference.get("logits")!.data)).toBeLessThan(1e-5);
  });

  test("every hidden state is that of transformers", async () => {
    for (let layer = 0; layer <= model.config.nLayers; layer++) {
      using residual = await model.forward(tokens, { stopAtLayer: layer });
      const expected = reference.get(`hidden.${layer}`)!;
      expect(residual.shape).toEqual(expected.shape);
      expect(relativeError(await residual.readFloat32(), expected.data)).toBeLessThan(1e-5);
    }
  });

  test("the hook points are TransformerLens', in name and value, and change no result", async () => {
    const { output, cache } = await model.runWithCache(tokens.slice(0, 1));
    expect([...cache.keys()]).toEqual(model.hookNames);
    using logits = output;
    const { data } = reference.get("logits")!;
    expect(relativeError(await logits.readFloat32(), data.subarray(0, data.length / 2))).toBeLessThan(1e-5);
    const theirs = [...reference.keys()].filter((key) => key.startsWith("hook."));
    if (theirs.length > 0) expect(theirs.map((key) => key.slice(5)).sort()).toEqual([...model.hookNames].sort());
    for (const key of theirs) {
      const activation = cache.get(key.slice(5))!;
      const expected = reference.get(key)!;
      // TransformerLens flattens what it normalises head by head.
      if (!/\.[qk]_norm\./.test(key)) expect([key, ...activation.shape]).toEqual([key, ...expected.shape]);
      const error = relativeError(await activation.readFloat32(), expected.data);
      expect(error, key).toBeLessThan(1e-5);
    }
    for (const activation of cache.values()) activation.dispose();
  });

  test("a replaced activation reaches the logits at every hook point", async () => {
    using clean = await model.forward(tokens);
    const before = await clean.readFloat32();
    for (const hookName of model.hookNames) {
      using changed = await model.forward(tokens, {
        // Not a multiple of what was there: a norm would undo that. Scores need to differ from key to key.
        hooks: [
          { name: hookName, hook: (activation) => device.kernels.multiply(activation, varied(activation.shape)) },
        ],
      });
      const after = await changed.readFloat32();
      expect(after.every(Number.isFinite), hookName).toBe(true);
      expect(relativeError(after, before), hookName).toBeGreaterThan(1e-4);
    }
  });

  test("generation with cached keys and values gives the tokens of a whole pass", async () => {
    const [generated] = await model.generate([tokens[0]!.slice(0, 5)], {
      maxNewTokens: 9,
      temperature: 0,
      stopAtEos: false,
    });
    expect(generated).toHaveLength(14);
    using logits = await model.forward([generated!]);
    const { vocabularySize } = model.config;
    const all = await logits.readFloat32();
    for (let position = 4; position < 13; position++) {
      const row = all.subarray(position * vocabularySize, (position + 1) * vocabularySize);
      expect(row.indexOf(Math.max(...row))).toBe(generated![position + 1]);
    }
  });
});

function varied(shape: readonly number[]) {
  const size = shape.reduce((product, length) => product * length, 1);
  return device.tensor(
    Float32Array.from({ length: size }, (_, i) => 1 + 0.5 * Math.sin(i)),
    shape,
  );
}

test("bf16 matrices stay bf16 in memory", async () => {
  const before = await reachableBytes(device);
  using _model = await HookedTransformer.load(join(folder, "qwen2"), device);
  await device.synchronize();
  // 2 layers of 1408 matrix elements, two embeddings of 368; f32 would be twice as much.
  expect(device.memory().currentBytes - before).toBeLessThan(
    2 * (2 * (4 * 16 * 16 + 3 * 16 * 20) + 2 * 23 * 16) + 4096,
  );
});

test("weights that do not fit are refused with both numbers before anything is allocated", async () => {
  const small = await Device.open(testDevice, { memoryLimitBytes: 10_000 });
  try {
    await expect(HookedTransformer.load(join(folder, "llama"), small)).rejects.toMatchObject({
      code: "ERR_OUT_OF_MEMORY",
      message: expect.stringMatching(/llama take 0\.\d MiB of memory, but the device's limit leaves 0\.0 MiB/),
    });
    expect(small.memory().peakBytes).toBe(0);
  } finally {
    await small.close();
  }
});

describe("a config.json that asks for something else is refused", () => {
  async function loadWith(name: string, changes: Record<string, unknown>): Promise<unknown> {
    const changed = await mkdtemp(join(folder, "changed-"));
    await copyModel(name, changed);
    const config = JSON.parse(await readFile(join(changed, "config.json"), "utf8"));
    await writeFile(join(changed, "config.json"), JSON.stringify({ ...config, ...changes }));
    return await HookedTransformer.load(changed, device).catch((error: unknown) => error);
  }

  test.each([
    ["llama", { model_type: "mamba" }, "ERR_UNSUPPORTED", /model_type "mamba".*"gpt_neox".*"gemma2"/],
    ["llama", { rope_parameters: { rope_type: "proportional" } }, "ERR_UNSUPPORTED", /"proportional" is not supported/],
    [
      "llama",
      { rope_parameters: { rope_type: "longrope", short_factor: [1, 1, 1], long_factor: [1, 2] } },
      "ERR_FORMAT",
      /needs 3 numbers as "long_factor", found 2/,
    ],
    ["llama", { rope_parameters: { rope_type: "dynamic" } }, "ERR_FORMAT", /needs "factor"/],
    ["llama", { rope_parameters: { rope_type: "llama3", factor: 8 } }, "ERR_FORMAT", /needs "low_freq_factor"/],
    ["llama", { num_key_value_heads: 3 }, "ERR_FORMAT", /num_attention_heads \(4\) must be a multiple of .*\(3\)/],
    ["llama", { num_key_value_heads: 4 }, "ERR_SHAPE_MISMATCH", /k_proj\.weight.*has shape \[12, 12\].*\[24, 12\]/],
    ["llama", { attention_bias: true }, "ERR_NOT_FOUND", /q_proj\.bias.*is missing/],
    ["llama-yarn", { mlp_bias: false }, "ERR_FORMAT", /a Llama of this config\.json does not have.*proj\.bias/],
    ["llama", { num_hidden_layers: 1 }, "ERR_FORMAT", /does not have.*model\.layers\.1/],
    ["llama", { hidden_act: "relu6" }, "ERR_UNSUPPORTED", /hidden_act "relu6"/],
    ["llama", { quantization_config: { bits: 4 } }, "ERR_UNSUPPORTED", /quantised/],
    ["gpt-neox", { hidden_size: 25 }, "ERR_FORMAT", /hidden_size \(25\) must be a multiple/],
    ["gemma2", { layer_types: ["chunked_attention", "full_attention"] }, "ERR_UNSUPPORTED", /chunked_attention/],
    ["gemma2", { layer_types: ["full_attention"] }, "ERR_FORMAT", /1 entries for 2 layers/],
    ["qwen3", { hidden_size: "many" }, "ERR_FORMAT", /does not describe a Qwen3: hidden_size/],
  ])("%s with %j", async (name, changes, code, message) => {
    expect(await loadWith(name, changes)).toMatchObject({ code, message: expect.stringMatching(message) });
  });

  const factors = { short_factor: [1e-320, 1, 1], long_factor: [1, 1, 1] };
  const llama3 = { rope_type: "llama3", factor: 8, low_freq_factor: 1, high_freq_factor: 1 };
  test.each([
    ["llama", { num_hidden_layers: 1e9 }, /num_hidden_layers: must be at most 1000 \(found 1000000000\)/],
    ["gpt2", { n_layer: 2 ** 53 - 1 }, /n_layer: must be at most 1000/],
    ["gpt-neox", { num_hidden_layers: 2 ** 53 - 1 }, /num_hidden_layers: must be at most 1000/],
    ["gpt-neox", { hidden_size: 2 ** 30, num_attention_heads: 1 }, /rotary dimensions are more than 65536/],
    ["llama", { head_dim: 1e9 }, /head_dim: must be at most 65536/],
    ["llama", { vocab_size: 2 ** 53 - 1 }, /vocab_size: must be at most 2147483647/],
    ["llama", { rope_parameters: { partial_rotary_factor: 1e8 } }, /partial_rotary_factor: must be at most 1 /],
    ["llama", { rms_norm_eps: 1e308 }, /rms_norm_eps: must be at most 1 /],
    ["llama", { rms_norm_eps: 5e-324 }, /rms_norm_eps: must be at least 1e-30/],
    ["gpt2", { layer_norm_epsilon: 1e308 }, /layer_norm_epsilon: must be at most 1 /],
    ["gpt-neox", { layer_norm_eps: 1e308 }, /layer_norm_eps: must be at most 1 /],
    ["gemma2", { query_pre_attn_scalar: 5e-324 }, /query_pre_attn_scalar: must be at least/],
    ["gemma2", { attn_logit_softcapping: 1e308 }, /attn_logit_softcapping: must be at most/],
    ["gemma2", { final_logit_softcapping: 1e-320 }, /final_logit_softcapping: must be at least/],
    ["llama", { rope_parameters: { rope_theta: 1e308 } }, /rope_theta: must be at most 1000000000000000 /],
    ["llama", { rope_parameters: { rope_type: "linear", factor: 5e-324 } }, /factor: must be at least 0\.0001/],
    ["llama", { rope_parameters: { rope_type: "dynamic", factor: 1e308 } }, /factor: must be at most 10000/],
    ["llama", { rope_parameters: { rope_type: "longrope", ...factors } }, /short_factor\.0: must be at least 0\.0001/],
    [
      "llama",
      { rope_parameters: { rope_type: "yarn", factor: 8, attention_factor: 1e308 } },
      /attention_factor: must be/,
    ],
    [
      "llama",
      { rope_parameters: { rope_type: "yarn", factor: 8, original_max_position_embeddings: 1e-300 } },
      /original_max_position_embeddings: must be greater than 1/,
    ],
    ["llama", { eos_token_id: Array(1001).fill(1) }, /eos_token_id: must be .* a list of at most 1000 token ids/],
    ["llama", { rope_parameters: llama3 }, /needs a high_freq_factor above its low_freq_factor, found 1 and 1/],
  ])("%s with numbers that memory or f32 does not hold: %j", async (name, changes, message) => {
    expect(await loadWith(name, changes)).toMatchObject({
      code: "ERR_FORMAT",
      message: expect.stringMatching(message),
    });
  });

  test("with a short message, however long the entry is", async () => {
    const refused = await loadWith("qwen3", { hidden_act: "x".repeat(1_000_000) });
    expect(refused).toMatchObject({
      code: "ERR_UNSUPPORTED",
      message: expect.stringMatching(/hidden_act "x{99}\.\.\. is/),
    });
  });

  test("older checkpoints' entries mean the same", async () => {
    const older = await loadWith("llama-3", {
      rope_parameters: undefined,
      rope_theta: 100,
      rope_scaling: {
        type: "llama3",
        factor: 8,
        low_freq_factor: 1,
        high_freq_factor: 4,
        original_max_position_embeddings: 16,
      },
    });
    using model = older as HookedTransformer;
    using newer = await HookedTransformer.load(join(folder, "llama-3"), device);
    expect(model.config.rotary).toEqual(newer.config.rotary);
  });
});

test.each(["llama-dynamic", "llama-longrope"])("%s: a context of the trained length turns otherwise", async (name) => {
  using model = await HookedTransformer.load(join(folder, name), device);
  const reference = await readModelReference(name);
  const { data } = reference.get("tokens")!;
  const tokens = [0, 1].map((i) => Array.from(data.subarray(i * 11, i * 11 + 5)));
  const expected = reference.get("short.logits")!.data;
  using logits = await model.forward(tokens);
  expect(relativeError(await logits.readFloat32(), expected)).toBeLessThan(1e-5);
  const firstOfWhole = reference.get("logits")!.data.subarray(0, 5 * 23);
  expect(relativeError(firstOfWhole, expected.subarray(0, 5 * 23))).toBeGreaterThan(1e-3);
});

test("dynamic scaling reaches beyond the trained context, by its factor", async () => {
  using model = await HookedTransformer.load(join(folder, "llama-dynamic"), device);
  expect(model.config.contextSize).toBe(20);
  const context = (length: number) => [Array.from({ length }, (_, i) => i % 23)];
  (await model.forward(context(20))).dispose();
  await expect(model.forward(context(21))).rejects.toMatchObject({ code: "ERR_INVALID_ARGUMENT" });
});

describe("a checkpoint in several files", () => {
  async function loadWithIndex(change: (index: { weight_map: Record<string, string> }) => void): Promise<unknown> {
    const changed = await mkdtemp(join(folder, "sharded-"));
    await copyModel("qwen3", changed);
    const path = join(changed, "model.safetensors.index.json");
    const index = JSON.parse(await readFile(path, "utf8"));
    change(index);
    await writeFile(path, JSON.stringify(index));
    return await HookedTransformer.load(changed, device).catch((error: unknown) => error);
  }

  test("names no file outside its folder", async () => {
    const refused = await loadWithIndex(({ weight_map }) => {
      weight_map["model.norm.weight"] = "../qwen3/model-00001-of-00005.safetensors";
    });
    expect(refused).toMatchObject({ code: "ERR_FORMAT", message: expect.stringContaining("no file beside it") });
  });

  test("holds what its index says", async () => {
    const refused = await loadWithIndex(({ weight_map }) => {
      weight_map["model.extra.weight"] = weight_map["model.norm.weight"]!;
    });
    expect(refused).toMatchObject({ code: "ERR_FORMAT", message: expect.stringContaining('"model.extra.weight"') });
  });

  test("has all of its files", async () => {
    const refused = await loadWithIndex(({ weight_map }) => {
      weight_map["model.norm.weight"] = "model-00006-of-00006.safetensors";
    });
    expect(refused).toMatchObject({ code: "ERR_NOT_FOUND", message: expect.stringContaining("00006-of-00006") });
  });
});
