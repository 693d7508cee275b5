import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { HOOK, modelDirectory } from "../analysis/tinyModel.js";
import { type CliResult, runCli, temporaryFolder } from "./runCli.js";
import { dSae, writeCrosscoder, writeSae } from "./saeFiles.js";
import { storiesAvailable, storiesModel } from "./storiesModel.js";

async function steer(...options: string[]): Promise<CliResult> {
  const sae = await writeSae(await temporaryFolder(), { modelName: "tiny-gpt2", hookName: HOOK }, 192);
  const common = ["--prompt", "The child", "--max-new-tokens", "12", "--samples", "2"];
  return await runCli("steer", "--model", modelDirectory, "--sae", sae, ...common, ...options);
}

test("steer prints what is written with a latent changed beside what is written without", async () => {
  const html = join(await temporaryFolder(), "steering.html");
  const result = await steer("--latent", "7", "--add", "40", "--target", " was", "--html", html);
  expect(result.exitCode).toBe(0);
  const rows = [...result.stdout.matchAll(/^(unchanged|add 40) +(\S+) +(\S+) +([\d.]+)%$/gm)];
  expect(rows.map((row) => row[1])).toEqual(["unchanged", "add 40"]);
  const [perplexity, steered] = rows.map((row) => Number(row[2]));
  expect(steered).toBeGreaterThan(2 * perplexity!);
  expect(result.stdout).toMatch(/^\[unchanged\] +\[add 40\]\nThe child.* {2,}The child/m);
  const page = await readFile(html, "utf8");
  expect(page).toContain("Content-Security-Policy");
  expect(page.match(/class="text"/g)).toHaveLength(4);
});

test("a sweep of strengths has a row and a text for each, and JSON all there is", async () => {
  const result = await steer("--latent", "7", "2", "--strengths", "-20", "0", "20");
  expect([...result.stdout.matchAll(/^(add -20|unchanged|add 20) /gm)]).toHaveLength(3);
  expect(result.stdout).toMatch(/^ +perplexity +latent 7 +latent 2$/m);
  expect(result.stdout).toMatch(/^\[add -20\]\nThe child/m);
  const { trials, ...rest } = JSON.parse((await steer("--latent", "7", "--strengths", "0", "20", "--json")).stdout);
  expect(rest).toMatchObject({ model: "tiny-gpt2", prompt: "The child", part: "everywhere", errorTerm: true });
  expect(trials[1]).toEqual({
    label: "add 20",
    changes: [{ latent: [7], add: 20 }],
    texts: [expect.any(String), expect.any(String)],
    newTokens: 24,
    perplexity: expect.any(Number),
    activations: [{ latent: 7, mean: expect.any(Number) }],
  });
});

test("latents are scaled, set and clamped, in a part of the run, with the SAE's error or without", async () => {
  for (const options of [
    ["--scale", "0"],
    ["--set", "-3"],
    ["--clamp", "0", "1.5", "--part", "generated"],
    ["--scale", "1", "--no-error-term"],
  ]) {
    const result = await steer("--latent", "7", ...options);
    expect(result.stderr).not.toContain("monosem:");
    expect(result.exitCode).toBe(0);
    expect(result.stdout).toContain("[unchanged]");
  }
});

test("a crosscoder is refused before anything is written", async () => {
  const sae = await writeCrosscoder(await temporaryFolder());
  const { exitCode, stderr } = await runCli(
    ...["steer", "--model", modelDirectory, "--sae", sae, "--prompt", "The child", "--latent", "7", "--add", "1"],
  );
  expect(stderr).toMatch(/^monosem: latents of a crosscoder .*\n$/);
  expect(exitCode).toBe(1);
});

test("what makes no sense is refused", async () => {
  for (const [options, message] of [
    [["--latent", "7"], "one of --add, --scale, --set, --clamp, --strengths"],
    [["--latent", "7", "--add", "1", "--scale", "2"], "one of --add"],
    [["--latent", "7", "--clamp", "1"], "--clamp takes two numbers"],
    [["--latent", "7", "--clamp", "2", "1"], "the lower one first, found 2 and 1"],
    [["--latent", "7", "--add", "much"], "expected a number"],
    [["--latent", String(dSae), "--add", "1"], `there is no latent ${dSae}`],
    [["--add", "1"], "required option '--latent <n...>' not specified"],
    [["--latent", "7", "--add", "1", "--target", "two words"], "but a next token is one"],
  ] as const) {
    const { exitCode, stdout, stderr } = await steer(...options);
    expect(stderr).toContain(message);
    expect(stderr.trim().split("\n")).toHaveLength(1);
    expect(stdout).toBe("");
    expect(exitCode).toBe(1);
  }
});

test.runIf(storiesAvailable)("steer works on a Llama that tells stories", async () => {
  const { model, sae } = await storiesModel();
  const result = await runCli(
    "steer",
    "--model",
    model,
    "--sae",
    sae,
    "--prompt",
    "Once",
    "--latent",
    "7",
    "--add",
    "4",
  );
  expect(result.exitCode).toBe(0);
  expect(result.stdout).toMatch(/^\[unchanged\] +\[add 4\]\nOnce [a-z]/m);
});
