import { existsSync, mkdirSync, readdirSync, readFileSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { hookForSae } from "../../lib/analysis/saeHook.js";
import { Device } from "../../lib/engine/device.js";
import { HookedTransformer } from "../../lib/models/hookedTransformer.js";
import { Sae } from "../../lib/sae/sae.js";
import { modelDirectory } from "../analysis/tinyModel.js";
import { runCli, startCli, temporaryFolder } from "./runCli.js";
import { dIn, dSae, writeActivations } from "./saeFiles.js";

interface Run {
  readonly folder: string;
  readonly config: string;
  readonly output: string;
}

/** A configuration file for a short run on 200 rows. */
async function prepareRun(change?: (data: Float32Array) => void): Promise<Run> {
  const folder = await temporaryFolder();
  const activations = await writeActivations(folder, 200, change);
  const [config, output] = [join(folder, "run.json"), join(folder, "run")];
  const json = {
    sae: { architecture: "topk", dIn, dSae, k: 3 },
    data: { activations, shuffle: true },
    training: { batchSize: 20, steps: 12, logEvery: 4 },
    device: "cpu",
    threads: 1,
    output,
  };
  writeFileSync(config, JSON.stringify(json));
  return { folder, config, output };
}

test("train writes an SAE folder, metrics and the configuration, with --set applied", async () => {
  const { config, output } = await prepareRun();
  const result = await runCli("train", config, "--set", "sae.k=2", "--set", "training.lr=1e-3", "--threads", "2");
  expect(result).toMatchObject({ exitCode: 0, stdout: expect.stringContaining(`wrote ${join(output, "sae")}`) });
  expect(result.stderr).toMatch(/training: 4\/12 steps {2}loss /);
  expect(readdirSync(join(output, "sae")).sort()).toEqual(["cfg.json", "sae_weights.safetensors"]);
  expect(JSON.parse(readFileSync(join(output, "sae", "cfg.json"), "utf8"))).toMatchObject({ k: 2, d_in: dIn });
  expect(JSON.parse(readFileSync(join(output, "config.json"), "utf8"))).toMatchObject({
    training: { lr: 1e-3 },
    device: "cpu", // no flag says otherwise
    threads: 2,
  });
  const lines = readFileSync(join(output, "metrics.jsonl"), "utf8").trim().split("\n");
  expect(lines.map((line) => JSON.parse(line).step)).toEqual([4, 8, 12]);
});

test("Ctrl-C leaves a checkpoint and exit code 130, and --resume ends where an uninterrupted run ends", async () => {
  const { config, output, folder } = await prepareRun();
  const steps = 60_000; // more than are done before the signal arrives
  const long = [
    "train",
    config,
    "--device",
    "auto",
    "--set",
    `training.steps=${steps}`,
    "--set",
    "training.logEvery=1",
  ];
  const { process: child, result } = startCli(...long);
  await new Promise((resolve) => child.stderr!.once("data", resolve));
  child.kill("SIGINT");
  const interrupted = await result;
  expect(interrupted.exitCode).toBe(130);
  expect(interrupted.stderr).toMatch(/monosem: training was aborted after step \d+; continue with: /);
  expect(interrupted.stderr).toContain(`monosem train ${config} --set training.steps=60000 --set`);
  expect(interrupted.stderr).toMatch(/ --set device=auto --resume\n$/);
  expect(existsSync(join(output, "sae"))).toBe(false);
  const checkpoints = readdirSync(join(output, "checkpoints"));
  expect(checkpoints).toHaveLength(1);

  const last = Number(checkpoints[0]!.replace("step-", "")) + 7;
  const set = ["--set", `training.steps=${last}`, "--set", "training.logEvery=1"];
  const resumed = await runCli("train", config, ...set, "--resume");
  expect(resumed).toMatchObject({ exitCode: 0 });
  const whole = join(folder, "whole");
  expect(await runCli("train", config, ...set, "--set", `output=${whole}`)).toMatchObject({ exitCode: 0 });
  for (const file of [join("sae", "sae_weights.safetensors"), "metrics.jsonl"]) {
    expect(readFileSync(join(output, file)).equals(readFileSync(join(whole, file))), file).toBe(true);
  }
});

test("--resume says of a run that is finished that it is, and of one that diverged what that means", async () => {
  const { config, output } = await prepareRun();
  const set = ["--set", "training.lr=1000"];
  const diverged = await runCli("train", config, ...set);
  expect(diverged).toMatchObject({
    exitCode: 0,
    stderr: expect.stringMatching(/^warning: the SAE leaves [\d.e+]+% of the variance unexplained, .*training\.lr/m),
  });
  const again = await runCli("train", config, ...set, "--resume");
  expect(again.stderr).toBe(`the run in ${output} is finished: all 12 steps have been taken\n`);
  expect(again).toMatchObject({ exitCode: 0, stdout: `wrote ${join(output, "sae")}\n` });
});

test("several SAEs: a folder each, --set reaches each by its place", async () => {
  const { config, output } = await prepareRun();
  const sae = { architecture: "topk", dIn, dSae, k: 3 };
  const list = JSON.stringify([
    { ...sae, name: "narrow" },
    { ...sae, name: "wide" },
  ]);
  const result = await runCli("train", config, "--set", `sae=${list}`, "--set", "sae.1.k=5");
  expect(result).toMatchObject({ exitCode: 0, stderr: expect.stringMatching(/^narrow: 4\/12 steps/m) });
  expect(result.stderr).toMatch(/^wide {2}: 4\/12 steps/m);
  for (const [name, k] of [
    ["narrow", 3],
    ["wide", 5],
  ] as const) {
    expect(JSON.parse(readFileSync(join(output, name, "sae", "cfg.json"), "utf8"))).toMatchObject({ k });
  }
});

test("a JumpReLU SAE whose L0 is far from its target is told what to change, one that is near is not", async () => {
  const { config, output } = await prepareRun();
  const jumprelu = { architecture: "jumprelu", dIn, dSae, l0Coefficient: 1e-6, initialThreshold: 0 };
  const far = await runCli("train", config, "--set", `sae=${JSON.stringify({ ...jumprelu, targetL0: 1 })}`);
  expect(far).toMatchObject({ exitCode: 0 });
  expect(far.stderr).toMatch(/^L0 is \d+\.\d, still far from targetL0 1: train for more steps, or with a larger .*$/m);
  const reached = Number(/L0 (\d+\.\d)/.exec(far.stdout)![1]);
  const set = ["--set", `sae=${JSON.stringify({ ...jumprelu, targetL0: reached })}`, "--set", `output=${output}-near`];
  const near = await runCli("train", config, ...set);
  expect(near).toMatchObject({ exitCode: 0 });
  expect(near.stderr).not.toContain("targetL0");
});

test("activations that are all the same have no explained variance, which is said once and is no NaN", async () => {
  const { config, output } = await prepareRun((data) => data.fill(1));
  const result = await runCli("train", config);
  expect(result).toMatchObject({ exitCode: 0, stdout: expect.stringMatching(/ {2}explained variance -$/m) });
  expect(result.stderr).toMatch(/^training: 4\/12 steps .* {2}explained variance -$/m);
  expect(result.stderr).toMatch(/^explained variance is undefined: all activations of the last batch are the same$/m);
  expect(result.stdout + result.stderr).not.toContain("NaN");
  expect(readFileSync(join(output, "metrics.jsonl"), "utf8")).toContain('"explainedVariance":null');
});

test("a setting that cannot have an effect in so short a run is named before it", async () => {
  const { config } = await prepareRun();
  const result = await runCli("train", config, "--set", "sae.auxK=2");
  expect(result).toMatchObject({
    exitCode: 0,
    stderr: expect.stringMatching(
      /^sae\.auxK has no effect: no latent can be dead before 10000000 tokens, and the run has 240; lower .*\ntraining/,
    ),
  });
});

test("a width that is not the model's is refused with the hook points and theirs, by the SAE's place in a list", async () => {
  const { folder, config } = await prepareRun();
  const text = join(folder, "text.txt");
  writeFileSync(text, "He said that he would go home.");
  const hook = (layer: number): string => `blocks.${layer}.hook_resid_post`;
  const wrong = async (sae: unknown): Promise<string> => {
    const data = JSON.stringify({ model: modelDirectory, hook: hook(1), corpus: [text] });
    const { stderr } = await runCli("train", config, "--set", `sae=${JSON.stringify(sae)}`, "--set", `data=${data}`);
    return stderr;
  };
  const sae = { architecture: "topk", dIn: 192, dSae, k: 3 };
  expect(await wrong({ ...sae, dIn: 100 })).toBe(
    `monosem: sae.dIn is 100, but hook point "${hook(1)}" of model "tiny-gpt2" is 192 wide\n`,
  );
  expect(await wrong([sae, { ...sae, hook: [hook(0), hook(2)] }])).toBe(
    `monosem: sae.1.dIn is 192, but hook points "${hook(0)}" and "${hook(2)}" of model "tiny-gpt2" are 192 + 192 = 384 wide\n`,
  );
});

test("a second run in the same folder is refused without --resume", async () => {
  const { config, output } = await prepareRun();
  expect(await runCli("train", config)).toMatchObject({ exitCode: 0 });
  const again = await runCli("train", config);
  expect(again).toMatchObject({ exitCode: 1, stderr: expect.stringMatching(/^monosem: .*not empty.*\n$/) });
  expect(again.stderr).toContain(output);
});

test("a folder that holds no run is not resumed, and one without a checkpoint is begun", async () => {
  const { config, folder, output } = await prepareRun();
  const foreign = join(folder, "foreign");
  mkdirSync(foreign);
  writeFileSync(join(foreign, "notes.txt"), "");
  const refused = await runCli("train", config, "--resume", "--set", `output=${foreign}`);
  expect(refused).toMatchObject({ exitCode: 1, stderr: expect.stringContaining("holds no run") });
  expect(readdirSync(foreign)).toEqual(["notes.txt"]);
  const begun = await runCli("train", config, "--resume");
  expect(begun).toMatchObject({ exitCode: 0, stderr: expect.stringContaining("begins with its first step") });
  expect(JSON.parse(readFileSync(join(output, "config.json"), "utf8"))).toMatchObject({ precision: "float32" });
});

test("mistakes in the configuration are named, one line, exit code 1", async () => {
  const { config, folder, output } = await prepareRun();
  const broken = join(folder, "broken.json");
  writeFileSync(broken, "{");
  for (const [commandLine, message] of [
    [[join(folder, "absent.json")], /there is no configuration file .*absent\.json/],
    [[folder], /it is a folder, expected a file/],
    [[broken], /broken\.json is not JSON/],
    [[config, "--set", "sae.kk=3"], /configuration .*run\.json: sae\.kk: unknown key; did you mean "k"\?/],
    [[config, "--set", "sae.kk=3", "--set", "training.lr=-1"], /sae\.kk: unknown key.*; training\.lr: .*-1/],
    [[config, "--set", "training.lr"], /"training\.lr" has no "="/],
    [[config, "--set", "training.lr=fast"], /training\.lr: .*fast/],
    [[config, "--set", "data.activations=/none.safetensors"], /none\.safetensors/],
    [[config, "--set", "data.tensor=other"], /other/],
    [[config, "--set", "sae.dIn=7"], /7.*6/],
  ] as const) {
    const { exitCode, stderr } = await runCli("train", ...commandLine);
    expect(stderr).toMatch(/^monosem: .*\n$/);
    expect(stderr).toMatch(message);
    expect(exitCode).toBe(1);
  }
  expect(existsSync(join(output, "sae"))).toBe(false);
});

test("a truncated file and activations that are not numbers end the run with an error, not with an SAE", async () => {
  const nan = await prepareRun((data) => data.fill(Number.NaN, 0, 4));
  const result = await runCli("train", nan.config);
  const message =
    /monosem: training stopped being finite at step \d+: row 0 \(.*\) of .*activations\.safetensors holds NaN/;
  expect(result).toMatchObject({ exitCode: 1, stderr: expect.stringMatching(message) });
  expect(existsSync(join(nan.output, "sae"))).toBe(false);
  const measured = [
    "--set",
    "sae.normalizeActivations=expected-average-only-in",
    "--set",
    `output=${nan.output}-scaled`,
  ];
  const atStart = await runCli("train", nan.config, ...measured);
  expect(atStart).toMatchObject({
    exitCode: 1,
    stderr: expect.stringMatching(/monosem: row 0 .*holds NaN or infinity\n$/),
  });
  const skipping = await runCli("train", nan.config, ...measured, "--set", "training.onNonFinite=skip");
  expect(skipping.stderr).not.toMatch(/monosem:/);
  expect(skipping).toMatchObject({ exitCode: 0, stdout: expect.stringContaining("skipped 1") });
  const hopeless = await prepareRun((data) => data.fill(Number.NaN));
  const gaveUp = await runCli("train", hopeless.config, "--set", "training.onNonFinite=skip");
  expect(gaveUp).toMatchObject({
    exitCode: 1,
    stderr: expect.stringMatching(
      /monosem: .* at step 6: row \d+ .*activations\.safetensors holds NaN or infinity; .*"skip" gave up after 6 bad/,
    ),
  });
  truncateSync(join(nan.folder, "activations.safetensors"), 1000);
  const truncated = await runCli("train", nan.config, "--set", `output=${join(nan.folder, "other")}`);
  expect(truncated).toMatchObject({
    exitCode: 1,
    stderr: expect.stringMatching(/^monosem: .*activations\.safetensors/),
  });
});

test("train on a model's hook point, then features on the model; another hook point or model is refused", async () => {
  const { folder, config, output } = await prepareRun();
  const text = join(folder, "text.txt");
  writeFileSync(text, "The old man said that he would go home. She was very happy, and he looked at her. ".repeat(40));
  const data = {
    model: modelDirectory,
    hook: "blocks.1.hook_resid_post",
    corpus: [text],
    contextSize: 32,
    bufferTokens: 512,
  };
  const set = { data, "sae.dIn": 192, "sae.dSae": 64, "sae.k": 8, "training.batchSize": 128 };
  const overrides = Object.entries(set).flatMap(([key, value]) => ["--set", `${key}=${JSON.stringify(value)}`]);
  expect(await runCli("train", config, ...overrides)).toMatchObject({ exitCode: 0 });

  const sae = join(output, "sae");
  const onModel = ["--sae", sae, "--model", modelDirectory, "--corpus", text];
  const html = join(folder, "features.html");
  const features = await runCli("features", ...onModel, "--top", "3", "--html", html, "--tokens", "300");
  expect(features).toMatchObject({ exitCode: 0 });
  expect(features.stdout.match(/^latent \d+ {2}fires on [\d.]+% of tokens$/gm)!.length).toBeLessThanOrEqual(3);
  expect(readFileSync(html, "utf8")).toContain("blocks.1.hook_resid_post");

  const chosen = await runCli("features", ...onModel, "--tokens", "300", "--latents", "3", "--latents", "1");
  expect([...chosen.stdout.matchAll(/^latent (\d+) /gm)].map(([, latent]) => latent)).toEqual(["3", "1"]);
  const absent = await runCli("features", ...onModel, "--latents", "64");
  expect(absent).toMatchObject({
    exitCode: 1,
    stderr: "monosem: --latents: there is no latent 64; the SAE has 64, numbered 0 to 63\n",
  });

  const elsewhere = await runCli("features", ...onModel, "--hook", "blocks.0.hook_resid_post");
  expect(elsewhere).toMatchObject({
    exitCode: 1,
    stderr: expect.stringMatching(/^monosem: .*"blocks\.1\.hook_resid_post".*"blocks\.0\.hook_resid_post".*\n$/),
  });
  const cfg = JSON.parse(readFileSync(join(sae, "cfg.json"), "utf8"));
  cfg.metadata.model_name = "gpt2";
  writeFileSync(join(sae, "cfg.json"), JSON.stringify(cfg));
  const stranger = await runCli("features", ...onModel);
  expect(stranger).toMatchObject({
    exitCode: 1,
    stderr: expect.stringMatching(/^monosem: .*"gpt2".*"tiny-gpt2".*\n$/),
  });
});

test("an SAE remembers how its model and text were made; commands load the model so, others are refused", async () => {
  const { folder, config, output } = await prepareRun();
  const text = join(folder, "text.txt");
  writeFileSync(text, "The old man said that he would go home. She was very happy, and he looked at her. ".repeat(40));
  const data = {
    model: modelDirectory,
    processing: ["foldLn", "centerWritingWeights"],
    tokenizer: modelDirectory,
    hook: "blocks.1.hook_resid_post",
    corpus: [text],
    contextSize: 32,
    bufferTokens: 512,
  };
  const set = { data, "sae.dIn": 192, "sae.dSae": 64, "sae.k": 8, "training.batchSize": 128 };
  const overrides = Object.entries(set).flatMap(([key, value]) => ["--set", `${key}=${JSON.stringify(value)}`]);
  expect(await runCli("train", config, ...overrides)).toMatchObject({ exitCode: 0 });
  const sae = join(output, "sae");
  const { metadata } = JSON.parse(readFileSync(join(sae, "cfg.json"), "utf8"));
  expect(metadata).toMatchObject({
    model_name: "tiny-gpt2",
    hook_name: "blocks.1.hook_resid_post",
    context_size: 32,
    prepend_bos: true,
    exclude_special_tokens: true,
    model_from_pretrained_kwargs: {
      fold_ln: true,
      center_writing_weights: true,
      center_unembed: false,
      fold_value_biases: false,
    },
  });
  const onModel = ["--sae", sae, "--model", modelDirectory, "--corpus", text];
  expect(await runCli("eval", ...onModel, "--tokens", "300")).toMatchObject({ exitCode: 0 });

  const device = await Device.open("cpu", { threads: 1 });
  try {
    using loaded = await Sae.load(sae, device);
    using asItIs = await HookedTransformer.load(modelDirectory, device);
    expect(() => hookForSae(asItIs, loaded)).toThrow(
      /centerWritingWeights true, but "tiny-gpt2" was loaded with false/,
    );
    using processed = await HookedTransformer.load(modelDirectory, device, { centerWritingWeights: true });
    expect(hookForSae(processed, loaded)).toBe("blocks.1.hook_resid_post");
  } finally {
    await device.close();
  }
  const wrong = await runCli("train", config, ...overrides, "--set", 'data.processing=["foldln"]', "--set", "output=x");
  expect(wrong.stderr).toMatch(/data\.processing\.0: must be .*"foldLn", "centerWritingWeights".*\(found "foldln"\)/);
});
