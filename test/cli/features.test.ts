import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { readdir } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setImmediate as otherWork } from "node:timers/promises";
import { afterAll, beforeAll, expect, test } from "vitest";
import { Device } from "../../lib/engine/device.js";
import { Sae } from "../../lib/sae/sae.js";
import { HOOK, modelDirectory } from "../analysis/tinyModel.js";
import { testDevice } from "../testDevice.js";
import { runCli, startCli } from "./runCli.js";

let folder: string;
let corpus: string;
let onModel: string[];

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "cli-features-"));
  corpus = join(folder, "text.txt");
  writeFileSync(
    corpus,
    "The old man said that he would go home. She was very happy, and he looked at her. ".repeat(60),
  );
  const device = await Device.open(testDevice, { threads: 1 });
  const metadata = { modelName: "tiny-gpt2", hookName: HOOK, contextSize: 32, prependBos: true };
  const config = { architecture: "topk" as const, dIn: 192, dSae: 64, k: 8, applyBDecToInput: true };
  using sae = Sae.create(config, device, 0, { metadata });
  await sae.save(join(folder, "sae"));
  using other = Sae.create(config, device, 1, { metadata });
  await other.save(join(folder, "other"));
  await device.close();
  onModel = ["--sae", join(folder, "sae"), "--model", modelDirectory];
});

afterAll(() => rmSync(folder, { recursive: true }));

test("a store is written, shown like the pass itself, and read without model, SAE and corpus", async () => {
  const pass = [...onModel, "--corpus", corpus, "--tokens", "640", "--latents", "3", "17"];
  const printed = await runCli("features", ...pass);
  expect(printed).toMatchObject({ exitCode: 0 });
  const store = join(folder, "store");
  const html = join(folder, "page.html");
  const written = await runCli("features", ...pass, "--store", store, "--html", html);
  expect(written.exitCode, written.stderr).toBe(0);
  expect(written.stdout).toBe(`${printed.stdout}\nwrote ${html}\n\nwrote the features of all latents to ${store}\n`);
  expect(readFileSync(html, "utf8")).toContain("Latent 17");
  const read = await runCli("features", "--from", store, "--latents", "3", "17");
  expect(read).toMatchObject({ exitCode: 0, stdout: printed.stdout });

  const again = await runCli("features", ...pass, "--store", store);
  expect(again).toMatchObject({ exitCode: 1, stderr: expect.stringMatching(/holds features already/) });
  const absent = await runCli("features", "--from", store, "--latents", "64");
  expect(absent.stderr).toBe("monosem: --latents: there is no latent 64; the SAE has 64, numbered 0 to 63\n");
  const nowhere = await runCli("features", "--from", join(folder, "nowhere"));
  expect(nowhere).toMatchObject({
    exitCode: 1,
    stderr: expect.stringMatching(/^monosem: .*nowhere.* does not exist: expected a folder .*\n$/),
  });

  for (const [more, heading] of [
    [["--by", "quantile", "--from", store], "at most as strong"],
    [["--by", "logit", "--target", " she"], 'to the logit of the target " she"'],
    [[], "strongest activation on the text"],
  ] as const) {
    const prompt = await runCli("features", ...onModel, "--prompt", "The king said", "--top", "3", ...more);
    expect(prompt.exitCode, prompt.stderr).toBe(0);
    const [first, ...latents] = prompt.stdout.trimEnd().split("\n");
    expect(first).toContain(heading);
    expect(latents).toHaveLength(3);
    for (const line of latents) expect(line.replaceAll(/[[\]]/g, "")).toMatch(/latent \d+ .* The king said$/);
  }

  writeFileSync(
    join(folder, "labels.jsonl"),
    ["he", "she", "he", "she"].map((label) => JSON.stringify({ text: `then ${label} said`, label })).join("\n"),
  );
  writeFileSync(join(folder, "list.txt"), "He hit her.\n\nShe hit him.\n");
  const kinds = await runCli(
    ...["features", "--from", store, "--kinds", ...onModel, "--latents", "3", "17"],
    ...["--labels", join(folder, "labels.jsonl"), "--red-team", join(folder, "list.txt"), "--pattern", "he=he$"],
  );
  expect(kinds.exitCode, kinds.stderr).toBe(0);
  for (const kind of ["syntax", "meaning", "concept", "behaviour"]) {
    expect(kinds.stdout.match(new RegExp(`^  ${kind} `, "gm")), kind).toHaveLength(2);
    expect(kinds.stdout).toMatch(new RegExp(`^${kind}: `, "m"));
  }
  expect(kinds.stdout).toMatch(/^safety: 2 texts of .*list\.txt\n {2}latent \d+ +fires on \d+% of them/m);
  const other = ["--sae", join(folder, "other"), "--model", modelDirectory];
  const stranger = await runCli("features", "--from", store, "--kinds", ...other, "--latents", "3");
  expect(stranger).toMatchObject({ exitCode: 1, stderr: expect.stringContaining("the features of another SAE") });
  const bare = await runCli("features", "--from", store, "--kinds", "--latents", "3");
  expect(bare.exitCode, bare.stderr).toBe(0);
  expect(bare.stdout).not.toContain("meaning");
});

test("SIGTERM keeps what there is of a store, and --resume makes the same of it as if nothing had happened", async () => {
  const pass = ["features", ...onModel, "--corpus", corpus, "--tokens", "1200", "--latents", "5"];
  const whole = join(folder, "whole");
  expect(await runCli(...pass, "--store", whole)).toMatchObject({ exitCode: 0 });
  const interrupted = join(folder, "interrupted");
  const { process: child, result } = startCli(...pass, "--store", interrupted);
  // The first line of progress: the pass has begun.
  child.stderr!.once("data", () => child.kill("SIGTERM"));
  const { exitCode, stderr } = await result;
  // Where the machine was so fast that all was done before the signal came, there is nothing to resume.
  if (exitCode !== 0) {
    expect(exitCode).toBe(130);
    expect(stderr).toMatch(/monosem: gathering features was interrupted.*; the same command with --resume goes on/);
    expect(await readdir(interrupted)).toEqual(["unfinished.safetensors"]);
    const resumed = await runCli(...pass, "--store", interrupted, "--resume");
    expect(resumed.exitCode, resumed.stderr).toBe(0);
  }
  const file = "features.safetensors";
  expect(readFileSync(join(whole, file)).equals(readFileSync(join(interrupted, file)))).toBe(true);
});

test("SIGKILL costs a store no more than what came after it was saved last, and --resume makes the same of it", async () => {
  const pass = ["features", ...onModel, "--corpus", corpus, "--tokens", "1200", "--latents", "5"];
  const [whole, killed] = [join(folder, "unkilled"), join(folder, "killed")];
  expect(await runCli(...pass, "--store", whole)).toMatchObject({ exitCode: 0 });
  const { process: child, result } = startCli(...pass, "--store", killed, "--save-every", "0");
  // As soon as a state stands under its name.
  const unfinished = join(killed, "unfinished.safetensors");
  let ended = false;
  void result.then(() => {
    ended = true;
  });
  while (!existsSync(unfinished) && !ended) await otherWork();
  child.kill("SIGKILL");
  // Where the machine was so fast that all was done before, there is nothing to resume.
  if ((await result).exitCode === null) {
    const resumed = await runCli(...pass, "--store", killed, "--resume");
    expect(resumed.exitCode, resumed.stderr).toBe(0);
  }
  const file = "features.safetensors";
  expect(await readdir(killed)).toEqual([file]);
  expect(readFileSync(join(whole, file)).equals(readFileSync(join(killed, file)))).toBe(true);
});

test("what is missing is named, with what it is for", async () => {
  for (const [flags, message] of [
    [[], "required option '--corpus <glob...>' not specified"],
    [["--corpus", "x.txt"], "required option '--sae <dir>' not specified"],
    [["--resume"], "required option '--store <dir>' not specified: --resume continues it"],
    [["--save-every", "9"], "required option '--store <dir>' not specified: --save-every saves it"],
    [["--by", "logit"], "required option '--prompt <text>' not specified: --by belongs to it"],
    [["--store", "x", "--from", "y"], "option '--from <dir>' cannot be used with option '--store <dir>'"],
    [["--labels", "x"], "required option '--kinds' not specified: --labels belongs to it"],
    [["--prompt", "x", "--html", "y"], "--html does not go with --prompt: leave out one of the two"],
    [["--prompt", "x", "--html-prompts", "y"], "--html-prompts does not go with --prompt: leave out one of the two"],
    [["--prompt", "x", "--latents", "3"], "--latents does not go with --prompt: leave out one of the two"],
    [["--kinds", "--from", "x", "--html", "y"], "--html does not go with --kinds: leave out one of the two"],
    [["--kinds", "--from", "x", "--prompt", "y"], "--prompt does not go with --kinds: leave out one of the two"],
    [["--kinds", "--store", "x"], "--store does not go with --kinds: leave out one of the two"],
    [["--kinds", "--neuronpedia", "x"], "--neuronpedia does not go with --kinds: leave out one of the two"],
    [["--kinds"], "required option '--from <dir>' not specified: --kinds reads a store"],
  ] as const) {
    expect(await runCli("features", ...flags)).toMatchObject({ exitCode: 1, stderr: `monosem: ${message}\n` });
  }
  for (const [flags, message] of [
    [["--by", "quantile"], "required option '--from <dir>' not specified: quantiles are those of a store"],
    [["--by", "logit"], "required option '--target <token>' not specified: the token whose logit to rank by"],
    [["--prompt", ""], "--prompt is empty"],
    [["--target", " she"], "--target is what --by logit ranks by"],
    [["--by", "logit", "--target", "abracadabra"], '"abracadabra" is 6 tokens ("ab", '],
  ] as const) {
    const { exitCode, stderr } = await runCli("features", ...onModel, "--prompt", "The king", ...flags);
    expect(exitCode).toBe(1);
    expect(stderr).toContain(message);
  }
});
