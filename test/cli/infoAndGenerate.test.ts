import { copyFileSync, existsSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { modelDirectory } from "../analysis/tinyModel.js";
import { runCli, temporaryFolder } from "./runCli.js";
import { dIn, dSae, writeSae } from "./saeFiles.js";

test("a model whose tokenizer lies elsewhere, in a folder or as a file, writes what it writes with it", async () => {
  const folder = await temporaryFolder();
  const [model, tokenizer] = [join(folder, "model"), join(folder, "tokenizer")];
  for (const [to, names] of [
    [model, ["config.json", "model.safetensors"]],
    [tokenizer, ["tokenizer.json", "tokenizer_config.json"]],
  ] as const) {
    mkdirSync(to);
    for (const name of names) copyFileSync(join(modelDirectory, name), join(to, name));
  }
  const options = ["--prompt", "The king", "--max-new-tokens", "8", "--temperature", "0"];
  const { stdout } = await runCli("generate", "--model", modelDirectory, ...options);
  for (const given of [tokenizer, join(tokenizer, "tokenizer.json")]) {
    const elsewhere = await runCli("generate", "--model", model, "--tokenizer", given, ...options);
    expect(elsewhere).toMatchObject({ exitCode: 0, stdout });
    expect((await runCli("info", model, "--tokenizer", given)).stdout).toMatch(/^kind +model$/m);
  }
  const without = await runCli("generate", "--model", model, ...options);
  expect(without).toMatchObject({
    exitCode: 1,
    stderr: expect.stringMatching(/no tokenizer with .*--tokenizer.*tokenizer\.json/),
  });
  expect(JSON.parse((await runCli("info", model, "--json")).stdout)).toMatchObject({ kind: "model", dModel: 192 });
});

const stories = "/work/shared/data/models/stories260K";

test.skipIf(!existsSync(stories))("a llama2.c model with its tokenizer by another name", async () => {
  const files = ["--model", join(stories, "stories260K.bin"), "--tokenizer", join(stories, "tok512.bin")];
  const told = await runCli(
    "generate",
    ...files,
    "--prompt",
    "Once upon a time",
    "--max-new-tokens",
    "24",
    "--temperature",
    "0",
  );
  expect(told).toMatchObject({
    exitCode: 0,
    stdout: expect.stringMatching(/^Once upon a time, there was a little girl/),
  });
});

test("info names version, device and processor, and why this device", async () => {
  const { exitCode, stdout } = await runCli("info", "--json", "--threads", "1");
  expect(exitCode).toBe(0);
  expect(JSON.parse(stdout)).toMatchObject({
    monosem: expect.stringMatching(/^\d+\.\d+\.\d+/),
    node: process.version,
    device: expect.any(String),
    processor: expect.stringContaining("1 thread"),
    reason: expect.any(String),
  });
});

test("info tells an SAE from a model", async () => {
  const folder = await temporaryFolder();
  const sae = await writeSae(folder, { modelName: "evil\u001b[2J", hookName: "blocks.0.hook_resid_post" });
  const described = await runCli("info", sae);
  expect(described.exitCode).toBe(0);
  expect(described.stdout).toMatch(/^kind +sae$/m);
  expect(described.stdout).toMatch(new RegExp(`^dIn +${dIn}$`, "m"));
  expect(described.stdout).toMatch(new RegExp(`^dSae +${dSae}$`, "m"));
  expect(described.stdout).toContain("evil\\u{1b}[2J");
  const model = await runCli("info", modelDirectory, "--json");
  expect(JSON.parse(model.stdout)).toMatchObject({ kind: "model", name: "tiny-gpt2", nLayers: 4, dModel: 192 });
});

test("info lists a model's hook points, as they are written into configurations, with their widths", async () => {
  const { stdout } = await runCli("info", modelDirectory);
  expect(stdout).toMatch(
    /^hookPoints\n {2}hook_embed +192\n {2}hook_pos_embed +192\n {2}blocks\.\{layer\}\.hook_resid_pre +192\n/m,
  );
  expect(stdout).toMatch(/^ {2}blocks\.\{layer\}\.mlp\.hook_post +768$/m);
  expect(stdout).toMatch(/^ {2}blocks\.\{layer\}\.attn\.hook_pattern +no vector per token$/m);
  const { hookPoints } = JSON.parse((await runCli("info", modelDirectory, "--json")).stdout);
  expect(hookPoints).toHaveLength(21);
  expect(hookPoints).toContainEqual({ name: "blocks.{layer}.attn.hook_attn_scores", width: null });
});

test("info tells what a file of llama2.c holds", async () => {
  const folder = await temporaryFolder();
  const [dim, hidden, vocabulary, context] = [4, 8, 259, 16];
  const sizes = Int32Array.of(dim, hidden, 1, 1, 1, vocabulary, context);
  const weights = vocabulary * dim + 3 * dim + 4 * dim * dim + 3 * hidden * dim + context * dim;
  const file = join(folder, "tiny.bin");
  writeFileSync(file, Buffer.concat([Buffer.from(sizes.buffer), Buffer.alloc(4 * weights)]));
  expect((await runCli("info", file)).exitCode).toBe(0);
  const untold = await runCli("generate", "--model", file, "--prompt", "a");
  expect(untold).toMatchObject({
    exitCode: 1,
    stdout: "",
    stderr: expect.stringMatching(/--tokenizer.*tokenizer\.bin of llama2\.c/),
  });
  // The longest piece's length, then of each piece its score, its length and its bytes.
  const piece = Buffer.concat([Buffer.alloc(4), Buffer.from(Int32Array.of(1).buffer), Buffer.from("a")]);
  const pieces = new Array<Buffer>(vocabulary).fill(piece);
  writeFileSync(join(folder, "tokenizer.bin"), Buffer.concat([Buffer.from(Int32Array.of(1).buffer), ...pieces]));
  const { stdout } = await runCli("info", file, "--json");
  expect(JSON.parse(stdout)).toMatchObject({ kind: "model", architecture: "llama", name: "tiny", dModel: dim });
});

test("info on the output of a training run says where its SAEs are", async () => {
  const folder = await temporaryFolder();
  const configure = (sae: unknown): void => writeFileSync(join(folder, "config.json"), JSON.stringify({ sae }));
  const message = async (): Promise<string> => (await runCli("info", folder)).stderr;
  configure([{ name: "small" }, { name: "large" }]);
  expect(await message()).toContain(`it has not saved ${folder}/small/sae, ${folder}/large/sae yet`);
  for (const name of ["small", "large"]) await writeSae(join(folder, name));
  expect(await message()).toContain(`its SAEs are in ${folder}/small/sae, ${folder}/large/sae\n`);
  configure({ architecture: "topk" });
  await writeSae(folder);
  expect(await message()).toContain(`its SAE is in ${folder}/sae\n`);
});

test("info on a folder of something else says that it holds neither an SAE nor a model, and where one is", async () => {
  const folder = await temporaryFolder();
  expect((await runCli("info", folder)).stderr).toMatch(
    /holds neither an SAE \(cfg\.json, .*\) nor a model .*json\)\n$/,
  );
  const sae = await writeSae(folder);
  expect((await runCli("info", folder)).stderr).toContain(`; there is one in ${sae}\n`);
});

test("info on a file or folder that is there never speaks of models by name, and says which files to name", async () => {
  const folder = await temporaryFolder();
  const layer = fileURLToPath(new URL("../fixtures/pretrained/circuit-tracer/layer_1.safetensors", import.meta.url));
  const lone = join(folder, "lone.safetensors");
  copyFileSync(layer, lone);
  const file = await runCli("info", lone);
  expect(file).toMatchObject({ exitCode: 1, stdout: "" });
  expect(file.stderr).toMatch(
    /lone\.safetensors is neither an SAE, which is known by .*layer_N\.safetensors, .* nor a model/,
  );
  for (const number of [0, 1]) copyFileSync(layer, join(folder, `layer_${number}.safetensors`));
  for (const command of [
    ["info", folder],
    ["convert", folder, join(folder, "out")],
  ]) {
    const { stderr } = await runCli(...command);
    expect(stderr).toContain("; it has several in layer_0.safetensors, layer_1.safetensors: name one of them\n");
  }
});

test("generate says when the model's context ends it before the number of tokens asked for", async () => {
  const generate = ["generate", "--model", modelDirectory, "--prompt", "Once upon a time".repeat(61), "--seed", "2"];
  const cut = await runCli(...generate, "--max-new-tokens", "1000");
  expect(cut.exitCode).toBe(0);
  expect(cut.stderr).toMatch(/^stopped after \d+ new tokens: the model's context of 256 tokens is full\n$/);
  expect(await runCli(...generate, "--max-new-tokens", "3")).toMatchObject({ exitCode: 0, stderr: "" });
});

test("generate continues a prompt, the same for the same seed and another for another", async () => {
  const generate = (...more: string[]): ReturnType<typeof runCli> =>
    runCli("generate", "--model", modelDirectory, "--prompt", "The king", "--max-new-tokens", "12", ...more);
  const [first, again, other] = await Promise.all([generate(), generate(), generate("--seed", "5")]);
  expect(first.exitCode).toBe(0);
  expect(first.stdout).toMatch(/^The king./);
  expect(again.stdout).toBe(first.stdout);
  expect(other.stdout).not.toBe(first.stdout);
});

test("generate --samples writes a corpus: a line of JSON for each of different continuations", async () => {
  const generate = ["generate", "--model", modelDirectory, "--prompt", 'The "king', "--max-new-tokens", "9"];
  const { exitCode, stdout } = await runCli(...generate, "--samples", "3");
  expect(exitCode).toBe(0);
  const texts = stdout
    .trim()
    .split("\n")
    .map((line) => (JSON.parse(line) as { text: string }).text);
  expect(new Set(texts).size).toBe(3);
  for (const text of texts) expect(text).toMatch(/^The "king./s);
  expect((await runCli(...generate, "--samples", "0")).exitCode).toBe(1);
});

test("generate refuses a folder without a model, and impossible sampling", async () => {
  const folder = await temporaryFolder();
  const absent = await runCli("generate", "--model", join(folder, "none"), "--prompt", "a");
  expect(absent).toMatchObject({ exitCode: 1, stderr: expect.stringMatching(/^monosem: .*none.*\n$/) });
  const sampling = await runCli("generate", "--model", modelDirectory, "--prompt", "a", "--top-p", "2");
  expect(sampling).toMatchObject({
    exitCode: 1,
    stdout: "",
    stderr: expect.stringMatching(/^monosem: .*'--top-p <x>'.* above 0 and at most 1\.\n$/),
  });
});

test("a prompt that is longer than the model's context is refused by its flag, before anything is printed", async () => {
  const prompt = "Once upon a time".repeat(100);
  const message = expect.stringMatching(
    /^monosem: --prompt is 40\d tokens long, but the context of .* is 256: shorten/,
  );
  const generated = await runCli("generate", "--model", modelDirectory, "--prompt", prompt);
  expect(generated).toMatchObject({ exitCode: 1, stdout: "", stderr: message });
  const sae = await writeSae(await temporaryFolder(), { modelName: "tiny-gpt2", hookName: "blocks.0.hook_resid_post" });
  for (const command of [
    ["steer", "--sae", sae, "--latent", "0", "--add", "1", "--prompt"],
    ["attribute", "shap", "--prompt"],
    ["compare", "--prompt"],
  ]) {
    const refused = await runCli(...command, prompt, "--model", modelDirectory);
    expect(refused, command[0]).toMatchObject({ exitCode: 1, stdout: "", stderr: message });
  }
  const patched = await runCli("patch", "--model", modelDirectory, "--clean", "She", "--corrupted", prompt);
  expect(patched.stderr).toContain("--corrupted is 40");
});

test("generate --stop ends where the text comes to one of several", async () => {
  const generate = ["generate", "--model", modelDirectory, "--prompt", "The king", "--temperature", "0"];
  const { stdout } = await runCli(...generate, "--max-new-tokens", "30");
  const [, words] = /^The king((?: ?\S+){5})/.exec(stdout)!;
  const last = words!.trim().split(" ").at(-1)!;
  const stopped = await runCli(...generate, "--max-new-tokens", "30", "--stop", "no such text", ` ${last}`);
  expect(stopped).toMatchObject({ exitCode: 0, stderr: "" });
  expect(stopped.stdout).toBe(`${stdout.slice(0, stdout.indexOf(` ${last}`, "The king".length))}\n`);
});
