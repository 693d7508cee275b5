import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { HOOK, modelDirectory } from "../analysis/tinyModel.js";
import { type CliResult, runCli, temporaryFolder } from "./runCli.js";
import { writeSae } from "./saeFiles.js";

const starts = ["One day the", "The little", "Then the", "A happy", "Once the"];
const ends = ["went home", "was very happy", "saw a dog", "said no", "ran away", "had a red ball"];

/** Texts about two kinds of people, labelled by which. */
async function peopleFile(change = (record: object): object => record): Promise<{ folder: string; file: string }> {
  const folder = await temporaryFolder();
  const file = join(folder, "people.jsonl");
  const records = starts.flatMap((start) =>
    ends.flatMap((end) => ["girl", "boy"].map((label) => change({ text: `${start} ${label} ${end}`, label }))),
  );
  writeFileSync(file, records.map((record) => `${JSON.stringify(record)}\n`).join(""));
  return { folder, file };
}

function probe(...commandLine: string[]): Promise<CliResult> {
  return runCli("probe", "--model", modelDirectory, "--threads", "1", ...commandLine);
}

test("a probe of activations finds the label, and the table says on how many texts", async () => {
  const { file } = await peopleFile();
  const { exitCode, stdout, stderr } = await probe("--data", file, "--hook", HOOK);
  expect(exitCode).toBe(0);
  expect(stdout + stderr).not.toMatch(/duplicates|warning/);
  expect(stdout).toMatch(/^label +"girl": 30 of 60 texts$/m);
  expect(stdout).toMatch(/^probes +logistic, tested on 12 texts, 6 of them "girl"$/m);
  const accuracy = Number(/^all 192 +\S+ +([\d.]+)%/m.exec(stdout)![1]);
  expect(accuracy).toBeGreaterThan(80);
});

test("with an SAE its latents are probed, all together and a few; --json has weights and cross-validation", async () => {
  const { folder, file } = await peopleFile();
  const sae = await writeSae(folder, { modelName: "tiny-gpt2", hookName: HOOK }, 192);
  const { stdout } = await probe(
    "--data",
    file,
    "--sae",
    sae,
    "--k",
    "1",
    "3",
    "--kind",
    "ridge",
    "--positive",
    "boy",
    "--json",
  );
  const result = JSON.parse(stdout);
  expect(result).toMatchObject({
    model: "tiny-gpt2",
    hooks: [HOOK],
    positive: "boy",
    texts: 60,
    positives: 30,
    cut: 0,
  });
  expect(result.probes.map(({ weights }: { weights: number[] }) => weights.length)).toEqual([10, 1, 3]);
  expect(result.probes[0]).toMatchObject({ kind: "ridge", features: "all", test: { rows: 12, positives: 6 } });
  expect(result.probes[0].crossValidation).toHaveLength(7);
  expect(result.probes[2].features).toHaveLength(3);
  const table = await probe("--data", file, "--sae", sae);
  expect(table.stdout).toMatch(/^1 latent +\S+ /m);
  expect(table.stdout).toMatch(/^5 latents: \d \([+-]/m);
});

test("texts that occur more than once are counted in a warning, the table and the JSON", async () => {
  const { folder, file } = await peopleFile();
  const twice = join(folder, "twice.jsonl");
  const lines = readFileSync(file, "utf8");
  writeFileSync(twice, `${lines}${lines.split("\n").slice(0, 7).join("\n")}\n`);
  const { exitCode, stdout, stderr } = await probe("--data", twice, "--hook", HOOK);
  expect(exitCode).toBe(0);
  expect(stderr).toContain(
    `warning: 7 of 67 texts occur earlier in ${twice}: what is tested may be known from training\n`,
  );
  expect(stdout).toMatch(/^duplicates +7 of 67 texts occur earlier/m);
  expect(JSON.parse((await probe("--data", twice, "--hook", HOOK, "--json")).stdout).duplicates).toBe(7);
});

test("types make control tasks in which a type has one label", async () => {
  const { file } = await peopleFile((record) => ({ ...record, type: (record as { label: string }).label }));
  const { probes } = JSON.parse((await probe("--data", file, "--hook", HOOK, "--json")).stdout);
  // Two types with two labels: permuted, they are as easily told apart, so that nothing is selective.
  expect(probes[0].control.selectivity).toBeCloseTo(0, 6);
});

test("hostile labels are printed harmlessly", async () => {
  const { file } = await peopleFile((record) => ({
    ...record,
    label: `${(record as { label: string }).label}\u001b[2J`,
  }));
  const { stdout } = await probe("--data", file, "--hook", HOOK);
  expect(stdout).not.toContain("\u001b");
  expect(stdout).toContain("girl");
});

test("what cannot be probed is refused in one line", async () => {
  const { folder, file } = await peopleFile();
  const empty = join(folder, "empty.jsonl");
  writeFileSync(empty, "");
  for (const [commandLine, message] of [
    [["--data", file], "nothing to probe: give --hook, --sae or both"],
    [["--data", "nowhere.jsonl", "--hook", HOOK], "nowhere.jsonl does not exist"],
    [["--data", empty, "--hook", HOOK], "there are no labelled texts"],
    [
      ["--data", file, "--hook", HOOK, "--positive", "cat"],
      'no text has the label "cat"; the labels are "boy", "girl"',
    ],
    [["--data", file, "--hook", "blocks.9.hook_resid_post"], "nearest:"],
    [["--data", file, "--hook", HOOK, "--k", "193"], "--k must be at most the 192 features at blocks"],
  ] as const) {
    const { exitCode, stdout, stderr } = await probe(...commandLine);
    expect(stderr.trim().split("\n")).toEqual([expect.stringContaining(message)]);
    expect(stdout).toBe("");
    expect(exitCode).toBe(1);
  }
});

test("several hook points are probed one by one, in one table, page or line of JSON each", async () => {
  const { folder, file } = await peopleFile();
  const hooks = ["hook_embed", HOOK];
  const page = join(folder, "<page>.html");
  const { stdout } = await probe("--data", file, "--hook", ...hooks, "--pooling", "last", "--html", page);
  for (const hook of hooks) expect(stdout).toMatch(new RegExp(`^${hook}, all 192 `, "m"));
  const html = readFileSync(page, "utf8");
  for (const hook of hooks) expect(html).toContain(`<bdi>${hook}, all 192</bdi>`);
  expect(html.match(/<td class="bar">/g)).toHaveLength(2);
  const { stdout: lines } = await probe("--data", file, "--hook", ...hooks, "--json");
  expect(
    lines
      .trim()
      .split("\n")
      .map((line) => (JSON.parse(line) as { hooks: string[] }).hooks),
  ).toEqual([["hook_embed"], [HOOK]]);
  const sae = await writeSae(folder, { modelName: "tiny-gpt2", hookName: HOOK }, 192);
  expect((await probe("--data", file, "--hook", ...hooks, "--sae", sae)).stderr).toMatch(
    /--sae reads one hook point, found 2/,
  );
});
