import { readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { HOOK, modelDirectory } from "../analysis/tinyModel.js";
import { problems } from "../evaluation/saebench.js";
import { judge } from "../interpretation/judges.js";
import { startServer } from "../interpretation/mockServer.js";
import { type CliResult, runCli, startCli, temporaryFolder } from "./runCli.js";
import { writeCrosscoder, writeSae } from "./saeFiles.js";

const story =
  "One day the little girl went home. She was very happy. The old man said that he saw a dog and ran away. ";

async function prepared(): Promise<{ folder: string; sae: string; bench: (...more: string[]) => Promise<CliResult> }> {
  const folder = await temporaryFolder();
  const sae = await writeSae(folder, { modelName: "tiny-gpt2", hookName: HOOK, contextSize: 48 }, 192);
  writeFileSync(
    join(folder, "stories.jsonl"),
    Array.from({ length: 60 }, (_, i) => JSON.stringify({ text: `${i} ${story.slice(i)}${story}` })).join("\n"),
  );
  const people = ["One day the", "The little", "Then the", "A happy"].flatMap((start) =>
    ["went home", "said no", "saw a dog"].flatMap((end) =>
      ["girl", "boy"].map((label) => JSON.stringify({ text: `${start} ${label} ${end}`, label })),
    ),
  );
  writeFileSync(join(folder, "people.jsonl"), people.join("\n"));
  const bench = (...more: string[]): Promise<CliResult> =>
    runCli(
      "bench-sae",
      "--sae",
      sae,
      "--model",
      modelDirectory,
      "--output",
      join(folder, "bench"),
      "--threads",
      "1",
      ...more,
    );
  return { folder, sae, bench };
}

test("the files are SAEBench's, are kept when there, and made again only when asked for", async () => {
  const { folder, sae, bench } = await prepared();
  const server = await startServer(judge((right) => right));
  const commandLine = [
    ...["--evals", "core", "sparse-probing", "autointerp"],
    ...["--corpus", join(folder, "stories.jsonl"), "--data", join(folder, "people.jsonl"), "--k", "1", "2"],
    ...["--server", server.baseUrl, "--judge", "mock", "--latents", "3", "--cache", join(folder, "replies")],
  ];
  const first = await bench(...commandLine);
  expect(first.stderr).not.toContain("monosem:");
  expect(first.exitCode).toBe(0);
  const name = `${sae.replaceAll("/", "_")}_custom_sae_eval_results.json`;
  const results = { core: "core", sparse_probing: "sparse_probing", autointerp: "autointerp" };
  const times = Object.entries(results).map(([directory, schema]) => {
    const path = join(folder, "bench", directory, name);
    expect(readdirSync(join(folder, "bench", directory))).toEqual([name]);
    const result = JSON.parse(readFileSync(path, "utf8"));
    expect(problems(schema, result), schema).toBeNull();
    expect(result).toMatchObject({ sae_lens_release_id: sae, sae_cfg_dict: { architecture: "topk" } });
    return statSync(path).mtimeMs;
  });
  expect(first.stdout).toMatch(/^core: /m);
  expect(first.stdout).toMatch(/^sparse-probing: .*50% is chance/m);
  const paid = server.requests.length;
  expect(paid).toBeGreaterThan(0);

  const second = await bench(...commandLine);
  expect(second.stdout).toBe(first.stdout);
  expect(second.stderr.match(/^kept /gm)).toHaveLength(3);
  expect(server.requests).toHaveLength(paid);
  const after = Object.keys(results).map((directory) => statSync(join(folder, "bench", directory, name)).mtimeMs);
  expect(after).toEqual(times);

  const broken = join(folder, "bench", "core", name);
  const whole = readFileSync(broken);
  for (const [content, message] of [
    ["{", / is not JSON: .*: --force replaces it\n$/],
    ["null", /has results of other weights or settings: --force replaces them/],
  ] as const) {
    writeFileSync(broken, content);
    const refused = await bench("--evals", "core", "--corpus", join(folder, "stories.jsonl"));
    expect(refused.stderr).toMatch(message);
    expect(refused.exitCode).toBe(1);
  }
  writeFileSync(broken, whole);

  const other = await bench("--evals", "core", "--corpus", join(folder, "stories.jsonl"), "--tokens", "100");
  expect(other.exitCode).toBe(1);
  expect(other.stderr).toContain("has results of other weights or settings: --force replaces them");
  const forced = await bench(
    "--evals",
    "core",
    "--corpus",
    join(folder, "stories.jsonl"),
    "--tokens",
    "100",
    "--force",
  );
  expect(forced.stderr).toContain("wrote ");
});

test("a crosscoder is not evaluated by sparse probing, which does not keep the others from it", async () => {
  const { folder, bench } = await prepared();
  const crosscoder = await writeCrosscoder(join(folder, "cross"));
  const sparseProbing = ["--evals", "sparse-probing", "--data", join(folder, "people.jsonl")];
  const both = await bench(...sparseProbing, "--sae", crosscoder, join(folder, "sae"));
  expect(both.exitCode).toBe(0);
  expect(both.stdout).toMatch(/cross\/sae +not evaluated: sparse probing is .* this crosscoder reads 2$/m);
  expect(both.stdout).toMatch(/ 50% is chance.*%/s);
  const failing = await bench(
    "--evals",
    "core",
    "sparse-probing",
    "--corpus",
    join(folder, "stories.jsonl"),
    "--data",
    "none.jsonl",
  );
  expect(failing.exitCode).toBe(1);
  expect(failing.stderr).toContain("none.jsonl");
  expect(failing.stdout).toMatch(/^core: /m);
});

test("a model that cannot spell is said to be one, with no numbers, and is not asked again", async () => {
  const { folder, bench } = await prepared();
  const first = await bench("--evals", "absorption");
  expect(first.exitCode).toBe(0);
  expect(first.stdout).toMatch(
    /not evaluated: the model does not know its words' first letters well enough: probes find \d+ of 26/,
  );
  const [file] = readdirSync(join(folder, "bench", "absorption"));
  expect(file).toMatch(/_not_evaluated\.json$/);
  const { monosem } = JSON.parse(readFileSync(join(folder, "bench", "absorption", file!), "utf8"));
  expect(monosem).toMatchObject({ letters_needed: 20 });
  expect(monosem.probe_f1).toHaveLength(26);
  const second = await bench("--evals", "absorption");
  expect(second.stdout).toBe(first.stdout);
  expect(second.stderr).toMatch(/^kept /m);
});

test("what an evaluation needs is asked for before anything is loaded", async () => {
  for (const [commandLine, message] of [
    [["--evals", "core"], "core needs --corpus"],
    [["--evals", "autointerp", "--corpus", "x"], "autointerp needs --server and --judge"],
    [["--evals", "sparse-probing"], "sparse-probing needs --data"],
    [["--evals", "spelling"], "Allowed choices are core, sparse-probing, absorption, autointerp"],
  ] as const) {
    const { exitCode, stderr } = await runCli(
      "bench-sae",
      "--sae",
      "x",
      "--model",
      "y",
      "--output",
      "z",
      ...commandLine,
    );
    expect(stderr).toContain(message);
    expect(exitCode).toBe(1);
  }
});

test("an interrupted run leaves no result behind that is not whole", async () => {
  const { folder, sae } = await prepared();
  const output = join(folder, "stopped");
  const commandLine = [
    "bench-sae",
    "--sae",
    sae,
    "--model",
    modelDirectory,
    "--evals",
    "absorption",
    "--output",
    output,
  ];
  const { process: child, result } = startCli(...commandLine, "--threads", "1");
  child.stderr!.once("data", () => child.kill("SIGINT"));
  const { exitCode, stderr } = await result;
  expect(stderr).toContain("was aborted");
  expect(exitCode).toBe(130);
  expect(() => readdirSync(output)).toThrow("ENOENT");
});
