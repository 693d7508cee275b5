import { cp, mkdir, mkdtemp, readFile, rm, stat, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { Device } from "../../lib/engine/device.js";
import { SafetensorsFile, writeSafetensors } from "../../lib/formats/safetensors.js";
import { publishedFormatOf } from "../../lib/pretrained/formats.js";
import type { SaeMetadata } from "../../lib/sae/sae.js";
import { Sae } from "../../lib/sae/sae.js";
import { relativeError } from "../sae/goldens.js";
import { testDevice } from "../testDevice.js";

const fixtures = fileURLToPath(new URL("../fixtures/pretrained", import.meta.url));
const paths: Readonly<Record<string, string>> = JSON.parse(await readFile(join(fixtures, "cases.json"), "utf8"));

let device: Device;
beforeAll(async () => {
  device = await Device.open(testDevice, { threads: 1 });
});
afterAll(() => device.close());

async function expectPeerNumbers(sae: Sae, name: string): Promise<void> {
  await using expected = await SafetensorsFile.open(join(fixtures, "expected", `${name}.safetensors`));
  const x = device.tensor(await expected.readFloat32("activations"), expected.entry("activations").shape);
  const latents = await device.kernels.densify(sae.encode(x)).readFloat32();
  expect(relativeError(latents, await expected.readFloat32("latents"))).toBeLessThan(1e-5);
  const reconstruction = await sae.reconstruct(x).readFloat32();
  expect(relativeError(reconstruction, await expected.readFloat32("reconstruction"))).toBeLessThan(1e-5);
}

const pythia = { modelName: "pythia-160m-deduped", hookName: "blocks.8.hook_resid_post", contextSize: 1024 };
const gemma2 = { contextSize: 1024, prependBos: true };
const llama = { hookName: "blocks.15.hook_resid_post" };
const known: Readonly<Record<string, readonly [format: string, architecture: string, metadata: SaeMetadata]>> = {
  AutoEncoder: ["dictionary_learning", "relu", pythia],
  AutoEncoderNew: ["dictionary_learning", "relu", pythia],
  GatedAutoEncoder: ["dictionary_learning", "gated", pythia],
  JumpReluAutoEncoder: ["dictionary_learning", "jumprelu", pythia],
  AutoEncoderTopK: ["dictionary_learning", "topk", pythia],
  BatchTopKSAE: ["dictionary_learning", "jumprelu", { ...pythia, trainedAs: "batchtopk" }],
  MatryoshkaBatchTopKSAE: ["dictionary_learning", "jumprelu", { ...pythia, trainedAs: "matryoshka" }],
  sparsify: ["sparsify", "topk", { modelName: "pythia-160m", hookName: "blocks.3.hook_resid_post", contextSize: 2048 }],
  "sparsify-transcoder": [
    "sparsify",
    "topk",
    { hookName: "blocks.3.mlp.hook_in", hookNameOut: "blocks.3.hook_mlp_out" },
  ],
  "sparsify-skip-transcoder": ["sparsify", "topk", { hookName: "blocks.3.mlp.hook_in" }],
  "openai-topk": [
    "PyTorch file",
    "topk",
    { modelName: "gpt2-small", hookName: "blocks.8.hook_resid_post", prependBos: false },
  ],
  "openai-relu": ["PyTorch file", "relu", { modelName: "gpt2-small", hookName: "blocks.8.mlp.hook_post" }],
  "circuit-tracer-0": ["circuit-tracer", "relu", { modelName: "Qwen/Qwen3-4B", hookName: "blocks.0.mlp.hook_in" }],
  "circuit-tracer-1": ["circuit-tracer", "jumprelu", { hookNameOut: "blocks.1.hook_mlp_out" }],
  llamascopium: ["Llamascopium", "jumprelu", { hookName: "blocks.2.hook_resid_post" }],
  "llamascopium-transcoder": ["Llamascopium", "jumprelu", { hookNameOut: "blocks.2.hook_mlp_out" }],
  "llamascopium-relu": ["Llamascopium", "relu", { hookName: "blocks.2.hook_resid_post" }],
  "gemma-scope": [
    "Gemma Scope",
    "jumprelu",
    { ...gemma2, modelName: "gemma-2-2b", hookName: "blocks.12.hook_resid_post" },
  ],
  "gemma-scope-attention": ["Gemma Scope", "jumprelu", { modelName: "gemma-2-9b", hookName: "blocks.3.attn.hook_z" }],
  "gemma-scope-transcoder": [
    "Gemma Scope",
    "jumprelu",
    { hookName: "blocks.5.ln2.hook_normalized", hookNameOut: "blocks.5.hook_mlp_out" },
  ],
  "gemma-scope-embedding": ["Gemma Scope", "jumprelu", { modelName: "gemma-2-2b", hookName: "hook_embed" }],
  "gemma-scope-2": [
    "Gemma Scope 2",
    "jumprelu",
    { modelName: "google/gemma-3-270m", hookName: "blocks.10.hook_resid_post", hf_hook_name: "model.layers.10.output" },
  ],
  "gemma-scope-2-affine": [
    "Gemma Scope 2",
    "jumprelu",
    { hookName: "blocks.10.mlp.hook_in", hookNameOut: "blocks.10.hook_mlp_out" },
  ],
  "llama-scope": ["Llama Scope", "jumprelu", { ...llama, modelName: "meta-llama/Llama-3.1-8B" }],
  "llama-scope-r1": ["Llamascopium", "jumprelu", llama],
  goodfire: ["PyTorch file", "relu", { modelName: "Llama-3.1-8B-Instruct", hookName: "blocks.19.hook_resid_post" }],
  qresearch: [
    "PyTorch file",
    "relu",
    { modelName: "DeepSeek-R1-Distill-Llama-8B", hookName: "blocks.19.hook_resid_post" },
  ],
  "qwen-scope": ["PyTorch file", "topk", { modelName: "Qwen3-1.7B-Base", hookName: "blocks.5.hook_resid_post" }],
  "hook-z": ["PyTorch file", "relu", { modelName: "gpt2-small", hookName: "blocks.0.attn.hook_z", contextSize: 128 }],
  pre6: [
    "SAELens",
    "relu",
    { modelName: "gpt2-small", hookName: "blocks.8.hook_resid_pre", prependBos: true, contextSize: 128 },
  ],
  "pre6-topk": ["SAELens", "topk", { prependBos: false, hookName: "blocks.8.hook_resid_pre" }],
  "pre6-gated": ["SAELens", "gated", { modelName: "gpt2-small" }],
  "pre6-scaled": ["SAELens", "relu", { modelName: "gpt2-small" }],
  "pre6-jumprelu": ["SAELens", "jumprelu", { modelName: "gpt2-small" }],
};

test("every fixture is told", () => {
  expect(Object.keys(paths).sort()).toEqual(Object.keys(known).sort());
});

/** Of those whose files leave it out. */
const inputScales: Readonly<Record<string, number>> = { "pre6-scaled": 0.375 };
const load = (name: string): Promise<Sae> =>
  Sae.load(join(fixtures, paths[name]!), device, { inputScale: inputScales[name] });

describe("what each system saved is recognised, and computes what that system computes", () => {
  test.each(Object.entries(known))("%s", async (name, [format, architecture, metadata]) => {
    expect(await publishedFormatOf(join(fixtures, paths[name]!))).toBe(format);
    using sae = await load(name);
    expect(sae.config.architecture).toBe(architecture);
    expect(sae.config.transcoder).toBe("hookNameOut" in sae.metadata);
    expect(sae.metadata).toMatchObject(metadata);
    await expectPeerNumbers(sae, name);
  });
});

describe("converted, it computes the same", () => {
  test.each(Object.keys(known))("%s", async (name) => {
    const folder = await mkdtemp(join(tmpdir(), "monosem-"));
    using sae = await load(name);
    await sae.save(folder);
    using again = await Sae.load(folder, device);
    expect(again.config).toEqual(sae.config);
    expect(again.metadata).toEqual(sae.metadata);
    await expectPeerNumbers(again, name);
    await rm(folder, { recursive: true });
  });
});

describe("what only names say is found in the cache of the Hugging Face hub, too", () => {
  let cache: string;
  beforeEach(async () => {
    cache = await mkdtemp(join(tmpdir(), "monosem-"));
    return () => rm(cache, { recursive: true });
  });
  /** The fixture, linked to as the hub's cache does. */
  async function cached(name: string, repository: string, folder: string, files: readonly string[]): Promise<string> {
    const snapshot = join(cache, `models--${repository.replace("/", "--")}`, "snapshots/0123abcd", folder);
    await mkdir(snapshot, { recursive: true });
    const source = join(fixtures, paths[name]!);
    for (const file of files)
      await symlink((await stat(source)).isFile() ? source : join(source, file), join(snapshot, file));
    return snapshot;
  }

  test("Gemma Scope", async () => {
    const folder = "layer_12/width_16k/average_l0_82";
    using sae = await Sae.load(
      await cached("gemma-scope", "google/gemma-scope-27b-pt-mlp", folder, ["params.npz"]),
      device,
    );
    expect(sae.metadata).toMatchObject({ modelName: "gemma-2-27b", hookName: "blocks.12.hook_mlp_out" });
  });
  test("Gemma Scope 2, without its configuration", async () => {
    const folder = "transcoder_all/layer_10_width_16k_l0_small_affine";
    const path = await cached("gemma-scope-2-affine", "google/gemma-scope-2-1b-it", folder, ["params.safetensors"]);
    using sae = await Sae.load(path, device);
    await expectPeerNumbers(sae, "gemma-scope-2-affine");
    expect(sae.metadata).toMatchObject({
      modelName: "google/gemma-3-1b-it",
      hookName: "blocks.10.mlp.hook_in",
      hookNameOut: "blocks.10.hook_mlp_out",
    });
    const nameless = await cached("gemma-scope-2", "me/mine", "x", ["params.safetensors"]);
    await expect(Sae.load(nameless, device)).rejects.toMatchObject({
      message: expect.stringMatching(/no config\.json/),
    });
  });
  test("Qwen Scope", async () => {
    const path = await cached("qwen-scope", "Qwen/SAE-Res-Qwen3-8B-Base-W64K-L0_7", "", ["layer5.sae.pt"]);
    using sae = await Sae.load(path, device);
    expect(sae.config).toMatchObject({ k: 7 });
    expect(sae.metadata).toMatchObject({ modelName: "Qwen3-8B-Base" });
  });
});

describe("refused, by reason", () => {
  let folder: string;
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), "monosem-"));
    return () => rm(folder, { recursive: true });
  });
  const refused = async (path: string, code: string, message: RegExp): Promise<void> => {
    await expect(Sae.load(path, device)).rejects.toMatchObject({ code, message: expect.stringMatching(message) });
  };
  /** A copy of a fixture's JSON with other keys, beside the same weights. */
  async function edited(name: string, json: string, edit: (cfg: Record<string, unknown>) => object): Promise<string> {
    await cp(join(fixtures, paths[name]!), folder, { recursive: true });
    const cfg = JSON.parse(await readFile(join(folder, json), "utf8"));
    await writeFile(join(folder, json), JSON.stringify(edit(cfg)));
    return folder;
  }

  test("a scale for weights that need none, or say another", async () => {
    const scaled = (name: string) => Sae.load(join(fixtures, paths[name]!), device, { inputScale: 2 });
    const code = "ERR_INVALID_ARGUMENT";
    const message = (text: RegExp) => expect.stringMatching(text);
    await expect(scaled("gemma-scope")).rejects.toMatchObject({ code, message: message(/activations as they are$/) });
    await expect(scaled("llama-scope")).rejects.toMatchObject({ code, message: message(/times 1\.63\d+, as it says/) });
  });
  test("a folder of something else, with what was looked for and what is there", async () => {
    await writeFile(join(folder, "notes.txt"), "x");
    await refused(folder, "ERR_NOT_FOUND", /holds no SAE.*params\.npz \(Gemma Scope\).*Found notes\.txt$/);
    await refused(join(folder, "notes.txt"), "ERR_NOT_FOUND", /holds no SAE of a known format/);
  });
  test("several layers in a folder, none of them named", async () => {
    await refused(
      join(fixtures, "circuit-tracer"),
      "ERR_NOT_FOUND",
      /layer_N\.safetensors, named itself where there are several/,
    );
  });
  test("PyTorch files with other tensors", async () => {
    await refused(
      fileURLToPath(new URL("../fixtures/archives/small.pt", import.meta.url)),
      "ERR_UNSUPPORTED",
      /holds no SAE of a known format\. Looked for the tensors of OpenAI \(pre_bias, .*found row, half$/,
    );
    await refused(
      fileURLToPath(new URL("../fixtures/archives/hostile/system.pt", import.meta.url)),
      "ERR_UNSUPPORTED",
      /it needs "posix\.system"/,
    );
  });
  test("linear layers of unknown meaning", async () => {
    await cp(join(fixtures, paths.qresearch!), join(folder, "model.pt"));
    await refused(join(folder, "model.pt"), "ERR_UNSUPPORTED", /qresearch \(.*in MODEL-SAE-lLAYER\.pt\)/);
  });
  test("Qwen Scope without the repository's name", async () => {
    await cp(join(fixtures, paths["qwen-scope"]!), join(folder, "layer5.sae.pt"));
    await refused(folder, "ERR_UNSUPPORTED", /no file says its k/);
  });
  test("a threshold that was never set", async () => {
    await refused(join(fixtures, "refused/unset-threshold"), "ERR_UNSUPPORTED", /its threshold was never set/);
  });
  test("sparsify's groupmax, and SAEs with a skip connection", async () => {
    await refused(join(fixtures, "refused/groupmax"), "ERR_UNSUPPORTED", /activation is "groupmax"/);
    await refused(
      join(fixtures, "refused/sae-with-skip"),
      "ERR_UNSUPPORTED",
      /no transcoder, but has a skip connection/,
    );
  });
  test.each<[string, string, object, RegExp]>([
    [
      "AutoEncoder",
      "config.json",
      { trainer: { dict_class: "IdentityDict", activation_dim: 6, dict_size: 6 } },
      /dict_class is "IdentityDict"/,
    ],
    ["llama-scope", "hyperparams.json", { norm_activation: "token-wise" }, /norm_activation is "token-wise"/],
    ["llama-scope", "hyperparams.json", { use_glu_encoder: true }, /use_glu_encoder/],
    ["llamascopium", "config.json", { sae_type: "crosscoder" }, /sae_type is "crosscoder"/],
    ["llamascopium", "config.json", { act_fn: "batchtopk" }, /act_fn is "batchtopk"/],
    ["llamascopium", "config.json", { act_fn: "topk" }, /its TopK selects by sparsity_include_decoder_norm/],
    [
      "llamascopium",
      "config.json",
      { hook_point_in: "other" },
      /no tensor dataset_average_activation_norm\.other says the scale/,
    ],
    ["gemma-scope-2", "config.json", { architecture: "topk" }, /architecture is "topk"; jump_relu/],
    ["sparsify", "cfg.json", { signed: true }, /signed is true/],
    ["pre6", "cfg.json", { activation_fn_str: "tanh-relu" }, /activation_fn is "tanh-relu"/],
    ["pre6", "cfg.json", { normalize_activations: "expected_average_only_in" }, /not folded into the weights/],
  ])("%s with %s %j", async (name, json, keys, message) => {
    await refused(await edited(name, json, (cfg) => ({ ...cfg, ...keys })), "ERR_UNSUPPORTED", message);
  });
  test.each<[string, string, object, RegExp]>([
    [
      "AutoEncoderTopK",
      "config.json",
      { trainer: { dict_class: "AutoEncoderTopK", activation_dim: 6, dict_size: 20, k: 5 } },
      /k is 4, but config\.json says 5/,
    ],
    [
      "AutoEncoder",
      "config.json",
      { trainer: { dict_class: "AutoEncoder", activation_dim: 6, dict_size: 21 } },
      /encoder\.weight has shape \[20, 6\], expected \[21, 6\]/,
    ],
    [
      "AutoEncoder",
      "config.json",
      { trainer: { dict_class: "GatedAutoEncoder", activation_dim: 6, dict_size: 20 } },
      /unexpected tensor bias/,
    ],
    ["sparsify", "cfg.json", { k: 0 }, /cfg\.json: k:/],
    ["sparsify", "cfg.json", { d_in: 7 }, /expected \[24, 7\]/],
    [
      "llama-scope",
      "hyperparams.json",
      { dataset_average_activation_norm: { in: 1e-320, out: 1 } },
      /activations cannot be scaled by Infinity/,
    ],
    ["llama-scope", "hyperparams.json", { d_sae: 1e12 }, /encoder\.weight has shape/],
    ["llama-scope", "hyperparams.json", { d_sae: undefined }, /hyperparams\.json: d_sae:/],
  ])("%s with %s %j does not fit together", async (name, json, keys, message) => {
    await refused(await edited(name, json, (cfg) => ({ ...cfg, ...keys })), "ERR_FORMAT", message);
  });

  test("decoder rows that are not of norm 1, where the threshold is for such", async () => {
    const path = await edited("llama-scope", "hyperparams.json", (cfg) => cfg);
    const file = join(path, "checkpoints/final.safetensors");
    const tensors = await tensorsOf(file);
    tensors["decoder.weight"]!.data = tensors["decoder.weight"]!.data.map((value) => 2 * value);
    await writeSafetensors(file, tensors);
    await refused(path, "ERR_UNSUPPORTED", /a decoder row has norm [\d.]+, and its threshold is for norm 1/);
  });
  test("factors of finetuned latents that are not 1", async () => {
    const path = await edited("pre6", "cfg.json", (cfg) => cfg);
    const file = join(path, "sae_weights.safetensors");
    const tensors = await tensorsOf(file);
    tensors.scaling_factor!.data[3] = 1.5;
    await writeSafetensors(file, tensors);
    await refused(path, "ERR_UNSUPPORTED", /its scaling_factor is not 1 everywhere/);
  });
  test("a cross-layer transcoder, and a threshold below 0", async () => {
    const path = await edited("gemma-scope-2", "config.json", (cfg) => cfg);
    const file = join(path, "params.safetensors");
    const tensors = await tensorsOf(file);
    await writeSafetensors(file, { ...tensors, w_dec: { shape: [20, 2, 3], data: tensors.w_dec!.data } });
    await refused(path, "ERR_UNSUPPORTED", /cross-layer transcoder/);

    const layer = join(path, "layer_1.safetensors");
    const transcoder = await tensorsOf(join(fixtures, paths["circuit-tracer-1"]!));
    transcoder["activation_function.threshold"]!.data[0] = -0.1;
    await writeSafetensors(layer, transcoder);
    await refused(layer, "ERR_UNSUPPORTED", /a threshold is below 0/);
  });
  test("NaN among the weights", async () => {
    const path = join(folder, "nan");
    await mkdir(path);
    const tensors = await tensorsOf(join(fixtures, paths["circuit-tracer-0"]!));
    tensors.b_dec!.data[2] = Number.NaN;
    await writeSafetensors(join(path, "layer_0.safetensors"), tensors);
    await refused(path, "ERR_NON_FINITE", /tensor b_dec holds NaN at element 2/);
  });
});

async function tensorsOf(path: string): Promise<Record<string, { shape: readonly number[]; data: Float32Array }>> {
  await using file = await SafetensorsFile.open(path);
  const tensors: Record<string, { shape: readonly number[]; data: Float32Array }> = {};
  for (const [name, { shape }] of file.entries) tensors[name] = { shape, data: await file.readFloat32(name) };
  return tensors;
}

describe("a config.yaml of circuit-tracer", () => {
  let folder: string;
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), "monosem-yaml-"));
    await cp(join(fixtures, paths["circuit-tracer-0"]!), join(folder, "layer_0.safetensors"));
    return () => rm(folder, { recursive: true });
  });
  const loadWith = async (yaml: string): Promise<SaeMetadata> => {
    await writeFile(join(folder, "config.yaml"), yaml);
    using sae = await Sae.load(join(folder, "layer_0.safetensors"), device);
    return sae.metadata;
  };

  test("may have a key twice: the last one counts, as in Python", async () => {
    const many = Array.from({ length: 5000 }, (_, i) => `k${i}: v`).join("\n");
    expect(await loadWith(`model_name: a\n${many}\nmodel_name: b\n`)).toMatchObject({ modelName: "b" });
  });

  test("is refused when it is larger than any, nests without end or multiplies itself", async () => {
    const path = join(folder, "config.yaml");
    await expect(loadWith(`a: "${"x".repeat(2 ** 17)}"`)).rejects.toMatchObject({
      code: "ERR_FORMAT",
      message: expect.stringContaining(`${path} has more than 131072 bytes`),
    });
    const letters = [..."abcdefghij"];
    const doubling = letters.map((letter, i) => `${letter}: &${letter} [${`*${letters[i - 1]},`.repeat(i && 9)}1]`);
    for (const yaml of [`a: ${"[".repeat(50_000)}`, doubling.join("\n")]) {
      await expect(loadWith(yaml)).rejects.toMatchObject({
        code: "ERR_FORMAT",
        message: expect.stringContaining(`${path} is not YAML`),
      });
    }
  });
});
