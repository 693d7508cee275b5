import { readFile, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import { Device } from "../../lib/engine/device.js";
import { HookedTransformer } from "../../lib/models/hookedTransformer.js";
import { filesOfModel } from "../../lib/models/locateModel.js";
import { Sae } from "../../lib/sae/sae.js";
import { modelDirectory } from "../analysis/tinyModel.js";
import { temporaryFolder } from "../cli/runCli.js";
import { dIn, dSae, numbers, writeSae } from "../cli/saeFiles.js";
import { startTestHub, type TestHub } from "../hub/hubEnvironment.js";
import { testDevice } from "../testDevice.js";
import { servedFolder } from "./servedFolder.js";

const release = "gpt2-small-res-jb";
const saeId = "blocks.8.hook_resid_pre";

let device: Device;

beforeAll(async () => {
  device = await Device.open(testDevice, { threads: 1 });
});

afterAll(() => device.close());

async function serveSae(
  change: (cfg: Record<string, unknown>) => object = (cfg) => cfg,
): Promise<TestHub & { folder: string }> {
  const folder = await writeSae(await temporaryFolder(), { hookName: saeId, datasetPath: "x" });
  const cfg = join(folder, "cfg.json");
  await writeFile(cfg, JSON.stringify(change(JSON.parse(await readFile(cfg, "utf8")))));
  const files = new Map([
    ...(await servedFolder(folder, `${saeId}/`)),
    ...(await servedFolder(folder, "blocks.12.hook_resid_post/")),
    ["other/large.bin", Buffer.alloc(100_000)] as const,
  ]);
  const hub = await startTestHub(
    { name: "jbloom/GPT2-Small-SAEs-Reformatted", files },
    { name: "someone/saes", files },
    {
      name: "jbloom/Gemma-2b-Residual-Stream-SAEs",
      files: await servedFolder(folder, "gemma_2b_blocks.12.hook_resid_post_16384/"),
    },
  );
  return { ...hub, folder };
}

test("a published SAE is loaded by name, from its own files only, and again without the hub", async () => {
  const { server, folder } = await serveSae();
  using sae = await Sae.fromPretrained({ release, saeId }, device);
  expect(sae.config).toMatchObject({ architecture: "topk", dIn, dSae });
  expect(sae.metadata).toMatchObject({
    modelName: "gpt2-small",
    hookName: saeId,
    datasetPath: "x",
    model_from_pretrained_kwargs: { center_writing_weights: true },
  });
  expect(server.transfersOf("large.bin")).toHaveLength(0);
  using local = await Sae.load(folder, device);
  using x = device.tensor(numbers(dIn * 4), [4, dIn]);
  using published = sae.reconstruct(x);
  using own = local.reconstruct(x);
  expect(await published.readFloat32()).toEqual(await own.readFloat32());
  vi.stubEnv("HF_HUB_OFFLINE", "1");
  const asked = server.requests.length;
  using again = await Sae.fromPretrained({ release, saeId }, device);
  expect(again.metadata).toEqual(sae.metadata);
  expect(server.requests).toHaveLength(asked);
});

test("a repository that is in no registry is named by itself and the folder", async () => {
  await serveSae();
  using sae = await Sae.fromPretrained({ release: "someone/saes", saeId }, device);
  expect(sae.metadata).toEqual({ hookName: saeId, datasetPath: "x" });
  await expect(Sae.fromPretrained({ release: "someone/saes", saeId: "other" }, device)).rejects.toMatchObject({
    code: "ERR_NOT_FOUND",
    message: /other is or holds no file of a known kind; there are other\/large\.bin/,
  });
});

test("names are checked before anything is asked of the hub", async () => {
  const { server } = await serveSae();
  await expect(Sae.fromPretrained({ release, saeId: "blocks.8.hook_resid_prf" }, device)).rejects.toMatchObject({
    code: "ERR_NOT_FOUND",
    message: /did you mean blocks\.8\.hook_resid_pre,/,
  });
  expect(server.requests).toEqual([]);
});

test("the factor of the activations that an SAE's folder leaves open comes from the registry, folded into the weights", async () => {
  const { folder } = await serveSae((cfg) => ({ ...cfg, normalize_activations: "expected_average_only_in" }));
  await expect(Sae.load(folder, device)).rejects.toMatchObject({ code: "ERR_UNSUPPORTED" });
  using factor = await Sae.load(folder, device, { inputScale: 0.25 });
  using whole = await Sae.load(folder, device, { inputScale: 1 });
  const data = numbers(dIn * 4);
  using x = device.tensor(data, [4, dIn]);
  using quarter = device.tensor(
    data.map((value) => value / 4),
    [4, dIn],
  );
  using scaled = factor.encode(x);
  using plain = whole.encode(quarter);
  expect(await scaled.read()).toEqual(await plain.read());
});

test("a model is loaded by the name of its repository, or by a short one", async () => {
  const { server, home } = await startTestHub({
    name: "openai-community/gpt2",
    files: await servedFolder(modelDirectory),
  });
  using model = await HookedTransformer.load("gpt2-small", device);
  expect(model.config).toMatchObject({ name: "gpt2", nLayers: 4 });
  expect(model.source).toMatchObject({ name: "gpt2", hub: { repository: "openai-community/gpt2" } });
  expect(model.source.directory.startsWith(join(home, "hub/models--openai-community--gpt2/snapshots/"))).toBe(true);
  expect(server.requests.some(({ url }) => url.includes("made-with"))).toBe(false);
  vi.stubEnv("HF_HUB_OFFLINE", "1");
  using again = await HookedTransformer.load("openai-community/gpt2", device);
  expect(again.source.hub?.withoutHub).toMatchObject({ code: "ERR_OFFLINE" });
});

test("a folder of the same name is taken instead of a repository, and nothing is asked for", async () => {
  const { server } = await startTestHub({ name: "openai-community/gpt2", files: new Map() });
  const folder = await temporaryFolder();
  await symlink(modelDirectory, join(folder, "gpt2"));
  using model = await HookedTransformer.load(join(folder, "gpt2"), device);
  expect(model.source).toEqual({ name: "gpt2", directory: join(folder, "gpt2"), hub: undefined });
  expect(server.requests).toEqual([]);
});

test("what is neither a folder nor a repository is said to be neither", async () => {
  const { server } = await startTestHub({
    name: "a/unsafe",
    files: new Map([["pytorch_model.bin", Buffer.from("x")]]),
  });
  await expect(HookedTransformer.load("a/none", device)).rejects.toMatchObject({
    code: "ERR_NOT_FOUND",
    message: /^the folder a\/none does not exist, and a\/none: .* has no such repository/,
  });
  await expect(HookedTransformer.load("a/unsafe", device)).rejects.toThrow(
    /config\.json, model\.safetensors is missing; there are pytorch_model\.bin/,
  );
  const asked = server.requests.length;
  await expect(HookedTransformer.load("gpt3", device)).rejects.toThrow(
    /no model is known by that name: did you mean gpt2,/,
  );
  await expect(HookedTransformer.load("./none/x", device)).rejects.toThrow(/^the folder \.\/none\/x does not exist$/);
  expect(server.requests).toHaveLength(asked);
});

test("weights in pieces are taken when all are there; a tokenizer need not be", () => {
  const needed = ["config.json", "tokenizer.json"];
  const piece = (n: number): string => `model-0000${n}-of-00002.safetensors`;
  const index = "model.safetensors.index.json";
  expect(filesOfModel([...needed, index, piece(1), piece(2), "x.bin"])).toEqual([...needed, index, piece(1), piece(2)]);
  expect(() => filesOfModel([...needed, index, piece(2)])).toThrow(/some of the 2 pieces of the weights is missing/);
  expect(() => filesOfModel([...needed, piece(1), piece(2)])).toThrow(/pieces/);
  expect(filesOfModel(["config.json", "model.safetensors"])).toEqual(["config.json", "model.safetensors"]);
  expect(filesOfModel([...needed, "model.safetensors", index, piece(1)])).toEqual([...needed, "model.safetensors"]);
});
