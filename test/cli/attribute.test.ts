import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { HOOK, modelDirectory } from "../analysis/tinyModel.js";
import { type CliResult, runCli, temporaryFolder } from "./runCli.js";
import { dSae, writeSae } from "./saeFiles.js";

const PROMPT = "The little girl was happy, because";

function attribute(...commandLine: string[]): Promise<CliResult> {
  return runCli("attribute", ...commandLine, "--model", modelDirectory, "--threads", "1");
}

/** The values and labels of the table. */
function rowsOf({ stdout }: CliResult): { value: number; label: string }[] {
  return [...stdout.matchAll(/^ *([+-]\d+\.\d{4})(?: ± \d+\.\d{4})? +[█░]* +(.+)$/gm)].map((match) => ({
    value: Number(match[1]),
    label: match[2]!,
  }));
}

test("shap prints what each token does, in the order of the prompt, and the values add up", async () => {
  const result = await attribute("shap", "--prompt", PROMPT, "--target", " she", "--against", " he");
  expect(result.exitCode).toBe(0);
  expect(result.stdout).toMatch(/^measure +logit of " she" minus logit of " he"$/m);
  expect(result.stdout).toMatch(/^method +SHAP, exact; 128 combinations in \d+\.\d s$/m);
  const rows = rowsOf(result);
  expect(rows.map(({ label }) => JSON.parse(label)).join("")).toBe(PROMPT);
  const difference = Number(/the values add up to (-?\d+\.\d{4})$/m.exec(result.stdout)![1]);
  expect(rows.reduce((sum, { value }) => sum + value, 0)).toBeCloseTo(difference, 3);
  expect(rows.reduce((best, row) => (row.value > best.value ? row : best)).label).toBe('" girl"');
});

test("--json tells model, measure, method and every player, and holds no formatting", async () => {
  const { stdout } = await attribute(
    "shap",
    "--prompt",
    PROMPT,
    "--method",
    "permutation",
    "--permutations",
    "2",
    "--json",
  );
  const result = JSON.parse(stdout);
  expect(result).toMatchObject({
    model: "tiny-gpt2",
    prompt: PROMPT,
    measure: { kind: "probability", token: " she" },
    method: "SHAP, permutation",
    evaluations: expect.any(Number),
    seconds: expect.any(Number),
  });
  expect(result.players).toHaveLength(7);
  expect(result.players[2]).toEqual({
    position: 3,
    token: " girl",
    value: expect.any(Number),
    standardError: expect.any(Number),
  });
  const sum = result.players.reduce((total: number, { value }: { value: number }) => total + value, 0);
  expect(Math.abs(sum - (result.full - result.empty))).toBeLessThan(1e-6);
});

test("every method of shap runs, with its own budget, and finds the girl", async () => {
  for (const options of [
    ["kernel", "--samples", "60"],
    ["partition", "--evaluations", "30", "--mask", "."],
    ["permutation", "--seed", "3"],
  ]) {
    const result = await attribute(
      "shap",
      "--prompt",
      PROMPT,
      "--target",
      " she",
      "--against",
      " he",
      "--method",
      ...options,
    );
    expect(result.exitCode).toBe(0);
    expect(result.stdout).toContain(`SHAP, ${options[0]}`);
    const rows = rowsOf(result);
    expect(rows.reduce((best, row) => (row.value > best.value ? row : best)).label).toBe('" girl"');
  }
});

test("lime prints the tokens of its explanation, and how well it fits", async () => {
  const result = await attribute("lime", "--prompt", PROMPT, "--features", "3", "--samples", "200", "--target", " she");
  expect(result.exitCode).toBe(0);
  expect(result.stdout).toMatch(/^fit +R² 0\.\d{4}, intercept -?\d\.\d{4}$/m);
  expect(rowsOf(result)).toHaveLength(3);
  expect(rowsOf(result).map(({ label }) => label)).toContain('" girl"');
  const { players } = JSON.parse(
    (await attribute("lime", "--prompt", PROMPT, "--features", "3", "--json", "--feature-selection", "lasso-path"))
      .stdout,
  );
  expect(players).toHaveLength(7);
  expect(players.filter(({ value }: { value: number }) => value !== 0).length).toBeLessThanOrEqual(3);
});

test("latents of an SAE play, strongest effect first", async () => {
  const folder = await temporaryFolder();
  const sae = await writeSae(folder, { modelName: "tiny-gpt2", hookName: HOOK }, 192);
  const result = await attribute("shap", "--prompt", PROMPT, "--sae", sae, "--strongest", "4");
  expect(result.exitCode).toBe(0);
  const rows = rowsOf(result);
  expect(rows).toHaveLength(4);
  for (const { label } of rows) expect(label).toMatch(/^latent \d, \d+\.\d\d at ".+"$/);
  const sizes = rows.map(({ value }) => Math.abs(value));
  expect(sizes).toEqual([...sizes].sort((a, b) => b - a));
  const named = await attribute("lime", "--prompt", PROMPT, "--sae", sae, "--latents", "2", "5", "--json");
  expect(JSON.parse(named.stdout).players.map(({ latent }: { latent: number }) => latent)).toEqual([2, 5]);
  const unknown = await attribute("shap", "--prompt", PROMPT, "--sae", sae, "--latents", String(dSae));
  expect(unknown.stderr).toContain(`there is no latent ${dSae}`);
});

test("--html writes a page of all tokens, and says so", async () => {
  const page = join(await temporaryFolder(), "page.html");
  const command = [
    "lime",
    "--prompt",
    PROMPT,
    "--target",
    " she",
    "--samples",
    "50",
    "--features",
    "2",
    "--html",
    page,
  ];
  const { stdout } = await attribute(...command);
  expect(stdout).toContain(`wrote ${page}`);
  const html = readFileSync(page, "utf8");
  const tokens = [...html.matchAll(/<bdi class="[an]\d+" title="[^"]*">([^<]*)<\/bdi>/g)].map((match) => match[1]);
  expect(tokens.join("")).toBe(PROMPT);
  expect(html.slice(html.indexOf('<table class="players">')).match(/<tr>/g)).toHaveLength(2);
  const nowhere = await attribute("shap", "--prompt", PROMPT, "--html", join(page, "no/page.html"));
  expect(nowhere).toMatchObject({ exitCode: 1, stdout: "" });
});

test("a hostile prompt is printed harmlessly", async () => {
  const { stdout } = await attribute("shap", "--prompt", "He\u001b[2J said\u202e no");
  expect(stdout).not.toContain("\u001b");
  expect(stdout).not.toContain("\u202e");
  expect(stdout).toContain("\\u{1b}[2J");
});

test("tokens that are parts of characters are escaped once", async () => {
  const { stdout } = await attribute("shap", "--prompt", "a 🙂");
  expect(stdout).toMatch(/ {2}".*\\x[0-9A-F]{2}.*"$/m);
  expect(stdout).not.toContain("\\\\");
});

test("options that do not belong together are refused", async () => {
  for (const [commandLine, message] of [
    [["shap", "--samples", "9"], "--samples belongs to --method kernel"],
    [["shap", "--method", "exact", "--evaluations", "9"], "--evaluations belongs to --method partition"],
    [["shap", "--method", "partition", "--sae", "x"], "--method partition needs players in the order of a text"],
    [["shap", "--latents", "1"], "--latents needs --sae"],
    [["lime", "--mask", ".", "--sae", "x"], "--mask is for tokens"],
    [["lime", "--target", "happy because"], '"happy because" is'],
    [["shap", "--method", "magic"], "Allowed choices are exact, permutation, kernel, partition"],
  ] as const) {
    const { exitCode, stdout, stderr } = await attribute(...commandLine, "--prompt", PROMPT);
    expect(stderr).toContain(message);
    expect(stderr.trim().split("\n")).toHaveLength(1);
    expect(stdout).toBe("");
    expect(exitCode).toBe(1);
  }
});
