import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { HOOK, modelDirectory } from "../analysis/tinyModel.js";
import { type CliResult, runCli, temporaryFolder } from "./runCli.js";
import { dSae, writeSae } from "./saeFiles.js";
import { storiesAvailable, storiesModel } from "./storiesModel.js";

const CLEAN = "The little girl was happy, because";
const CORRUPTED = "The little boy was happy, because";
const SHE = ["--target", " she", "--against", " he"];

function patch(...options: string[]): Promise<CliResult> {
  return runCli("patch", "--model", modelDirectory, "--clean", CLEAN, "--corrupted", CORRUPTED, ...options);
}

/** The cells of a printed row, a dot being 0. */
function row({ stdout }: CliResult, map: string, name: string): number[] {
  const lines = stdout.slice(stdout.indexOf(map)).split("\n");
  const cells = lines
    .find((line) => line.startsWith(`${name} `))!
    .trim()
    .split(/ +/)
    .slice(1);
  return cells.map((cell) => (cell === "·" ? 0 : Number(cell)));
}

test("patch shows where the difference is carried: in the word at first, in the last token at last", async () => {
  const folder = await temporaryFolder();
  const [html, svg] = [join(folder, "patching.html"), join(folder, "patching.svg")];
  const result = await patch(...SHE, "--html", html, "--svg", svg);
  expect(result.exitCode).toBe(0);
  expect(result.stdout).toMatch(/^metric +logit of " she" minus logit of " he"$/m);
  expect(result.stdout).toMatch(/^cost +99 forward passes, \d+\.\d s$/m);
  expect(result.stdout).toContain("girl/boy");
  expect(row(result, "resid_pre", "0")).toEqual([0, 0, 0, 1, 0, 0, 0, 0]);
  const last = row(result, "resid_pre", "3");
  expect(last[3]).toBeLessThan(0.1);
  expect(last[7]).toBeGreaterThan(0.9);
  expect(row(result, "attn_out", "2")[7]).toBeGreaterThan(0.9);
  const page = await readFile(html, "utf8");
  expect(page).toContain("Content-Security-Policy");
  expect(page.match(/<figure>/g)).toHaveLength(3);
  const picture = await readFile(svg, "utf8");
  expect(picture).toMatch(/^<svg .*<\/svg>\n$/s);
  expect(picture).toContain("girl/boy");
});

test("by head, by noising, by divergence, at whole hook points", async () => {
  const heads = await patch("--by", "head", "--kl", "--direction", "noising");
  expect(heads.stdout).toContain("head 5");
  expect(heads.stdout).toContain("KL divergence of the next token from the clean run");
  const largest = [0, 1, 2, 3].flatMap((layer) => row(heads, "z of each", String(layer)));
  expect(largest.indexOf(Math.max(...largest))).toBe(2 * 6 + 4);
  const whole = JSON.parse((await patch("--components", "hook_embed", "ln_final.hook_normalized", "--json")).stdout);
  expect(whole).toMatchObject({
    model: "tiny-gpt2",
    prompts: { clean: CLEAN, corrupted: CORRUPTED },
    direction: "denoising",
    forwardPasses: 3 + 16,
  });
  expect(whole.maps[0].effects[0][3]).toBeCloseTo(1, 4);
  expect(whole.maps[1].effects[0][7]).toBeCloseTo(1, 4);
});

test("latents are patched, or their effects estimated", async () => {
  const sae = await writeSae(await temporaryFolder(), { modelName: "tiny-gpt2", hookName: HOOK }, 192);
  const patched = JSON.parse((await patch(...SHE, "--sae", sae, "--strongest", "4", "--json")).stdout);
  const [map] = patched.maps;
  expect(map.rows.length).toBeLessThanOrEqual(4);
  expect(map.columns[0]).toBe("all");
  const estimated = JSON.parse((await patch(...SHE, "--sae", sae, "--attribution", "--json")).stdout);
  for (const [i, latent] of map.rows.entries()) {
    const at = estimated.maps[0].rows.indexOf(latent);
    expect(Math.abs(estimated.maps[0].effects[at][0] - map.effects[i][0])).toBeLessThan(0.1);
  }
  expect(estimated.maps[0].rows.length).toBeLessThanOrEqual(dSae);
  expect((await patch("--sae", sae)).stdout).toContain("latents, patched");
});

test("no latent is left out for how little it differs, unless --strongest says so, and then the report does", async () => {
  const metadata = { modelName: "tiny-gpt2", hookName: HOOK };
  const sae = await writeSae(await temporaryFolder(), metadata, 192, { dSae: 64, k: 32 });
  const all = JSON.parse((await patch(...SHE, "--sae", sae, "--json")).stdout);
  const differ = all.latentsThatDiffer;
  expect(differ).toBeGreaterThan(20);
  expect(all.maps[0].rows).toHaveLength(differ);
  const largest = all.maps[0].rows[0];
  const shown = await patch(...SHE, "--sae", sae);
  expect(shown.stdout).toMatch(
    new RegExp(`^latents +all ${differ} that differ between the prompts; the 20 of largest effect are shown`, "m"),
  );
  expect(shown.stdout.match(/^\d+ .*$/gm)).toHaveLength(20);
  expect(shown.stdout).toMatch(new RegExp(`^${largest} `, "m"));
  const few = await patch(...SHE, "--sae", sae, "--strongest", "2");
  expect(few.stdout).toMatch(
    new RegExp(
      `^latents +the 2 that differ most, of ${differ} that differ \\(--strongest ${differ} patches all\\)$`,
      "m",
    ),
  );
  const estimated = await patch(...SHE, "--sae", sae, "--attribution", "--strongest", "3");
  expect(estimated.stdout).toMatch(
    new RegExp(
      `^latents +the 3 of largest estimated effect, of ${differ} that differ \\(--strongest ${differ} shows`,
      "m",
    ),
  );
});

test("prompts of different lengths can be aligned", async () => {
  const longer = ["patch", "--model", modelDirectory, "--clean", "The girl said", "--corrupted", "The little boy said"];
  const refused = await runCli(...longer);
  expect(refused.stderr).toContain("the clean prompt has 4 tokens, the corrupted one 5");
  expect(refused.stderr).toContain("--align");
  expect((await patch("--corrupted", CLEAN)).stderr).toMatch(/the metric is \d\.\d{1,5} for the clean and/);
  const aligned = await runCli(...longer, "--align", "0:0", "2:3", "3:4", "--components", "resid_pre");
  expect(aligned.exitCode).toBe(0);
  expect(row(aligned, "resid_pre", "0")).toHaveLength(3);
});

test("a wide map goes on below on a narrow terminal, and hostile prompts are printed harmlessly", async () => {
  const evil = "He\u001b[2J said\u202e no and then";
  const result = await runCli(
    "patch",
    "--model",
    modelDirectory,
    "--clean",
    evil,
    "--corrupted",
    evil.replace("no", "so"),
  );
  expect(result.exitCode).toBe(0);
  expect(result.stdout).not.toContain("\u001b");
  expect(result.stdout).not.toContain("\u202e");
  expect(result.stdout.match(/^layer /gm)!.length).toBeGreaterThan(3);
  for (const line of result.stdout.split("\n").slice(9)) expect([...line].length).toBeLessThanOrEqual(100);
});

test("options that do not belong together are refused", async () => {
  for (const [options, message] of [
    [["--attribution"], "--attribution needs --sae"],
    [["--strongest", "3"], "--strongest needs --sae"],
    [["--sae", "x", "--by", "head"], "--by is for patching without --sae"],
    [["--kl", "--target", " she"], "--kl looks at all tokens"],
    [["--align", "3"], "expected two positions, such as 3:2"],
    [["--by", "layer"], "Allowed choices are position, head, head-and-position"],
    [["--components", "resid_past"], "resid_past"],
    [["--by", "head", "--components", "resid_pre"], "and no heads"],
    [["--html", "/nowhere/at/all.html"], "cannot write /nowhere/at/all.html"],
  ] as const) {
    const { exitCode, stdout, stderr } = await patch(...options);
    expect(stderr).toContain(message);
    expect(stderr.trim().split("\n")).toHaveLength(1);
    expect(stdout).toBe("");
    expect(exitCode).toBe(1);
  }
});

test.runIf(storiesAvailable)("patch works on a Llama that tells stories", async () => {
  const { model, sae } = await storiesModel();
  const prompts = ["--clean", "The girl was happy. She", "--corrupted", "The boy was happy. He"];
  for (const options of [
    ["--components", "resid_pre", "rot_q", "mlp_out"],
    ["--by", "head-and-position", "--components", "v"],
    ["--sae", sae],
    ["--sae", sae, "--attribution"],
  ]) {
    const result = await runCli("patch", "--model", model, ...prompts, ...options, "--kl");
    expect(result.stderr).not.toContain("monosem:");
    expect(result.exitCode).toBe(0);
  }
});
