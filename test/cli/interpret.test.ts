import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, expect, test } from "vitest";
import { Device } from "../../lib/engine/device.js";
import { Sae } from "../../lib/sae/sae.js";
import { HOOK, modelDirectory } from "../analysis/tinyModel.js";
import { dataOf, judge, numbers } from "../interpretation/judges.js";
import { type MockAnswer, type MockRequest, type MockServer, says, startServer } from "../interpretation/mockServer.js";
import { testDevice } from "../testDevice.js";
import { type CliResult, runCli, startCli, temporaryFolder } from "./runCli.js";

const CANARY = "sk-canary-9876543210";
const VARIABLE = "MONOSEM_CLI_TEST_KEY";

afterEach(() => {
  delete process.env[VARIABLE];
});

async function writeFiles(folder: string): Promise<readonly string[]> {
  const device = await Device.open(testDevice, { threads: 1 });
  const config = { architecture: "topk" as const, dIn: 192, dSae: 64, k: 8, applyBDecToInput: true };
  const metadata = { hookName: HOOK, modelName: "tiny-gpt2", contextSize: 64, prependBos: true };
  using sae = Sae.create(config, device, 0, { metadata });
  await sae.save(join(folder, "sae"));
  await device.close();
  const nouns = ["man", "king", "girl", "bird", "house", "sea", "horse", "door", "boat", "tree", "night", "road"];
  const random = numbers(1);
  const noun = (): string => nouns[Math.floor(random() * nouns.length)]!;
  const sentence = (): string =>
    `The old ${noun()} said that he would go to the ${noun()}, and the ${noun()} was happy. `;
  const lines = Array.from({ length: 48 }, () =>
    JSON.stringify({ text: Array.from({ length: 8 }, sentence).join("") }),
  );
  writeFileSync(join(folder, "texts.jsonl"), lines.join("\n"));
  return ["--sae", join(folder, "sae"), "--model", modelDirectory, "--corpus", join(folder, "texts.jsonl")];
}

function interpret(
  folder: string,
  files: readonly string[],
  server: MockServer,
  ...more: string[]
): Promise<CliResult> {
  const judged = ["--server", server.baseUrl, "--judge", "mock", "--key-variable", VARIABLE];
  return runCli("interpret", ...files, ...judged, "--cache", join(folder, "replies"), ...more);
}

/** Explains by the most frequent strongly active token, and says yes to texts that hold it. */
function wordJudge(request: MockRequest): MockAnswer {
  const { values } = dataOf(request) as {
    values: { active?: [string, number][]; explanation?: string; text?: string }[];
  };
  if (request.body.response_format?.json_schema?.name !== "explanation") return judge((right) => right)(request);
  const tokens = values.flatMap(({ active = [] }) => active.filter(([, level]) => level > 5).map(([token]) => token));
  return says({ name: `the word ${tokens[0]}`, explanation: `\u001b[2J<b>${tokens[0]}</b>`, confidence: 0.5 });
}

test("latents are explained and scored, on the terminal, as JSON and as a page; a repeated run pays nothing", async () => {
  process.env[VARIABLE] = CANARY;
  const folder = await temporaryFolder();
  const files = await writeFiles(folder);
  const server = await startServer(wordJudge);
  const page = join(folder, "words.html");
  const options = ["--top", "3", "--scorers", "detection", "fuzzing", "simulation", "surprisal", "--tested", "6"];
  const first = await interpret(folder, files, server, ...options, "--html", page);
  expect(first).toMatchObject({ exitCode: 0 });
  expect(first.stdout).toMatch(/^detection \d\.\d\d \(3 latents\) {3}fuzzing \d\.\d\d/);
  expect(first.stdout.match(/^latent \d+ {2}the word /gm)).toHaveLength(3);
  expect(first.stdout).toContain("\\u{1b}[2J<b>");
  expect(first.stdout).toContain(`wrote ${page}`);
  expect(first.stderr).toContain("interpreting: 3/3 latents");
  const html = readFileSync(page, "utf8");
  expect(html).toContain("&lt;b&gt;");
  const paid = server.requests.length;
  expect(paid).toBeGreaterThan(10);
  for (const { headers } of server.requests) expect(headers.authorization).toBe(`Bearer ${CANARY}`);

  const second = await interpret(folder, files, server, ...options, "--json");
  expect(server.requests).toHaveLength(paid);
  const result = JSON.parse(second.stdout);
  expect(result.requests).toMatchObject({ answered: 0, cached: paid, usage: { inputTokens: 0, outputTokens: 0 } });
  expect(result).toMatchObject({ facts: { judge: "mock", "hook point": HOOK }, leftOut: [] });
  expect(result.latents).toHaveLength(3);
  for (const { latent, scores, explanation, examples } of result.latents) {
    expect(first.stdout).toContain(`latent ${latent} `);
    expect(Object.keys(scores)).toEqual(["detection", "fuzzing", "simulation", "surprisal"]);
    expect(explanation.confidence).toBe(0.5);
    expect(examples.length).toBeGreaterThan(0);
    expect(first.stdout).toContain(`detection   ${scores.detection.score.toFixed(2)} `);
  }

  const cached = readdirSync(join(folder, "replies"), { recursive: true, withFileTypes: true }).filter((e) =>
    e.isFile(),
  );
  expect(cached).toHaveLength(paid);
  const bytes = cached.map((file) => readFileSync(join(file.parentPath, file.name), "latin1"));
  for (const text of [...bytes, html, first.stdout, first.stderr, second.stdout, second.stderr]) {
    expect(text).not.toContain(CANARY);
  }
});

test("a cap is kept, and says which latents it left out", async () => {
  const folder = await temporaryFolder();
  const files = await writeFiles(folder);
  const usage = { prompt_tokens: 1200, completion_tokens: 50 };
  const server = await startServer((request) => {
    const { body } = judge((right) => right)(request);
    return { body: { ...(body as object), usage } };
  });
  const options = ["--top", "3", "--tested", "6", "--concurrency", "1", "--answer-tokens", "100"];
  const prices = ["--input-price", "1", "--output-price", "1"];
  const { exitCode, stdout } = await interpret(folder, files, server, ...options, ...prices, "--cost-cap", "0.012");
  expect(exitCode).toBe(0);
  expect(stdout).toMatch(/\nleft out, as the cap was reached: latents \d+(, \d+)*; 0\.0\d+ of 0\.012 are spent/);
  expect(Number(/cost (\d\.\d+)/.exec(stdout)![1])).toBeLessThanOrEqual(0.012);
});

test("without any explanation the run fails and says why, and the page is written", async () => {
  const folder = await temporaryFolder();
  const files = await writeFiles(folder);
  const page = join(folder, "words.html");
  const server = await startServer(() => says({ name: "a word" }));
  const options = ["--top", "3", "--tested", "6", "--html", page];
  const garbage = await interpret(folder, files, server, ...options);
  expect(garbage.exitCode).toBe(1);
  expect(garbage.stderr).toMatch(
    /\nmonosem: none of 3 latents was explained; latent \d+: the judge's reply was not as asked: explanation: must be text \(missing\)/,
  );
  expect(garbage.stdout).toContain(`wrote ${page}`);
  expect(readFileSync(page, "utf8")).toContain("must be text");

  const { length } = server.requests;
  const capped = await interpret(
    folder,
    files,
    server,
    ...options,
    "--token-cap",
    "2050",
    "--latents",
    "5",
    "9",
    "--json",
  );
  expect(server.requests).toHaveLength(length);
  expect(capped.exitCode).toBe(1);
  const [, tokens, asked] = /may cost up to (\d+) tokens \((\d+) of its text, 2048 of its answer\)/.exec(
    capped.stderr,
  )!;
  expect(Number(tokens)).toBe(Number(asked) + 2048);
  expect(JSON.parse(capped.stdout).leftOutBecause).toContain("0 of 2050 tokens are spent");
  const enough = await interpret(folder, files, server, ...options, "--token-cap", tokens!, "--latents", "5");
  expect(server.requests).toHaveLength(length + 1);
  expect(enough.stderr).toContain("was not as asked");
});

test("a run that Ctrl-C ended pays, when it is repeated, only for what was not answered", async () => {
  const folder = await temporaryFolder();
  const files = await writeFiles(folder);
  const answer = judge((right) => right);
  const answered: string[] = [];
  let stop: (() => void) | undefined;
  const server = await startServer((request) => {
    if (stop !== undefined && answered.length === 5) {
      stop();
      return { hangs: true };
    }
    answered.push(JSON.stringify(request.body));
    return answer(request);
  });
  const options = ["--latents", "1", "2", "3", "4", "5", "6", "--tested", "6", "--concurrency", "1"];
  const judged = ["--server", server.baseUrl, "--judge", "mock", "--cache", join(folder, "replies"), ...options];
  const first = startCli("interpret", ...files, ...judged);
  stop = () => first.process.kill("SIGINT");
  const { exitCode, stderr } = await first.result;
  expect(exitCode).toBe(130);
  expect(stderr).toMatch(/monosem: .*aborted\n$/);
  expect(answered).toHaveLength(5);
  stop = undefined;
  expect(await runCli("interpret", ...files, ...judged)).toMatchObject({ exitCode: 0 });
  expect(answered.length).toBeGreaterThan(5);
  expect(new Set(answered).size).toBe(answered.length);
});

test("a server without access, and options that do not fit, are one line", async () => {
  process.env[VARIABLE] = CANARY;
  const folder = await temporaryFolder();
  const files = await writeFiles(folder);
  const server = await startServer(() => ({ status: 401, body: { error: { message: `bad key ${CANARY}` } } }));
  const refused = await interpret(folder, files, server, "--latents", "1", "2");
  expect(refused.exitCode).toBe(1);
  expect(refused.stderr).toMatch(
    /\nmonosem: 127\.0\.0\.1:\d+ does not take requests at \/v1\/chat\/completions: HTTP 401: bad key \[key\] \(the key in MONOSEM_CLI_TEST_KEY\)\n$/,
  );
  expect(refused.stdout).toBe("");
  for (const [options, message] of [
    [["--cost-cap", "1"], /^monosem: a cap on the cost needs the prices/],
    [["--input-price", "1"], /^monosem: --input-price and --output-price belong together/],
    [["--scorers", "guessing"], /^monosem: .*expected detection, fuzzing, simulation, surprisal\.\n/],
    [["--latents", "64"], /monosem: there is no latent 64: they are numbered 0 to 63\n$/],
  ] as const) {
    const { exitCode, stderr } = await interpret(folder, files, server, ...options);
    expect(stderr).toMatch(message);
    expect(exitCode).toBe(1);
  }
  expect(server.requests.length).toBeLessThanOrEqual(2);
});
