import { execFile } from "node:child_process";
import { existsSync, readdirSync } from "node:fs";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { afterAll, beforeAll, expect, test } from "vitest";
import { Device } from "../lib/engine/device.js";
import { HookedTransformer } from "../lib/models/hookedTransformer.js";
import { Sae } from "../lib/sae/sae.js";
import { testDevice } from "./testDevice.js";

const examples = fileURLToPath(new URL("../examples", import.meta.url));
const run = promisify(execFile);
let folder: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "monosem-examples-"));
});

afterAll(() => rm(folder, { recursive: true, force: true }));

async function runExample(name: string, ...commandLine: string[]): Promise<string> {
  const { stdout } = await run(process.execPath, [join(examples, `${name}.js`), ...commandLine], { cwd: folder });
  return stdout;
}

test("every example is run by a test", async () => {
  const tests = await readFile(fileURLToPath(import.meta.url), "utf8");
  for (const file of readdirSync(examples)) {
    if (file.endsWith(".js")) expect(tests).toContain(`runExample("${file.slice(0, -3)}"`);
  }
});

test("examples need no package besides this one, so that they run in a project that has installed it", async () => {
  for (const file of readdirSync(examples).filter((name) => name.endsWith(".js") && name !== "demo.js")) {
    const source = await readFile(join(examples, file), "utf8");
    const imported = [...source.matchAll(/^(?:import|\} from) .*"(.+)";$/gm)].map((match) => match[1]!);
    expect(imported.length).toBeGreaterThan(0);
    expect(
      imported.filter((name) => name !== "monosem" && !name.startsWith("node:")),
      file,
    ).toEqual([]);
  }
});

test("examples that need the demo's SAE say so in one line, and not by a stack, where it is not there", async () => {
  const empty = await mkdtemp(join(folder, "no-demo-"));
  const needing: string[] = [];
  for (const file of readdirSync(examples).filter((name) => name.endsWith(".js"))) {
    if (!(await readFile(join(examples, file), "utf8")).includes('"demo-output/sae"')) continue;
    needing.push(file);
    await expect(run(process.execPath, [join(examples, file)], { cwd: empty }), file).rejects.toMatchObject({
      code: 1,
      stdout: "",
      stderr: "demo-output/sae does not exist: run `npm run demo` first, or name an SAE\n",
    });
  }
  expect(needing).toHaveLength(6);
  const file = join(examples, "read-a-feature-store.js");
  await expect(run(process.execPath, [file, empty, "stories.txt"], { cwd: empty })).rejects.toMatchObject({
    stderr: "stories.txt does not exist: name a text file\n",
  });
});

test("examples that run an SAE on text ask for it where none is named", async () => {
  for (const name of ["audit-an-sae", "interpret-latents"]) {
    await expect(run(process.execPath, [join(examples, `${name}.js`), folder])).rejects.toMatchObject({
      stderr: "name text to run the SAE on, after the SAE: .txt or .jsonl files\n",
    });
  }
});

test("train-on-activations finds the true features", async () => {
  const found = /^(\d+) of 24 true features were found/m.exec(await runExample("train-on-activations", folder));
  expect(Number(found?.[1])).toBeGreaterThanOrEqual(20);
  expect(existsSync(join(folder, "run", "sae", "cfg.json"))).toBe(true);
});

test("abs-topk trains, saves and loads an architecture that the library does not have", async () => {
  const printed = await runExample("abs-topk", await mkdtemp(join(folder, "abs-topk-")));
  expect(printed).toMatch(/^step 600: explained variance 0\.\d+, L0 3\.00$/m);
  expect(Number(/^(\d+) of 24 true features were found/m.exec(printed)?.[1])).toBeGreaterThanOrEqual(20);
  const negative = Number(/^([\d.]+)% of the latents' values are negative$/m.exec(printed)?.[1]);
  expect(negative).toBeGreaterThan(30);
  expect(negative).toBeLessThan(70);
  const saved = /^the SAE is in (.+)$/m.exec(printed)![1]!;
  expect(JSON.parse(await readFile(join(saved, "cfg.json"), "utf8"))).toMatchObject({ architecture: "abstopk", k: 3 });
});

test("read-a-cache prints a norm per token and layer", async () => {
  const lines = (await runExample("read-a-cache", "He said no.")).trim().split("\n");
  expect(lines[0]!.trim().split(/ +/)).toHaveLength(4);
  expect(lines.slice(1).map((line) => JSON.parse(line.split(/ {2,}/)[0]!.trim()))).toEqual([
    "<|endoftext|>",
    "He",
    " said",
    " no",
    ".",
  ]);
});

test("steer-and-ablate makes the loss worse and moves the next word from he to she", async () => {
  const printed = await runExample("steer-and-ablate");
  const losses = [...printed.matchAll(/^(?:loss|without MLP \d) +(\d+\.\d+)/gm)].map((match) => Number(match[1]));
  expect(losses).toHaveLength(5);
  expect(Math.min(...losses.slice(1))).toBeGreaterThan(losses[0]!);
  const she = [...printed.matchAll(/ she (\d+\.\d)%/g)].map((match) => Number(match[1]));
  const he = [...printed.matchAll(/ he (\d+\.\d)%/g)].map((match) => Number(match[1]));
  expect(she[2]).toBeGreaterThan(she[0]! + 50);
  expect(he[0]).toBeGreaterThan(he[2]! + 50);
});

/** A TopK SAE at the hook point that the examples use, not trained. */
async function writeSae(name: string): Promise<string> {
  const directory = join(folder, name);
  const device = await Device.open(testDevice, { threads: 1 });
  const metadata = { modelName: "tiny-gpt2", hookName: "blocks.2.hook_resid_post" };
  const config = { architecture: "topk" as const, dIn: 192, dSae: 32, k: 3, applyBDecToInput: true };
  await Sae.create(config, device, 0, { metadata }).save(directory);
  await device.close();
  return directory;
}

test("steer-and-ablate writes with a latent turned up", async () => {
  const printed = await runExample("steer-and-ablate", await writeSae("steered-sae"), "5");
  const written = [...printed.matchAll(/^latent 5 plus (\d): .+\n {2}"(The child was happy, because.+)"$/gm)];
  expect(written.map((match) => match[1])).toEqual(["0", "6"]);
  expect(written[1]![2]).not.toBe(written[0]![2]);
});

test("patch-a-prompt finds the layer, the heads and the latents that carry the difference", async () => {
  const printed = await runExample("patch-a-prompt", await writeSae("patched-sae"));
  const row = (map: string, name: string): string[] => {
    const lines = printed.slice(printed.indexOf(map)).split("\n");
    return lines
      .find((line) => line.startsWith(`${name} `))!
      .split(/ +/)
      .slice(1);
  };
  expect(row("resid_pre", "0")).toEqual(["·", "·", "·", "+1.00", "·", "·", "·", "·"]);
  expect(Number(row("resid_pre", "3")[7])).toBeGreaterThan(0.9);
  expect(Number(row("attn_out", "2")[7])).toBeGreaterThan(0.9);
  expect(Number(row("by head", "2")[4])).toBeGreaterThan(0.7);
  const tried = [...printed.matchAll(/^latent \d+: estimated (-?\d\.\d{3}), patched (-?\d\.\d{3})$/gm)];
  expect(tried.length).toBeGreaterThan(2);
  for (const match of tried) expect(Math.abs(Number(match[1]) - Number(match[2]))).toBeLessThan(0.05);
});

test("compare-methods asks five methods about one prompt", async () => {
  const page = join(folder, "compared.html");
  const printed = await runExample("compare-methods", await writeSae("compared-sae"), page);
  expect(printed).toMatch(/^token +patching +probing +LIME +SHAP +latents \(activation\)$/m);
  expect(printed.match(/^(patching|probing|LIME|SHAP|SAE features) +\d+ forward passes, /gm)).toHaveLength(5);
  expect(await readFile(page, "utf8")).toContain("Content-Security-Policy");
});

test("features-of-a-text lists the latents that fire on each token", async () => {
  const directory = join(folder, "some-sae");
  const device = await Device.open(testDevice, { threads: 1 });
  const metadata = { modelName: "tiny-gpt2", hookName: "blocks.2.hook_resid_post" };
  const config = { architecture: "topk" as const, dIn: 192, dSae: 32, k: 3, applyBDecToInput: true };
  await Sae.create(config, device, 0, { metadata }).save(directory);
  await device.close();
  const lines = (await runExample("features-of-a-text", directory, "He said no.")).trim().split("\n");
  expect(lines).toHaveLength(4);
  for (const line of lines) expect(line).toMatch(/^"[^"]+" +\d+ \(\d+\.\d\d\)( {2}\d+ \(\d+\.\d\d\))*$/);
});

test("read-a-feature-store gathers features, and reads a latent without model and SAE", async () => {
  const directory = join(folder, "stored-sae");
  const device = await Device.open(testDevice, { threads: 1 });
  const metadata = { modelName: "tiny-gpt2", hookName: "blocks.2.hook_resid_post", contextSize: 32, prependBos: true };
  const config = { architecture: "topk" as const, dIn: 192, dSae: 32, k: 3, applyBDecToInput: true };
  await Sae.create(config, device, 0, { metadata }).save(directory);
  await device.close();
  const text = join(folder, "stored.txt");
  await writeFile(
    text,
    "The old man said that he would go home. She was very happy, and he looked at her. ".repeat(30),
  );
  const paths = [directory, text, join(folder, "stored-features")];
  const printed = await runExample("read-a-feature-store", ...paths);
  expect(printed).toMatch(/^32 latents, \d+ tokens, \d+ never fire$/m);
  expect(printed).toMatch(/^latent \d+ fires on [\d.]+% of tokens, at most [\d.]+$/m);
  expect(printed).toMatch(/^ {2}[\d.]+ {2}".*\[.+\].*"$/m);
  expect(printed).toMatch(/^\d+% of its activations in \(/m);
  expect(printed).toMatch(/^raises {12}("[^"]+" ?){10}$/m);
  // The store is there now: it is only read, and the same is printed.
  expect(await runExample("read-a-feature-store", ...paths)).toBe(printed);
});

test("attribute-a-prediction finds out, from tokens, words and latents, why the model says she", async () => {
  const directory = join(folder, "attributed-sae");
  const device = await Device.open(testDevice, { threads: 1 });
  const metadata = { modelName: "tiny-gpt2", hookName: "blocks.2.hook_resid_post" };
  const config = { architecture: "topk" as const, dIn: 192, dSae: 32, k: 3, applyBDecToInput: true };
  await Sae.create(config, device, 0, { metadata }).save(directory);
  await device.close();
  const printed = await runExample("attribute-a-prediction", directory);
  const [full, empty] = /^score (\S+), without any token (\S+)$/m.exec(printed)!.slice(1).map(Number);
  const shares = [...printed.matchAll(/^ {2}SHAP +(-?\d\.\d{3}) {2}"(.+)"$/gm)];
  expect(shares.map((match) => match[2]).join("")).toBe("The little girl was happy, because");
  expect(shares.reduce((sum, match) => sum + Number(match[1]), 0)).toBeCloseTo(full! - empty!, 2);
  expect(shares.find((match) => match[2] === " girl")![1]).toBe(
    Math.max(...shares.map((match) => Number(match[1]))).toFixed(3),
  );
  expect(printed).toMatch(/^ {2}LIME +\d\.\d{3} {2}girl$/m);
  expect([...printed.matchAll(/^ {2}SHAP +-?\d\.\d{3} ± \d\.\d{3} {2}latent \d+$/gm)].length).toBeGreaterThan(3);
});

test("probe-layers reads off the layers what the embedding of the last token cannot know", async () => {
  const rows = [...(await runExample("probe-layers")).matchAll(/^(\S+) +([\d.]+)% {2}([\d.]+) +(-?[\d.]+)$/gm)];
  expect(rows.map((row) => row[1])).toEqual(["hook_embed", ...[0, 1, 2, 3].map((i) => `blocks.${i}.hook_resid_post`)]);
  const accuracies = rows.map((row) => Number(row[2]));
  expect(accuracies[0]).toBeLessThanOrEqual(60);
  for (const accuracy of accuracies.slice(1)) expect(accuracy).toBeGreaterThanOrEqual(85);
  for (const row of rows.slice(1)) expect(Number(row[4])).toBeGreaterThan(20);
});

test("interpret-latents explains latents by a word and tests the explanations on other texts", async () => {
  const device = await Device.open(testDevice, { threads: 1 });
  const model = await HookedTransformer.load(fileURLToPath(new URL("../assets/tiny-gpt2", import.meta.url)), device);
  const directory = join(folder, "interpreted-sae");
  const metadata = { modelName: "tiny-gpt2", hookName: "blocks.2.hook_resid_post" };
  const config = { architecture: "topk" as const, dIn: 192, dSae: 128, k: 4, applyBDecToInput: true };
  using sae = Sae.create(config, device, 0, { metadata });
  await sae.save(directory);
  const prompts = Array.from({ length: 40 }, () => [model.config.bosTokenId!]);
  const texts = await model.generate(prompts, { maxNewTokens: 120, seed: 1, temperature: 0.8 });
  const lines = texts.map((ids) => JSON.stringify({ text: model.tokenizer.decode(ids.slice(1)) }));
  await writeFile(join(folder, "interpreted.jsonl"), lines.join("\n"));
  await device.close();
  const page = join(folder, "words.html");
  const printed = await runExample("interpret-latents", "--html", page, directory, join(folder, "interpreted.jsonl"));
  expect(printed).toMatch(/^detection \d\.\d\d \(\d latents?\) {3}fuzzing (\d\.\d\d)/);
  expect(printed.match(/^latent \d+ /gm)!.length).toBeGreaterThan(1);
  expect(printed).toMatch(/^ {2}the word "[^"]+" \(confidence \d\.\d\d\)$/m);
  expect(await readFile(page, "utf8")).toContain("the word &quot;");
});

test("write-a-report writes linked pages and an export of every latent that fires", async () => {
  const device = await Device.open(testDevice, { threads: 1 });
  const directory = join(folder, "reported-sae");
  const metadata = { modelName: "tiny-gpt2", hookName: "blocks.2.hook_resid_post" };
  const config = { architecture: "topk" as const, dIn: 192, dSae: 40, k: 4, applyBDecToInput: true };
  await Sae.create(config, device, 0, { metadata }).save(directory);
  await device.close();
  const printed = await runExample("write-a-report", directory, join(folder, "reported"));
  const firing = Number(/^(\d+) of 40 latents fire on \d+ tokens$/m.exec(printed)![1]);
  expect(firing).toBeGreaterThan(25);
  const index = await readFile(/^pages: (.+)$/m.exec(printed)![1]!, "utf8");
  expect(index.match(/<tr><td><a href="latents-[12]\.html#latent-\d+">/g)).toHaveLength(firing);
  expect(index).toContain("The king said that he would go home.");
  const source = /^for Neuronpedia: (.+)$/m.exec(printed)![1]!;
  expect(readdirSync(join(source, "features"))).toEqual(["batch-0.jsonl.gz"]);
});

/** An SAE that is not trained, in a folder, and a file of texts that the model writes. */
async function saeAndTexts(name: string, texts: number): Promise<{ directory: string; corpus: string }> {
  const device = await Device.open(testDevice, { threads: 1 });
  const model = await HookedTransformer.load(fileURLToPath(new URL("../assets/tiny-gpt2", import.meta.url)), device);
  const directory = join(folder, name);
  const metadata = { modelName: "tiny-gpt2", hookName: "blocks.2.hook_resid_post" };
  const config = { architecture: "topk" as const, dIn: 192, dSae: 128, k: 8, applyBDecToInput: true };
  using sae = Sae.create(config, device, 0, { metadata });
  await sae.save(directory);
  const prompts = Array.from({ length: texts }, () => [model.config.bosTokenId!]);
  const written = await model.generate(prompts, { maxNewTokens: 120, seed: 1, temperature: 0.8 });
  const corpus = join(folder, `${name}.jsonl`);
  const lines = written.map((ids) => JSON.stringify({ text: model.tokenizer.decode(ids.slice(1)) }));
  await writeFile(corpus, lines.join("\n"));
  await device.close();
  return { directory, corpus };
}

test("audit-an-sae says what can be relied on, and finds the latents that stand twice", async () => {
  const { directory, corpus } = await saeAndTexts("audited-sae", 16);
  const printed = await runExample("audit-an-sae", directory, corpus);
  expect(printed).toMatch(/^ {2}the same latents, repeated +100\.0% /m);
  expect(printed).toMatch(/^ {2}latents kept, a sentence in front +[\d.]+% +[\d.]+% {2}another token +\d+ tokens/m);
  expect(printed).toMatch(/^ {2}latents with more effect than a random direction +[\d.]+% +50\.0%/m);
  const [asItIs, withCopies] = [...printed.matchAll(/(\d+) of 128 latents have a near duplicate/g)].map((m) =>
    Number(m[1]),
  );
  expect(asItIs).toBe(0);
  expect(withCopies).toBe(20);
});

test("bench-an-sae probes latents, says why there is no absorption, and writes SAEBench's file", async () => {
  const { directory } = await saeAndTexts("benched-sae", 1);
  const output = join(folder, "bench.json");
  const printed = await runExample("bench-an-sae", directory, output);
  expect(printed.match(/^(girl|boy|king) +latent \d+ alone [\d.]+%, all that the SAE reads [\d.]+%$/gm)).toHaveLength(
    3,
  );
  expect(printed).toMatch(
    /^absorption: probes find \d+ of 26 letters, the model spells [\d.]+% of words: no numbers$/m,
  );
  expect(printed).toMatch(/^sparse-probing: .*50% is chance;/m);
  expect(JSON.parse(await readFile(output, "utf8"))).toMatchObject({
    eval_type_id: "sparse_probing",
    sae_cfg_dict: { architecture: "topk" },
  });
});

test("the demo goes all the way from generated text to a page of features", async () => {
  const output = join(folder, "demo");
  const printed = await runExample("demo", "--tokens", "6000", "--steps", "3", "--output", output);
  expect(printed).toMatch(/^loss recovered -?[\d.]+% {3}explained variance -?[\d.]+% {3}L0 16\.0/);
  expect(printed).toContain(join(output, "features.html"));
  expect(readdirSync(output).sort()).toEqual(["checkpoints", "config.json", "features.html", "metrics.jsonl", "sae"]);
  expect(await readFile(join(output, "features.html"), "utf8")).toContain("Content-Security-Policy");
});
