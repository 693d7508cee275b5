import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { modelDirectory } from "../analysis/tinyModel.js";
import { startTestHub, type TestHub } from "../hub/hubEnvironment.js";
import { firstCommit } from "../hub/hubServer.js";
import { servedFolder } from "../pretrained/servedFolder.js";
import { runCli, temporaryFolder } from "./runCli.js";
import { writeSae } from "./saeFiles.js";

const name = "gpt2-small-resid-post-v5-32k/blocks.2.hook_resid_post";

async function startHub(): Promise<TestHub> {
  const metadata = {
    modelName: "gpt2-small",
    hookName: "blocks.2.hook_resid_post",
    prependBos: false,
    contextSize: 64,
  };
  const sae = await writeSae(await temporaryFolder(), metadata, 192);
  return await startTestHub(
    { name: "openai-community/gpt2", files: await servedFolder(modelDirectory) },
    { name: "jbloom/GPT2-Small-OAI-v5-32k-resid-post-SAEs", files: await servedFolder(sae, "v5_32k_layer_2.pt/") },
  );
}

test("info on a published SAE and a model on the hub reads configurations and headers, and downloads nothing", async () => {
  const { server } = await startHub();
  const sae = await runCli("info", name, "--json");
  expect(sae).toMatchObject({ exitCode: 0, stderr: "" });
  expect(JSON.parse(sae.stdout)).toMatchObject({
    kind: "published sae",
    model: "gpt2-small",
    hook: "blocks.2.hook_resid_post",
    l0: 32,
    repository: "jbloom/GPT2-Small-OAI-v5-32k-resid-post-SAEs",
    architecture: "topk",
    d_in: 192,
    d_sae: 10,
    parameters: 2 * 192 * 10 + 10 + 192,
    commit: firstCommit,
  });
  const model = await runCli("info", "gpt2", "--json");
  expect(JSON.parse(model.stdout)).toMatchObject({
    repository: "openai-community/gpt2",
    model_type: "gpt2",
    n_layer: 4,
  });
  const whole = server.requests.filter(({ url, range }) => url.startsWith("/lfs/") && range === undefined);
  expect(whole).toEqual([]);
});

test("info lists releases and the SAEs of one, and knows what a misspelled name was to be", async () => {
  expect((await runCli("info", "releases")).stdout).toMatch(/^gpt2-small-res-jb +13 of gpt2-small$/m);
  const listed = await runCli("info", "gemma-scope-2b-pt-transcoders");
  expect(listed.stdout).toMatch(
    /^layer_1\/width_16k\/average_l0_65 +blocks\.1\.ln2\.hook_normalized to blocks\.1\.hook_mlp_out, L0 65$/m,
  );
  expect((await runCli("info", "gpt2-smal-res-jb/x")).stderr).toContain("did you mean gpt2-small-res-jb,");
  expect((await runCli("info", "gpt3")).stderr).toContain("did you mean gpt2,");
});

test("download brings SAEs and models into the cache, and says where they are", async () => {
  const { home, server } = await startHub();
  const sae = await runCli("download", name);
  expect(sae.exitCode).toBe(0);
  const snapshot = `models--jbloom--GPT2-Small-OAI-v5-32k-resid-post-SAEs/snapshots/${firstCommit}`;
  expect(sae.stdout).toBe(`${join(home, "hub", snapshot, "v5_32k_layer_2.pt")}\n`);
  const model = await runCli("download", "openai-community/gpt2", "--json");
  expect(JSON.parse(model.stdout)).toMatchObject({
    repository: "openai-community/gpt2",
    commit: firstCommit,
    files: ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"],
  });
  expect(model.stderr).toMatch(/^downloading openai-community\/gpt2: \d+\/\d+ MB {2}model\.safetensors$/m);
  await server.stop();
  const again = await runCli("download", name);
  expect(again).toMatchObject({ exitCode: 0, stdout: sae.stdout });
  expect(again.stderr).toMatch(
    /^jbloom\/GPT2-Small-OAI-v5-32k-resid-post-SAEs: cannot reach .*; taking what is in the cache$/m,
  );
});

test("commands take published SAEs and models on the hub by name", async () => {
  await startHub();
  const folder = await temporaryFolder();
  await mkdir(folder, { recursive: true });
  const corpus = join(folder, "text.txt");
  await writeFile(corpus, "Once upon a time there was a king who said that he would not go. ".repeat(60));
  const flags = ["--sae", name, "--model", "gpt2", "--corpus", corpus];
  const features = await runCli("features", ...flags, "--latents", "3", "--examples", "1");
  expect(features.exitCode, features.stderr).toBe(0);
  expect(features.stdout).toMatch(/^latent 3 {2}fires on /m);
  const evaluated = await runCli("eval", ...flags, "--json");
  expect(evaluated.exitCode, evaluated.stderr).toBe(0);
  expect(evaluated.stderr).toMatch(
    /^warning: .* leaves [\d.e+]+% of the variance unexplained, where the mean activation would leave 100%: .*wrong scale\?$/m,
  );
  expect(JSON.parse(evaluated.stdout)).toMatchObject({ sae_cfg_dict: { d_in: 192, architecture: "topk" } });
});

test("a model's weights are processed as they were in the SAE's training", async () => {
  const folder = await temporaryFolder();
  await mkdir(folder, { recursive: true });
  const corpus = join(folder, "text.txt");
  await writeFile(corpus, "Once upon a time there was a king who said that he would not go. ".repeat(20));
  const metadata = {
    hookName: "blocks.2.hook_resid_post",
    model_from_pretrained_kwargs: { center_writing_weights: true },
  };
  const sae = await writeSae(folder, metadata, 192);
  const features = await runCli("features", "--sae", sae, "--model", "assets/tiny-gpt2", "--corpus", corpus);
  expect(features).toMatchObject({ exitCode: 0, stderr: expect.not.stringMatching(/centerWritingWeights/) });
});

test("what an SAE was not trained for is refused, unless --allow-mismatch permits it", async () => {
  await startHub();
  const corpus = join(await temporaryFolder(), "text.txt");
  await writeFile(corpus, "Once upon a time there was a king who said that he would not go. ".repeat(60));
  const commandLine = ["features", "--sae", name, "--model", "gpt2", "--corpus", corpus, "--context-size", "65"];
  const refused = await runCli(...commandLine);
  expect(refused).toMatchObject({
    exitCode: 1,
    stderr: expect.stringMatching(
      /the SAE was trained on contexts of 64 tokens, but one of 65 is given .*--allow-mismatch/,
    ),
  });
  expect((await runCli(...commandLine, "--allow-mismatch")).exitCode).toBe(0);
});
