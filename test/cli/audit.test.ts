import { copyFileSync, existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import type { AuditSection } from "../../lib/audit/auditReport.js";
import { HOOK, modelDirectory } from "../analysis/tinyModel.js";
import { runCli, temporaryFolder } from "./runCli.js";
import { writeSae } from "./saeFiles.js";

const story = "One day Tom went home. Lily was happy. The old man said that he saw a dog and ran away. ";

async function prepared(): Promise<{ folder: string; commandLine: string[] }> {
  const folder = await temporaryFolder();
  const sae = await writeSae(
    folder,
    { modelName: "tiny-gpt2", hookName: HOOK, contextSize: 32, prependBos: true },
    192,
  );
  writeFileSync(join(folder, "stories.txt"), story.repeat(20));
  const corpus = join(folder, "stories.txt");
  return {
    folder,
    commandLine: [
      "audit",
      "--sae",
      sae,
      "--model",
      modelDirectory,
      "--corpus",
      corpus,
      "--tokens",
      "300",
      "--threads",
      "1",
    ],
  };
}

test("an audit has a section for each topic, in the terminal, as JSON and as a page", async () => {
  const { folder, commandLine } = await prepared();
  const page = join(folder, "audit.html");
  const { exitCode, stdout, stderr } = await runCli(...commandLine, "--html", page);
  expect(stderr).toContain(`wrote ${page}`);
  expect(exitCode).toBe(0);
  for (const title of ["CONSISTENCY", "COUNTERFACTUAL", "EFFECTS", "OVERLAP", "FRAGMENTATION", "ABSORPTION", "DEAD"]) {
    expect(stdout).toMatch(new RegExp(`^${title}`, "m"));
  }
  expect(stdout).toMatch(/^ {2}the same latents, repeated +100\.0% +/m);
  expect(stdout).toMatch(/not measured: the model does not know/);
  const html = readFileSync(page, "utf8");
  for (const topic of ["consistency", "effects", "firing"]) expect(html).toContain(`<article id="${topic}">`);
});

test("topics are chosen, pairs are one's own, and the JSON holds the numbers behind the figures", async () => {
  const { folder, commandLine } = await prepared();
  const pairs = join(folder, "pairs.jsonl");
  writeFileSync(pairs, '{"original":"He said no.","edited":"He said no.","edit":"none at all"}\n');
  const { exitCode, stdout } = await runCli(
    ...commandLine,
    ...["--topics", "firing", "counterfactuals", "--pairs", pairs, "--json"],
  );
  expect(exitCode).toBe(0);
  const { title, facts, sections } = JSON.parse(stdout);
  expect(title).toMatch(/^Audit of /);
  expect(facts).toMatchObject({ model: "tiny-gpt2", "hook point": HOOK, latents: "10" });
  expect(sections.map(({ topic }: AuditSection) => topic)).toEqual(["counterfactuals", "firing"]);
  const [counterfactuals, firing] = sections as [AuditSection, AuditSection];
  expect(counterfactuals.figures.find(({ name }) => name === "latents kept, none at all")).toMatchObject({
    value: 1,
    sample: { count: 4 },
  });
  expect((firing.data as { firings: number[] }).firings).toHaveLength(10);
});

const stories = fileURLToPath(new URL("../../../shared/data/models/stories260K", import.meta.url));

test.runIf(existsSync(stories))(
  "a model of llama2.c, whose vocabulary is 512 tokens, is audited and benched as well",
  async () => {
    const folder = await temporaryFolder();
    const sae = await writeSae(folder, { hookName: "blocks.2.hook_resid_post", contextSize: 64 }, 64);
    writeFileSync(join(folder, "stories.txt"), story.repeat(30));
    copyFileSync(join(stories, "stories260K.bin"), join(folder, "stories260K.bin"));
    copyFileSync(join(stories, "tok512.bin"), join(folder, "tokenizer.bin"));
    const common = ["--sae", sae, "--model", join(folder, "stories260K.bin"), "--corpus", join(folder, "stories.txt")];
    const more = [...common, "--tokens", "300", "--threads", "1"];
    const { exitCode, stdout } = await runCli("audit", ...more, "--json");
    expect(exitCode).toBe(0);
    const { sections } = JSON.parse(stdout) as { sections: AuditSection[] };
    expect(sections).toHaveLength(7);
    expect(sections.filter(({ notMeasured }) => notMeasured !== undefined).map(({ topic }) => topic)).toEqual([
      "absorption",
    ]);
    const bench = await runCli(
      "bench-sae",
      ...more,
      "--evals",
      "core",
      "absorption",
      "--output",
      join(folder, "bench"),
    );
    expect(bench.stdout).toMatch(/^core: /m);
    expect(bench.stdout).toMatch(/not evaluated: the vocabulary has too few words/);
  },
);

test("what cannot be audited is refused before anything is written", async () => {
  const { folder, commandLine } = await prepared();
  for (const [more, message] of [
    [["--pairs", join(folder, "none.jsonl")], "none.jsonl does not exist"],
    [["--topics", "beauty"], "Allowed choices are consistency, counterfactuals"],
    [["--html", join(folder, "nowhere", "audit.html")], "cannot write"],
    [["--hook", "blocks.1.hook_resid_post"], 'the SAE was trained on hook point "blocks.2.hook_resid_post"'],
  ] as const) {
    const { exitCode, stdout, stderr } = await runCli(...commandLine, ...more);
    expect(stderr).toContain(message);
    expect(stdout).toBe("");
    expect(exitCode).toBe(1);
  }
  expect(existsSync(join(folder, "nowhere"))).toBe(false);
});
