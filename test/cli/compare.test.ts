import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { HOOK, modelDirectory } from "../analysis/tinyModel.js";
import { type CliResult, runCli, temporaryFolder } from "./runCli.js";
import { writeCrosscoder, writeSae } from "./saeFiles.js";
import { storiesAvailable, storiesModel } from "./storiesModel.js";

const PROMPT = ["--prompt", "The little girl was happy, because"];
const CORRUPTED = ["--corrupted", "The little boy was happy, because"];

function compare(...options: string[]): Promise<CliResult> {
  return runCli("compare", "--model", modelDirectory, ...PROMPT, ...options);
}

async function labelledTexts(folder: string): Promise<string> {
  const lines = ["One day the", "The little", "Then the", "A happy"].flatMap((start) =>
    ["went home", "said no", "saw a dog"].flatMap((end) =>
      ["girl", "boy"].map((label) => JSON.stringify({ text: `${start} ${label} ${end}`, label })),
    ),
  );
  const path = join(folder, "people.jsonl");
  await writeFile(path, lines.join("\n"));
  return path;
}

test("compare prints what five methods say of each token, and what each costs", async () => {
  const folder = await temporaryFolder();
  const sae = await writeSae(folder, { modelName: "tiny-gpt2", hookName: HOOK }, 192);
  const html = join(folder, "compare.html");
  const all = [...CORRUPTED, "--sae", sae, "--data", await labelledTexts(folder), "--positive", "girl"];
  const result = await compare(...all, "--target", " she", "--against", " he", "--html", html);
  expect(result.exitCode).toBe(0);
  expect(result.stdout).toMatch(/^token +patching +probing +LIME +SHAP +latents \(activation\)$/m);
  const girl = /^" girl" +(\S+) +(\S+) +(\S+) +(\S+) +\d/m.exec(result.stdout)!.slice(1).map(Number);
  expect(girl[2]).toBeGreaterThan(1);
  expect(girl[3]).toBeGreaterThan(1);
  expect(result.stdout).toMatch(/^patching +11 forward passes, \d+\.\d\d s/m);
  expect(result.stdout).toMatch(/^SHAP +128 forward passes, /m);
  expect(result.stdout).toMatch(/^without a latent the score falls by: \d+ [+-]\d/m);
  const page = await readFile(html, "utf8");
  expect(page).toContain("Content-Security-Policy");
  for (const method of ["patching", "probing", "LIME", "SHAP", "SAE features"])
    expect(page).toContain(`<h2>${method}</h2>`);
  const json = JSON.parse((await compare(...all, "--json")).stdout);
  expect(json.methods.map(({ method }: { method: string }) => method)).toHaveLength(5);
  expect(json.score).toBe('probability of " she"');
});

test("a crosscoder is named by all hook points that it reads", async () => {
  const sae = await writeCrosscoder(await temporaryFolder());
  const { stdout } = await compare("--sae", sae, "--lime-samples", "20");
  const both = "blocks.1.hook_resid_post and blocks.2.hook_resid_post";
  expect(stdout).toContain(`blocks.2.hook_resid_post for patching and the probe, ${both} for the SAE`);
  expect(stdout).toContain(`latents at ${both}`);
});

test("what is not given is left out, and what cannot be used is refused", async () => {
  const { stdout } = await compare();
  expect(stdout).toMatch(/^patching +left out: no corrupted prompt was given$/m);
  expect(stdout).toMatch(/^token +LIME +SHAP$/m);
  expect((await compare("--corrupted", "The boy was happy")).stdout).toMatch(
    /^patching +left out: the corrupted prompt has 5 tokens, the prompt 8/m,
  );
  for (const [options, message] of [
    [["--positive", "girl"], "--positive needs --data"],
    [["--prompt", ""], "--prompt is empty"],
    [["--data", "nowhere.jsonl"], "nowhere.jsonl does not exist"],
    [["--hook", "blocks.9.hook_resid_post"], "nearest"],
  ] as const) {
    const { exitCode, stdout: printed, stderr } = await compare(...options);
    expect(stderr).toContain(message);
    expect(stderr.trim().split("\n")).toHaveLength(1);
    expect(printed).toBe("");
    expect(exitCode).toBe(1);
  }
});

test.runIf(storiesAvailable)("compare works on a Llama that tells stories", async () => {
  const { model, sae } = await storiesModel();
  const prompts = ["--prompt", "The girl was happy. She", "--corrupted", "The boy was happy. He"];
  const result = await runCli("compare", "--model", model, "--sae", sae, ...prompts);
  expect(result.exitCode).toBe(0);
  expect(result.stdout).toMatch(/^token +patching +LIME +SHAP +latents/m);
});
