/** What TransformerLens does to weights by default, against its own activations. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { Device } from "../../lib/engine/device.js";
import { HookedTransformer, type ModelLoadOptions } from "../../lib/models/hookedTransformer.js";
import { reachableBytes } from "../reachableBytes.js";
import { testDevice } from "../testDevice.js";
import { copyModel, readModelReference } from "./families.js";
import { relativeError } from "./tinyGpt2.js";

let device: Device;
let folder: string;

beforeAll(async () => {
  device = await Device.open(testDevice, { threads: 2 });
  folder = await mkdtemp(join(tmpdir(), "monosem-processing-"));
  for (const name of ["gpt2", "gpt-neox", "llama", "qwen2", "gemma2"]) await copyModel(name, join(folder, name));
});
afterAll(async () => {
  await device.close();
  await rm(folder, { recursive: true });
});

const all: ModelLoadOptions = {
  foldLn: true,
  centerWritingWeights: true,
  centerUnembed: true,
  foldValueBiases: true,
};
// What TransformerLens leaves out for these models.
const withRmsNorm = { ...all, centerWritingWeights: false };
const withCappedLogits = { ...withRmsNorm, centerUnembed: false };

test.each([
  ["gpt2", all],
  ["gpt-neox", all],
  ["llama", withRmsNorm],
  ["qwen2", withRmsNorm],
  ["gemma2", withCappedLogits],
])("%s, processed, has TransformerLens' activations and logits", async (name, options) => {
  const reference = await readModelReference(name);
  const tokens = [Array.from(reference.get("tokens")!.data.subarray(0, reference.get("tokens")!.shape[1]))];
  using model = await HookedTransformer.load(join(folder, name), device, options);
  const { output, cache } = await model.runWithCache(tokens);
  const expected = [...reference].filter(([key]) => key.startsWith("processed."));
  expect(expected.length).toBeGreaterThan(15);
  for (const [key, { data }] of expected) {
    const found = key === "processed.logits" ? output : cache.get(key.slice("processed.".length))!;
    expect(relativeError(await found.readFloat32(), data), key).toBeLessThan(2e-5);
  }
  expect(model.config.processing).toMatchObject(options);
});

test("the residual stream that LayerNorm reads may be centred by itself; predictions stay", async () => {
  const tokens = [[1, 5, 9, 3, 22, 0]];
  const path = join(folder, "gpt-neox");
  const predictions = async (options: ModelLoadOptions): Promise<Float32Array> => {
    using model = await HookedTransformer.load(path, device, options);
    using logits = await model.forward(tokens);
    return await device.kernels.logSoftmax(logits).readFloat32();
  };
  const plain = await predictions({});
  for (const option of ["foldLn", "centerWritingWeights", "centerUnembed", "foldValueBiases"]) {
    expect(relativeError(await predictions({ [option]: true }), plain), option).toBeLessThan(1e-5);
  }
  using centred = await HookedTransformer.load(path, device, { centerWritingWeights: true });
  using residual = await centred.activations(tokens, "blocks.1.hook_resid_post");
  const values = await residual.readFloat32();
  const width = centred.config.dModel;
  for (let row = 0; row < 6; row++) {
    const mean = values.subarray(row * width, (row + 1) * width).reduce((sum, value) => sum + value, 0) / width;
    expect(Math.abs(mean)).toBeLessThan(1e-5);
  }
});

test("what would change predictions is refused, before weights are read", async () => {
  await expect(HookedTransformer.load(join(folder, "llama"), device, all)).rejects.toMatchObject({
    code: "ERR_UNSUPPORTED",
    message: expect.stringMatching(/centerWritingWeights: llama \(llama\) has RMSNorm/),
  });
  await expect(HookedTransformer.load(join(folder, "gemma2"), device, withRmsNorm)).rejects.toMatchObject({
    code: "ERR_UNSUPPORTED",
    message: expect.stringMatching(/centerUnembed: gemma2 \(gemma2\) caps its logits/),
  });
});

test("processing leaves no tensor of the weights before behind", async () => {
  const before = await reachableBytes(device);
  const plain = await HookedTransformer.load(join(folder, "gpt2"), device);
  const bytes = (await reachableBytes(device)) - before;
  plain.dispose();
  const processed = await HookedTransformer.load(join(folder, "gpt2"), device, all);
  // The unembedding of its own and its bias come, the norms' weights and the values' biases go.
  expect((await reachableBytes(device)) - before).toBeLessThan(bytes + 4 * 23 * 13 + 1024);
  processed.dispose();
  expect(await reachableBytes(device)).toBe(before);
});
