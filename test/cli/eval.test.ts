import { readFileSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { Device } from "../../lib/engine/device.js";
import { writeSafetensors } from "../../lib/formats/safetensors.js";
import { HookedTransformer } from "../../lib/models/hookedTransformer.js";
import type { SaeConfig } from "../../lib/sae/config.js";
import { Sae } from "../../lib/sae/sae.js";
import { HOOK, modelDirectory } from "../analysis/tinyModel.js";
import { testDevice } from "../testDevice.js";
import { runCli, runCliUnread, runCliWithAbsTopk, temporaryFolder } from "./runCli.js";
import { dIn, dSae, numbers, writeAbsTopkSae, writeActivations, writeSae } from "./saeFiles.js";

const story = "The old man said that he would go home. She was very happy, and he looked at her. ";

/** SAEs of the tiny model that are not trained, but reconstruct a little better than the mean activation of the story. */
async function writeSaes(
  saes: readonly { readonly path: string; readonly config: object; readonly seed: number; readonly hookName: string }[],
): Promise<void> {
  const device = await Device.open(testDevice, { threads: 1 });
  const model = await HookedTransformer.load(modelDirectory, device);
  // As `eval` cuts it below, BOS first.
  const ids = model.tokenizer.encode(story.repeat(20));
  const texts = Array.from({ length: 8 }, (_, i) => [model.config.bosTokenId!, ...ids.slice(31 * i, 31 * (i + 1))]);
  const rows = Array.from({ length: 8 * 32 }, (_, row) => row).filter((row) => row % 32 > 0);
  for (const { path, config, seed, hookName } of saes) {
    using x = await model.activations(texts, hookName);
    const activations = await x.readFloat32();
    const mean = Float32Array.from({ length: 192 }, (_, column) =>
      rows.reduce((sum, row) => sum + activations[row * 192 + column]! / rows.length, 0),
    );
    const metadata = { hookName, modelName: "tiny-gpt2" };
    const complete = { dIn: 192, dSae: 64, applyBDecToInput: true, ...config } as SaeConfig;
    using sae = Sae.create(complete, device, seed, { metadata, decoderNorm: 0.3 });
    using bias = device.tensor(mean, [192]);
    const { decoderBias } = sae.parameters;
    device.kernels.add(decoderBias, bias, { out: decoderBias });
    await sae.save(path);
  }
  model.dispose();
  await device.close();
}

/** With 2, 4, ... latents active, in folders sweep/k2/sae, ... */
async function writeSweep(folder: string, ks: readonly number[]): Promise<void> {
  await writeSaes(
    ks.map((k) => ({
      path: join(folder, `sweep/k${k}/sae`),
      config: { architecture: "topk", k },
      seed: k,
      hookName: HOOK,
    })),
  );
}

function writeText(folder: string): string {
  const text = join(folder, "text.txt");
  writeFileSync(text, story.repeat(20));
  return text;
}

test("an SAE is evaluated on stored activations, as a table or as SAEBench's JSON", async () => {
  const folder = await temporaryFolder();
  const [sae, activations] = [await writeSae(folder), await writeActivations(folder, 100)];
  const table = await runCli("eval", "--sae", sae, "--activations", activations);
  expect(table).toMatchObject({ exitCode: 0 });
  expect(table.stdout).toContain(`${sae}: topk, ${dSae} latents, on 100 tokens\n\nreconstruction\n`);
  expect(table.stdout).toMatch(/^ {2}explained variance +-?[\d.]+% {2}/m);
  expect(table.stdout).toMatch(/^ {2}L0 +[\d.]+ {2}latents active on a token$/m);
  expect(table.stdout).not.toContain("in the model");
  expect(table.stderr).toContain("100/100 rows");

  const json = await runCli("eval", "--sae", sae, "--activations", activations, "--json");
  expect(json.stdout.trimEnd().split("\n")).toHaveLength(1);
  const result = JSON.parse(json.stdout);
  expect(result).toMatchObject({ eval_type_id: "core", sae_lens_release_id: sae, sae_cfg_dict: { d_in: dIn } });
  expect(result.eval_result_details).toHaveLength(dSae);
  expect(Object.keys(result.eval_result_metrics)).not.toContain("model_performance_preservation");
  expect(result.monosem.l0).toBeCloseTo(result.eval_result_metrics.sparsity.l0, 12);
  expect(result.monosem.fvu).toBeCloseTo(1 - result.monosem.explainedVariance, 12);
});

test("in the model, several SAEs are compared, those marked that no other one beats", async () => {
  const folder = await temporaryFolder();
  await writeSweep(folder, [2, 4, 8]);
  const onModel = ["--model", modelDirectory, "--corpus", writeText(folder), "--tokens", "300", "--context-size", "32"];
  const pattern = ["--sae", join(folder, "sweep/*/sae")];
  const [html, svg] = [join(folder, "sweep.html"), join(folder, "sweep.svg")];
  const sweep = await runCli("eval", ...pattern, ...onModel, "--html", html, "--svg", svg);
  expect(sweep).toMatchObject({ exitCode: 0 });
  expect(sweep.stdout).toMatch(/^SAE +architecture +latents +L0 +loss recovered +explained variance\n/);
  expect([...sweep.stdout.matchAll(/^k(\d) +topk +64 +(\d)\.0 /gm)].map(([, k, l0]) => [k, l0])).toEqual([
    ["2", "2"],
    ["4", "4"],
    ["8", "8"],
  ]);
  expect(sweep.stdout).toMatch(/^k2 .*%\s\*.*%\s\*$/m);
  expect(sweep.stderr).toMatch(/evaluating 3 SAEs: (\d+)\/\1 tokens/);
  expect(readFileSync(html, "utf8")).toContain("<h1>3 sparse autoencoders</h1>");
  expect(readFileSync(svg, "utf8")).toMatch(/^<svg /);

  const folders = [2, 4].flatMap((k) => ["--sae", join(folder, `sweep/k${k}/sae`)]);
  const json = await runCli("eval", ...folders, ...onModel, "--json");
  const results = json.stdout
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line));
  expect(results.map((result) => result.sae_lens_release_id)).toEqual(["k2", "k4"]);
  const alone = await runCli("eval", "--sae", join(folder, "sweep/k4/sae"), ...onModel, "--json");
  const { monosem, eval_config: config, eval_result_metrics: metrics } = JSON.parse(alone.stdout);
  expect(results[1].monosem).toEqual(monosem);
  expect(config).toMatchObject({ model_name: "tiny-gpt2", context_size: 32, compute_kl: true });
  expect(metrics.model_performance_preservation.ce_loss_score).toBe(monosem.lossRecovered);
  const table = await runCli("eval", "--sae", join(folder, "sweep/k4/sae"), ...onModel);
  expect(table.stdout).toContain(`loss recovered ${`${(100 * monosem.lossRecovered).toFixed(2)}%`.padStart(13)}`);
});

test("a transcoder is evaluated on the tensor that it reconstructs", async () => {
  const folder = await temporaryFolder();
  const device = await Device.open(testDevice, { threads: 1 });
  const config = { architecture: "relu", dIn, dSae, transcoder: true, dOut: 4, applyBDecToInput: false } as const;
  using sae = Sae.create(config, device, 1);
  await sae.save(join(folder, "sae"));
  await device.close();
  const activations = join(folder, "activations.safetensors");
  await writeSafetensors(activations, {
    x: { shape: [50, dIn], data: numbers(50 * dIn) },
    y: { shape: [50, 4], data: numbers(200, 7) },
  });
  const onBoth = ["--sae", join(folder, "sae"), "--activations", activations, "--tensor", "x"];
  const result = await runCli("eval", ...onBoth, "--target-tensor", "y", "--json");
  expect(result).toMatchObject({ exitCode: 0 });
  expect(JSON.parse(result.stdout).eval_result_details[0]).toMatchObject({ encoder_decoder_cosine_sim: -1 });
  const without = await runCli("eval", ...onBoth);
  expect(without).toMatchObject({
    exitCode: 1,
    stderr: expect.stringMatching(/needs 6 that it reads and 4 that it writes/),
  });
});

test("SAEs at different hook points have fronts of their own, and the architectures that they were trained as", async () => {
  const folder = await temporaryFolder();
  await writeSaes(
    [1, 2].map((layer) => ({
      path: join(folder, `layer${layer}/sae`),
      config: { architecture: "batchtopk", k: 4 },
      seed: layer,
      hookName: `blocks.${layer}.hook_resid_post`,
    })),
  );
  const onModel = ["--model", modelDirectory, "--corpus", writeText(folder), "--tokens", "100", "--context-size", "32"];
  const svg = join(folder, "sweep.svg");
  const saes = ["--sae", join(folder, "*/sae")];
  const { stdout } = await runCli("eval", ...saes, ...onModel, "--svg", svg);
  expect(stdout).toMatch(/^layer1 +blocks\.1\.hook_resid_post +batchtopk .*%\s\*.*%\s\*$/m);
  expect(stdout).toMatch(/^layer2 +blocks\.2\.hook_resid_post +batchtopk .*%\s\*.*%\s\*$/m);
  expect(readFileSync(svg, "utf8")).toContain(">batchtopk, blocks.2.hook_resid_post</text>");
  const json = await runCli("eval", "--sae", join(folder, "layer1/sae"), ...onModel, "--json");
  expect(JSON.parse(json.stdout)).toMatchObject({
    sae_cfg_dict: { architecture: "jumprelu" },
    monosem: { architecture: "batchtopk", hooks: { input: ["blocks.1.hook_resid_post"] } },
  });
  const info = await runCli("info", join(folder, "layer1/sae"));
  expect(info.stdout).toMatch(/^architecture +jumprelu\ntrainedAs +batchtopk$/m);
  const features = await runCli("features", "--sae", join(folder, "layer1/sae"), ...onModel, "--html", `${svg}.html`);
  expect(features).toMatchObject({ exitCode: 0 });
  expect(readFileSync(`${svg}.html`, "utf8")).toContain("batchtopk (saved as jumprelu)");
});

test("a crosscoder is told by its hooks: explained variance in eval, decoder norms in features", async () => {
  const folder = await temporaryFolder();
  const hookNames = ["blocks.1.hook_resid_post", "blocks.2.hook_resid_post"];
  const device = await Device.open(testDevice, { threads: 1 });
  const shape = { dIn: 384, dSae: 64, hookWidths: [192, 192], applyBDecToInput: true };
  using sae = Sae.create({ architecture: "topk", k: 4, ...shape }, device, 1, { metadata: { hookNames } });
  await sae.save(join(folder, "sae"));
  await device.close();
  const onModel = ["--model", modelDirectory, "--corpus", writeText(folder), "--tokens", "200", "--context-size", "32"];
  const crosscoder = ["--sae", join(folder, "sae"), ...onModel];
  const evaluated = await runCli("eval", ...crosscoder, "--hook", ...hookNames);
  expect(evaluated.stderr).toMatch(/^averaging activations: (\d+) of at most \d+ tokens\n.*: \1\/\1 tokens$/m);
  for (const hook of hookNames) {
    expect(evaluated.stdout).toMatch(new RegExp(`^  of one hook +-?[\\d.]+%  ${hook}$`, "m"));
  }
  const features = await runCli("features", ...crosscoder, "--latents", "3");
  expect(features.stdout).toMatch(
    /^latent 3 .*\n {2}decoder norm [\d.]+ at blocks\.1.*\n {2}decoder norm [\d.]+ at blocks\.2/m,
  );
  const one = await runCli("eval", ...crosscoder, "--hook", hookNames[1]!);
  expect(one).toMatchObject({
    exitCode: 1,
    stderr: expect.stringMatching(/trained on hook points .* its folder names them/),
  });

  const activations = join(folder, "two.safetensors");
  await writeSafetensors(activations, {
    a: { shape: [40, 192], data: numbers(40 * 192) },
    b: { shape: [40, 192], data: numbers(40 * 192, 5) },
  });
  const stored = await runCli("eval", "--sae", join(folder, "sae"), "--activations", activations, "--tensor", "a", "b");
  expect(stored.stdout).toMatch(/^ {2}of one hook +-?[\d.]+% {2}a\n {2}of one hook +-?[\d.]+% {2}b$/m);
});

test("of several SAEs those that do not fit are left out by name; one that is alone, or none that fits, is an error", async () => {
  const folder = await temporaryFolder();
  await writeSweep(folder, [2]);
  const onModel = ["--model", modelDirectory, "--corpus", writeText(folder), "--tokens", "60", "--context-size", "32"];
  const good = join(folder, "sweep/k2/sae");
  for (const [metadata, message] of [
    [{}, "does not say which hook point it was trained on: name it (on the command line with --hook)"],
    [{ hookName: "blocks.9.hook_resid_post" }, "no hook point"],
    [{ hookName: "blocks.1.mlp.hook_post" }, "is 768 wide"],
    [{ hookName: HOOK, modelName: "gpt2" }, 'trained on model "gpt2"'],
  ] as const) {
    const bad = await writeSae(folder, metadata, 192);
    const alone = await runCli("eval", "--sae", bad, ...onModel);
    expect(alone).toMatchObject({ exitCode: 1, stdout: "" });
    expect(alone.stderr).toMatch(/^monosem: [^\n]*\n$/);
    expect(alone.stderr).toContain(`${bad}: `);
    expect(alone.stderr).toContain(message);
  }
  const bad = await writeSae(folder, {}, 192);
  const both = await runCli("eval", "--sae", good, bad, ...onModel);
  expect(both).toMatchObject({ exitCode: 0, stdout: expect.stringContaining(`${good}: topk, 64 latents`) });
  expect(both.stderr).toMatch(/^left out [^\n]*: the SAE does not say which hook point[^\n]*\n/);
  expect(both.stderr).toContain(`left out ${bad}: `);
  const other = await writeSae(join(folder, "other"), {}, 192);
  const none = await runCli("eval", "--sae", bad, other, ...onModel);
  expect(none).toMatchObject({ exitCode: 1, stdout: "" });
  expect(none.stderr).toMatch(/^left out .*\nleft out .*\nmonosem: none of the 2 SAEs can be evaluated on this/);

  // what cannot even be loaded
  const [cut, missing] = [await writeSae(join(folder, "cut"), { hookName: HOOK }, 192), join(folder, "nowhere")];
  truncateSync(join(cut, "sae_weights.safetensors"), 300);
  const readable = await runCli("eval", "--sae", cut, good, missing, ...onModel);
  expect(readable).toMatchObject({ exitCode: 0, stdout: expect.stringContaining(`${good}: topk, 64 latents`) });
  expect(readable.stderr).toContain(
    `left out ${cut}: ${join(cut, "sae_weights.safetensors")} is not a valid safetensors file`,
  );
  expect(readable.stderr).toContain(`left out ${missing}: the folder ${missing} does not exist`);
  const unreadable = await runCli("eval", "--sae", cut, missing, ...onModel);
  expect(unreadable).toMatchObject({ exitCode: 1, stdout: "" });
  expect(unreadable.stderr).toMatch(
    /^left out .*\nleft out .*\nmonosem: none of the 2 SAEs can be loaded, see above\n$/,
  );

  const activations = ["--activations", await writeActivations(folder, 30)];
  const narrow = await writeSae(folder);
  const stored = await runCli("eval", "--sae", narrow, good, ...activations);
  expect(stored).toMatchObject({ exitCode: 0, stdout: expect.stringContaining(`${narrow}: topk, ${dSae} latents`) });
  expect(stored.stderr).toContain(
    `left out ${good}: the activations are 6 wide, but the SAE was made for 192: they are of another model or hook\n`,
  );
});

test("contexts that the model cannot read are refused", async () => {
  const folder = await temporaryFolder();
  const sae = await writeSae(folder, { hookName: HOOK, contextSize: 100_000 }, 192);
  const { stderr } = await runCli("eval", "--sae", sae, "--model", modelDirectory, "--corpus", writeText(folder));
  expect(stderr).toMatch(/^monosem: .*contexts of 100000 tokens[^\n]*\n$/);
});

test("page and picture are written although nobody reads what is printed", async () => {
  const folder = await temporaryFolder();
  const [sae, activations] = [await writeSae(folder), await writeActivations(folder, 50)];
  const [html, svg] = [join(folder, "page.html"), join(folder, "picture.svg")];
  const options = ["--sae", sae, "--activations", activations, "--html", html, "--svg", svg, "--json"];
  expect(await runCliUnread("eval", ...options)).toMatchObject({ exitCode: 0 });
  expect(readFileSync(html, "utf8")).toContain("</html>");
  expect(readFileSync(svg, "utf8")).toContain("</svg>");
});

test("negative latents count as active ones, as in features, which shows where they are", async () => {
  const folder = await temporaryFolder();
  const sae = await writeAbsTopkSae(folder, { hookName: HOOK, modelName: "tiny-gpt2" }, 192);
  const onModel = ["--model", modelDirectory, "--corpus", writeText(folder), "--tokens", "200", "--context-size", "32"];
  const evaluated = await runCliWithAbsTopk("eval", "--sae", sae, ...onModel);
  expect(evaluated.stdout).toMatch(/^ {2}L0 +4 /m);
  const all = Array.from({ length: dSae }, (_, latent) => String(latent));
  const html = join(folder, "features.html");
  const features = await runCliWithAbsTopk(
    ...["features", "--sae", sae, ...onModel],
    ...["--latents", ...all, "--examples", "1", "--html", html],
  );
  expect(features.stdout).toMatch(/ L0 4\.0 /);
  expect(features.stdout).toMatch(/^latent \d+ {2}fires on .*, from -[\d.]+ to /m);
  expect(features.stdout).toMatch(/^ +-[\d.]+ {2}.*\{/m);
  expect(readFileSync(html, "utf8")).toContain("<h3>where it is negative</h3>");
});

test("the tokens of progress and header are the same, and the densities are some that were seen", async () => {
  const folder = await temporaryFolder();
  await writeSweep(folder, [2]);
  const onModel = ["--model", modelDirectory, "--corpus", writeText(folder), "--tokens", "100", "--context-size", "32"];
  const { stdout, stderr } = await runCli("eval", "--sae", join(folder, "sweep/k2/sae"), ...onModel);
  const [, tokens] = stdout.match(/ on (\d+) tokens\n/)!;
  const lines = stderr.split("\n").filter((line) => / tokens$/.test(line));
  expect(lines.at(-1)).toMatch(new RegExp(`: ${tokens}/${tokens} tokens$`));
  const [, least, most] = stdout.match(/from ([\d.]+)% \(the rarest that fires\) to ([\d.]+)%/)!;
  expect(Number(least)).toBeGreaterThanOrEqual(99 / Number(tokens));
  expect(Number(most)).toBeLessThanOrEqual(100);
});

test("a row of NaN or infinity is named by its place in the file", async () => {
  const folder = await temporaryFolder();
  const sae = await writeSae(folder);
  for (const bad of [Number.NaN, Number.NEGATIVE_INFINITY]) {
    const activations = await writeActivations(folder, 50, (data) => data.fill(bad, 37 * dIn + 2, 37 * dIn + 3));
    const result = await runCli("eval", "--sae", sae, "--activations", activations, "--batch-size", "10");
    expect(result).toMatchObject({
      exitCode: 1,
      stdout: "",
      stderr: expect.stringMatching(/monosem: row 37 .*activations\.safetensors.* holds NaN or infinity\n$/),
    });
  }
});

test("mistakes are named, one line, exit code 1", async () => {
  const folder = await temporaryFolder();
  const [sae, activations] = [
    await writeSae(folder, { hookName: HOOK, modelName: "gpt2" }, 192),
    await writeActivations(folder, 8),
  ];
  const text = writeText(folder);
  const empty = join(folder, "empty.txt");
  writeFileSync(empty, "");
  const run = join(folder, "run");
  const fitting = await writeSae(run, { hookName: HOOK }, 192);
  writeFileSync(join(run, "config.json"), JSON.stringify({ sae: { architecture: "topk" } }));
  for (const [commandLine, message] of [
    [["--sae", sae], /nothing to evaluate on: give --model and --corpus, or --activations/],
    [["--sae", sae, "--model", modelDirectory], /--model and --corpus belong together/],
    [["--sae", sae, "--activations", activations, "--model", modelDirectory], /cannot be used with/],
    [["--sae", join(folder, "none/*"), "--activations", activations], /no file matches ".*none\/\*\/cfg\.json"/],
    [["--sae", sae, "--activations", activations], /6 wide, but the SAE was made for 192/],
    [["--sae", sae, "--model", modelDirectory, "--corpus", text], /trained on model "gpt2".*"tiny-gpt2"/],
    [["--sae", sae, "--html", "nodir/page.html"], /cannot write nodir\/page\.html: the folder nodir does not exist\n/],
    [["--sae", sae, "--svg", folder], /cannot write .*: it is a folder/],
    [
      ["--sae", "nodir", "--activations", activations],
      /the folder nodir does not exist; an SAE's folder holds cfg\.json/,
    ],
    [["--sae", modelDirectory, "--activations", activations], /tiny-gpt2 holds a model, not an SAE: an SAE's folder/],
    [
      ["--sae", folder, "--activations", activations],
      /holds no SAE: an SAE's folder holds .*; there is one in .*\/sae\n/,
    ],
    [
      ["--sae", sae, "--model", "nodir", "--corpus", text],
      /the folder nodir does not exist; a model's folder holds config/,
    ],
    [
      ["--sae", sae, "--model", sae, "--corpus", text],
      /\/sae holds an SAE, not a model: a model's folder holds config/,
    ],
    [["--sae", sae, "--model", text, "--corpus", text], /text\.txt is not a folder/],
    [["--sae", run, "--activations", activations], /is the output of a training run; its SAE is in .*run\/sae\n/],
    [
      ["--sae", sae, "--model", run, "--corpus", text],
      /is the output of a training run, not a model: a model's folder/,
    ],
    [["--sae", fitting, "--model", modelDirectory, "--corpus", empty], /the corpus .*empty\.txt has 0 tokens, too few/],
  ] as const) {
    const result = await runCli("eval", ...commandLine);
    expect(result.stderr).toMatch(message);
    expect(result).toMatchObject({ exitCode: 1, stdout: "" });
  }
});

test("activations without variance, which have no fvu, and such that are not numbers are refused", async () => {
  const folder = await temporaryFolder();
  const sae = await writeSae(folder);
  for (const [value, message] of [
    [1, /monosem: fvu is .*\n$/],
    [Number.NaN, /monosem: .*(NaN|finite).*\n$/],
  ] as const) {
    const activations = await writeActivations(folder, 8, (data) => data.fill(value));
    const result = await runCli("eval", "--sae", sae, "--activations", activations, "--json");
    expect(result).toMatchObject({ exitCode: 1, stdout: "", stderr: expect.stringMatching(message) });
  }
});
