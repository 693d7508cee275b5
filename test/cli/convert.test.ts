import { spawnSync } from "node:child_process";
import { copyFile, mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { SafetensorsFile, writeSafetensors } from "../../lib/formats/safetensors.js";
import { runCli, runCliWithAbsTopk, temporaryFolder } from "./runCli.js";
import { writeAbsTopkSae, writeCrosscoder } from "./saeFiles.js";

const fixtures = fileURLToPath(new URL("../fixtures/pretrained", import.meta.url));
const gemma = join(fixtures, "gemma-scope-2b-pt-res/layer_12/width_16k/average_l0_82");
const openai = join(fixtures, "openai/resid_post_mlp_v5_32k/autoencoders/8.pt");

test("convert rewrites a folder or a file as a SAELens folder, which every command takes", async () => {
  const folder = await temporaryFolder();
  for (const [input, said, cfg] of [
    [
      gemma,
      "Gemma Scope: jumprelu SAE, dIn 6, dSae 20",
      { architecture: "jumprelu", d_in: 6, apply_b_dec_to_input: false },
    ],
    [
      openai,
      "PyTorch file: topk SAE, dIn 6, dSae 20",
      { architecture: "topk", k: 5, normalize_activations: "layer_norm" },
    ],
    [join(fixtures, "circuit-tracer/layer_1.safetensors"), "circuit-tracer: jumprelu transcoder", { d_out: 6 }],
  ] as const) {
    const output = join(folder, cfg.architecture ?? "transcoder");
    const { exitCode, stdout, stderr } = await runCli("convert", input, output);
    expect(stderr).toBe("");
    expect(exitCode).toBe(0);
    expect(stdout).toMatch(new RegExp(`^${said}.* -> ${output}\n$`));
    expect((await readdir(output)).sort()).toEqual(["cfg.json", "sae_weights.safetensors"]);
    expect(JSON.parse(await readFile(join(output, "cfg.json"), "utf8"))).toMatchObject(cfg);
    const info = JSON.parse((await runCli("info", output, "--json")).stdout);
    expect(info).toMatchObject({ kind: "sae", format: "SAELens", dIn: 6, dSae: 20 });
  }
});

test("what a killed conversion left in the folder does not stand in the way of the next", async () => {
  const output = await temporaryFolder();
  const { pid: dead } = spawnSync(process.execPath, ["--version"]);
  for (const name of ["sae_weights.safetensors", `.cfg.json.${dead}.0123456789ab.tmp`]) {
    await writeFile(join(output, name), "half");
  }
  expect(await runCli("convert", gemma, output)).toMatchObject({ exitCode: 0, stderr: "" });
  expect((await readdir(output)).sort()).toEqual(["cfg.json", "sae_weights.safetensors"]);
  expect((await runCli("convert", gemma, output)).stderr).toContain("is not empty (cfg.json, sae_weights.safetensors)");
});

test("convert and info say that it is a crosscoder, and convert what SAELens does not know", async () => {
  const folder = await temporaryFolder();
  const crosscoder = await writeCrosscoder(folder);
  const converted = await runCli("convert", crosscoder, join(folder, "converted"));
  expect(converted).toMatchObject({ exitCode: 0, stderr: "" });
  expect(converted.stdout).toMatch(/^SAELens: topk crosscoder, dIn 384/);
  expect((await runCli("info", crosscoder)).stdout).toMatch(/^crosscoder +true$/m);
  const other = await writeAbsTopkSae(join(folder, "other"), { modelName: "m", hookName: "blocks.0.hook_resid_pre" });
  const own = await runCliWithAbsTopk("convert", other, join(folder, "own"));
  expect(own.exitCode).toBe(0);
  expect(own.stderr).toBe('note: SAELens knows no "abstopk": monosem reads the folder, SAELens does not\n');
});

test("convert says what a folder that was moved no longer tells, and takes it from flags", async () => {
  const folder = await temporaryFolder();
  const moved = join(folder, "moved");
  await mkdir(moved);
  await copyFile(join(gemma, "params.npz"), join(moved, "params.npz"));
  const lost = await runCli("convert", moved, join(folder, "lost"));
  expect(lost.exitCode).toBe(0);
  expect(lost.stderr).toBe(
    `warning: nothing in ${moved} or its path says its model (--model-name), its hook point (--hook); what is missing can be given\n`,
  );
  const hook = ["--hook", "blocks.12.hook_resid_post"];
  const told = await runCli("convert", moved, join(folder, "told"), "--model-name", "gemma-2-2b", ...hook);
  expect(told).toMatchObject({ exitCode: 0, stderr: "" });
  const cfg = JSON.parse(await readFile(join(folder, "told", "cfg.json"), "utf8"));
  expect(cfg.metadata).toMatchObject({ model_name: "gemma-2-2b", hook_name: "blocks.12.hook_resid_post" });
  const twice = await runCli("convert", ...hook, ...hook, moved, join(folder, "twice"));
  expect(twice.stderr).toContain("--hook names 2 hook points, but the SAE reads 1");
  const out = await runCli("convert", moved, join(folder, "out"), "--hook-out", "blocks.12.hook_mlp_out");
  expect(out.stderr).toContain("--hook-out is for transcoders");
  const transcoder = join(folder, "layer_1.safetensors");
  await copyFile(join(fixtures, "circuit-tracer/layer_1.safetensors"), transcoder);
  const partly = await runCli("convert", transcoder, join(folder, "partly"), "--hook-out", "blocks.1.hook_mlp_out");
  expect(partly.stderr).toMatch(/says its model \(--model-name\), its hook point \(--hook\); what/);
});

test("convert folds the factor of the activations that a folder leaves open, and no other", async () => {
  const folder = await temporaryFolder();
  const scaled = join(fixtures, "saelens/pre6-scaled");
  const without = await runCli("convert", scaled, join(folder, "without"));
  expect(without).toMatchObject({ exitCode: 1, stderr: expect.stringContaining("monosem convert --input-scale") });
  const output = join(folder, "with");
  expect(await runCli("convert", scaled, output, "--input-scale", "0.375")).toMatchObject({ exitCode: 0, stderr: "" });
  expect(JSON.parse(await readFile(join(output, "cfg.json"), "utf8"))).toMatchObject({ normalize_activations: "none" });
  await using before = await SafetensorsFile.open(join(scaled, "sae_weights.safetensors"));
  await using after = await SafetensorsFile.open(join(output, "sae_weights.safetensors"));
  const expected = (await before.readFloat32("W_enc")).map((weight) => weight * 0.375);
  expect(await after.readFloat32("W_enc")).toEqual(expected);
  const superfluous = await runCli("convert", gemma, join(folder, "superfluous"), "--input-scale", "2");
  expect(superfluous).toMatchObject({ exitCode: 1, stderr: expect.stringContaining("inputScale is 2, but") });
  const zero = await runCli("convert", scaled, join(folder, "zero"), "--input-scale", "0");
  expect(zero.stderr).toContain("expected a number above 0");
});

test("info reads published SAEs where they lie, folders and files", async () => {
  const info = async (path: string): Promise<unknown> => JSON.parse((await runCli("info", path, "--json")).stdout);
  expect(await info(gemma)).toMatchObject({
    kind: "sae",
    format: "Gemma Scope",
    architecture: "jumprelu",
    modelName: "gemma-2-2b",
    hookName: "blocks.12.hook_resid_post",
  });
  expect(await info(openai)).toMatchObject({ kind: "sae", format: "PyTorch file", architecture: "topk", k: 5 });
});

test("eval and encode take published SAEs where they lie", async () => {
  const folder = await temporaryFolder();
  const activations = join(folder, "activations.safetensors");
  const data = Float32Array.from({ length: 40 * 6 }, (_, i) => Math.sin(i * i));
  await writeSafetensors(activations, { activations: { shape: [40, 6], data } });
  const evaluated = await runCli("eval", "--sae", gemma, "--activations", activations, "--json");
  expect(evaluated.exitCode).toBe(0);
  const { sae_cfg_dict: cfg } = JSON.parse(evaluated.stdout);
  expect(cfg).toMatchObject({ architecture: "jumprelu", d_in: 6, d_sae: 20, metadata: { model_name: "gemma-2-2b" } });
  const output = join(folder, "latents.safetensors");
  const encoded = await runCli("encode", "--sae", openai, "--activations", activations, "--output", output);
  expect(encoded.stdout).toMatch(/^40 rows, \d+ active latents/);
});

test("convert does not write where something is, and says what it cannot read", async () => {
  const folder = await temporaryFolder();
  const filled = join(folder, "filled");
  await mkdir(filled);
  await writeFile(join(filled, "notes.txt"), "x");
  for (const [input, output, message] of [
    [gemma, filled, /filled is not empty \(notes\.txt\): name a new folder\n$/],
    [gemma, join(filled, "notes.txt"), /cannot write to .*notes\.txt: ENOTDIR/],
    [filled, join(folder, "new"), /filled holds no SAE: an SAE's folder holds .*, or what another system saved\n$/],
    [join(folder, "none"), join(folder, "new"), /none does not exist/],
    [join(fixtures, "../archives/hostile/system.pt"), join(folder, "new"), /it needs "posix\.system"/],
  ] as const) {
    const { exitCode, stdout, stderr } = await runCli("convert", input, output);
    expect(stderr).toMatch(message);
    expect(stdout).toBe("");
    expect(exitCode).toBe(1);
  }
  expect(await readdir(folder)).toEqual(["filled"]);
});
