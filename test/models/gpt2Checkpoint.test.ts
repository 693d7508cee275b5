import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { Device } from "../../lib/engine/device.js";
import { bfloat16FromFloat32 } from "../../lib/formats/halfPrecision.js";
import { HookedTransformer } from "../../lib/models/hookedTransformer.js";
import { testDevice } from "../testDevice.js";
import { plainLogits, syntheticConfig, syntheticWeights, type Weights, writeGpt2 } from "./syntheticGpt2.js";
import { relativeError } from "./tinyGpt2.js";

const ids = [3, 0, 6, 6, 1];
const half = 1 / Math.sqrt(4); // dHead is 12 / 3
let device: Device;
const folders: string[] = [];

beforeAll(async () => {
  device = await Device.open(testDevice, { threads: 2 });
});
afterAll(async () => {
  await device.close();
});
afterEach(async () => {
  for (const folder of folders.splice(0)) await rm(folder, { recursive: true });
});

async function temporaryFolder(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "monosem-gpt2-"));
  folders.push(folder);
  return folder;
}

async function loadWith(
  config: Record<string, unknown> = {},
  tensors: Parameters<typeof writeGpt2>[2] = syntheticWeights(),
): Promise<HookedTransformer> {
  const folder = await temporaryFolder();
  await writeGpt2(folder, { ...syntheticConfig, ...config }, tensors);
  return await HookedTransformer.load(folder, device);
}

async function logitsOf(
  config: Record<string, unknown> = {},
  tensors?: Parameters<typeof writeGpt2>[2],
): Promise<Float32Array> {
  using model = await loadWith(config, tensors);
  using logits = await model.forward([ids]);
  return await logits.readFloat32();
}

/** The f16 bits of a number that f16 holds exactly as a normal number, or of 0. */
function float16Bits(x: number): number {
  const bits = new Uint32Array(Float32Array.of(x).buffer)[0]!;
  const sign = (bits >>> 16) & 0x8000;
  return x === 0 ? sign : sign | ((((bits >>> 23) & 0xff) - 127 + 15) << 10) | ((bits >>> 13) & 0x3ff);
}

const geluTanh = (x: number): number => 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3)));

/** x times the normal distribution function, integrated by Simpson's rule. */
function gelu(x: number): number {
  const steps = 2000;
  const density = (t: number): number => Math.exp((-t * t) / 2) / Math.sqrt(2 * Math.PI);
  let integral = 0;
  for (let i = 0; i < steps; i++) {
    const [a, b] = [(x * i) / steps, (x * (i + 1)) / steps];
    integral += ((b - a) / 6) * (density(a) + 4 * density((a + b) / 2) + density(b));
  }
  return x * (0.5 + integral);
}

describe("options of config.json", () => {
  const cases: [string, Record<string, unknown>, (x: number) => number, (layer: number) => number][] = [
    ["gelu_new and an own n_inner", {}, geluTanh, () => half],
    ["gelu_pytorch_tanh", { activation_function: "gelu_pytorch_tanh" }, geluTanh, () => half],
    ["gelu", { activation_function: "gelu" }, gelu, () => half],
    ["relu", { activation_function: "relu" }, (x) => Math.max(x, 0), () => half],
    ["scale_attn_weights off", { scale_attn_weights: false }, geluTanh, () => 1],
    ["scale_attn_by_inverse_layer_idx", { scale_attn_by_inverse_layer_idx: true }, geluTanh, (l) => half / (l + 1)],
    ["reorder_and_upcast_attn", { reorder_and_upcast_attn: true }, geluTanh, () => half],
  ];
  test.each(cases)("%s computes what a plain loop does", async (_, config, activation, attentionScale) => {
    const expected = plainLogits(syntheticWeights(), ids, { activation, attentionScale });
    expect(relativeError(await logitsOf(config), expected)).toBeLessThan(1e-5);
  });

  test("what is not implemented is refused by name", async () => {
    const refused = (config: Record<string, unknown>): Promise<unknown> => loadWith(config).catch((error) => error);
    expect(await refused({ activation_function: "quick_gelu" })).toMatchObject({
      code: "ERR_UNSUPPORTED",
      message: expect.stringMatching(/activation_function "quick_gelu".* gelu_new, gelu_pytorch_tanh, gelu, relu/),
    });
    expect(await refused({ activation_function: "constructor" })).toMatchObject({ code: "ERR_UNSUPPORTED" });
    expect(await refused({ add_cross_attention: true })).toMatchObject({ code: "ERR_UNSUPPORTED" });
    expect(await refused({ quantization_config: { bits: 4 } })).toMatchObject({
      code: "ERR_UNSUPPORTED",
      message: expect.stringContaining("quantization_config"),
    });
    expect(await refused({ model_type: "mamba" })).toMatchObject({
      code: "ERR_UNSUPPORTED",
      message: expect.stringMatching(/model_type "mamba"; supported are "gpt2"/),
    });
    expect(await refused({ model_type: undefined })).toMatchObject({ code: "ERR_UNSUPPORTED" });
  });

  test("missing and impossible values are refused by name", async () => {
    const refusal = async (config: Record<string, unknown>): Promise<string> => {
      const error: unknown = await loadWith(config).catch((thrown: unknown) => thrown);
      expect(error).toMatchObject({ code: "ERR_FORMAT" });
      return (error as Error).message;
    };
    expect(await refusal({ n_layer: undefined })).toContain("n_layer");
    expect(await refusal({ n_embd: -12 })).toContain("n_embd");
    expect(await refusal({ n_head: 5 })).toContain("n_embd (12) must be a multiple of n_head (5)");
    expect(await refusal({ layer_norm_epsilon: 0 })).toContain("layer_norm_epsilon");
    expect(await refusal({ n_positions: undefined })).toContain("n_positions");
    expect(await refusal({ vocab_size: 2 })).toMatch(/ids up to 2, .* vocab_size of 2/);
  });
});

describe("the weights' file", () => {
  test("f32, f16 and bf16, with and without prefix, with and without mask buffers, give the same model", async () => {
    const weights = syntheticWeights();
    const expected = await logitsOf({}, weights);
    const stored = (convert: (x: number) => number, dtype: "F16" | "BF16"): Parameters<typeof writeGpt2>[2] =>
      Object.fromEntries(
        Object.entries(weights).map(([name, { shape, data }]) => [
          `transformer.${name}`,
          { shape, data: Uint16Array.from(data, convert), dtype },
        ]),
      );
    expect(
      await logitsOf(
        {},
        stored((x) => float16Bits(x), "F16"),
      ),
    ).toEqual(expected);
    expect(
      await logitsOf(
        {},
        stored((x) => bfloat16FromFloat32(Float32Array.of(x))[0]!, "BF16"),
      ),
    ).toEqual(expected);
    const buffers = {
      "h.0.attn.bias": { shape: [1, 1, 8, 8], data: new Float32Array(64) },
      "h.1.attn.masked_bias": { shape: [], data: Float32Array.of(-1e4) },
    };
    expect(await logitsOf({}, { ...weights, ...buffers })).toEqual(expected);
  });

  test("an unembedding of its own is used when config.json says so, and only then", async () => {
    const weights = syntheticWeights();
    const { "wte.weight": embedding } = weights;
    const own = { shape: [7, 12], data: embedding!.data.map((value, i) => value + (i % 5) / 64) };
    const untied: Weights = { ...weights, "lm_head.weight": own };
    const options = { activation: geluTanh, attentionScale: () => half };
    const logits = await logitsOf({ tie_word_embeddings: false }, untied);
    expect(relativeError(logits, plainLogits(untied, ids, options))).toBeLessThan(1e-5);
    await expect(loadWith({ tie_word_embeddings: false })).rejects.toMatchObject({
      code: "ERR_NOT_FOUND",
      message: expect.stringContaining("lm_head.weight"),
    });
    expect(await logitsOf({}, { ...weights, "lm_head.weight": embedding! })).toEqual(await logitsOf());
    await expect(loadWith({}, untied)).rejects.toThrow(/"lm_head.weight" that differs from the embedding/);
  });

  test("missing, unknown and wrongly shaped tensors are refused, with name, expected and found", async () => {
    const { "h.1.mlp.c_fc.bias": _, ...incomplete } = syntheticWeights();
    await expect(loadWith({}, incomplete)).rejects.toMatchObject({
      code: "ERR_NOT_FOUND",
      message: expect.stringMatching(/"h\.1\.mlp\.c_fc\.bias".* is missing; expected shape \[20\]/),
    });
    const extra = { ...syntheticWeights(), "score.weight": { shape: [1], data: Float32Array.of(1) } };
    await expect(loadWith({}, extra)).rejects.toMatchObject({
      code: "ERR_FORMAT",
      message: expect.stringContaining('"score.weight"'),
    });
    const deeper = { ...syntheticConfig, n_layer: 1 };
    await expect(loadWith(deeper)).rejects.toThrow(/does not have: "h\.1\..* more$/);
    const linear = syntheticWeights();
    linear["h.0.attn.c_attn.weight"]!.shape = [36, 12];
    await expect(loadWith({}, linear)).rejects.toMatchObject({
      code: "ERR_SHAPE_MISMATCH",
      message: expect.stringMatching(
        /c_attn\.weight".* has shape \[36, 12\].*asks for \[12, 36\] \(Conv1D: inputs x outputs\)/,
      ),
    });
    const integers = { ...syntheticWeights(), "ln_f.bias": { shape: [12], data: new Int32Array(12) } };
    await expect(loadWith({}, integers)).rejects.toMatchObject({ code: "ERR_DTYPE_MISMATCH" });
  });

  test("NaN and infinity among the weights are refused, with the tensor's name, and nothing stays on the device", async () => {
    for (const value of [Number.NaN, Number.NEGATIVE_INFINITY]) {
      const weights = syntheticWeights();
      weights["h.1.ln_2.weight"]!.data[4] = value;
      await expect(loadWith({}, weights)).rejects.toMatchObject({
        code: "ERR_NON_FINITE",
        message: expect.stringMatching(/"h\.1\.ln_2\.weight".* at element 4/),
      });
    }
    await device.synchronize();
    expect(device.memory().currentBytes).toBe(0);
  });

  test("a folder without the files, or with broken ones, is refused with the file's name", async () => {
    const folder = await temporaryFolder();
    const load = (): Promise<HookedTransformer> => HookedTransformer.load(folder, device);
    await expect(load()).rejects.toMatchObject({
      code: "ERR_NOT_FOUND",
      message: expect.stringContaining("config.json"),
    });
    await writeGpt2(folder, syntheticConfig, syntheticWeights());
    await writeFile(join(folder, "config.json"), "{ ");
    await expect(load()).rejects.toMatchObject({ code: "ERR_FORMAT", message: expect.stringContaining("config.json") });
    await writeGpt2(folder, syntheticConfig, syntheticWeights());
    await writeFile(join(folder, "model.safetensors"), "short");
    await expect(load()).rejects.toMatchObject({ code: "ERR_FORMAT" });
    await rm(join(folder, "model.safetensors"));
    await expect(load()).rejects.toThrow(/model\.safetensors does not exist/);
  });

  test("a disposed model leaves nothing on the device", async () => {
    const model = await loadWith();
    expect(device.memory().currentBytes).toBeGreaterThan(0);
    model.dispose();
    model.dispose();
    await device.synchronize();
    expect(device.memory().currentBytes).toBe(0);
    await expect(model.forward([ids])).rejects.toMatchObject({ code: "ERR_DISPOSED" });
  });
});
