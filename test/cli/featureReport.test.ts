import { existsSync } from "node:fs";
import { mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { REPORT_FILES } from "../../lib/features/reportFolder.js";
import { HOOK, modelDirectory } from "../analysis/tinyModel.js";
import { runCli, temporaryFolder } from "./runCli.js";
import { dSae, writeSae } from "./saeFiles.js";

const text = "The old man said that he would go home. She was very happy, and he looked at her. ";

/** A folder with an SAE of the tiny model and a text, and the flags that name them. */
async function prepare(hookName = HOOK): Promise<{ folder: string; onModel: string[] }> {
  const folder = await temporaryFolder();
  const sae = await writeSae(folder, { hookName, modelName: "tiny-gpt2" }, 192);
  const corpus = join(folder, "text.txt");
  await writeFile(corpus, text.repeat(20));
  const flags = ["--model", modelDirectory, "--corpus", corpus, "--tokens", "300", "--context-size", "32"];
  return { folder, onModel: ["features", "--sae", sae, ...flags] };
}

test("features --html writes a page, with the prompts that were asked for", async () => {
  const { folder, onModel } = await prepare();
  const page = join(folder, "features.html");
  const result = await runCli(...onModel, "--latents", "3", "--html", page, "--html-prompts", "He said <b>", "Home");
  expect(result.exitCode, result.stderr).toBe(0);
  expect(result.stdout).toMatch(new RegExp(`^\nwrote ${page}$`, "m"));
  const html = await readFile(page, "utf8");
  expect(html.match(/<details name="prompt"/g)).toHaveLength(2);
  expect(html).toContain("<summary><bdi>He said &lt;b&gt;</bdi></summary>");
  expect(html.match(/<article /g)).toHaveLength(1);
});

test("features --html writes a folder where the path says so; --all puts every latent that fires into it", async () => {
  const { folder, onModel } = await prepare();
  const report = join(folder, "report");
  expect(await runCli(...onModel, "--latents", "1", "--html", `${report}/`)).toMatchObject({ exitCode: 0 });
  expect((await readdir(report)).sort()).toEqual(["index.html", "latents-1.html"]);
  // it is a folder now, and holds nothing but a report: it is replaced
  const all = await runCli(...onModel, "--latents", "1", "--all", "--html", report);
  expect(all.exitCode, all.stderr).toBe(0);
  expect([...all.stdout.matchAll(/^latent (\d+) /gm)].map(([, latent]) => latent)).toEqual(["1"]);
  const index = await readFile(join(report, "index.html"), "utf8");
  const rows = [...index.matchAll(/<tr><td><a [^>]*>(\d+)<\/a><\/td><td>([\d.]+)%/g)];
  const dead = Number(/([\d,]+) of [\d,]+ latents fire/.exec(index)![1]);
  expect(rows).toHaveLength(dead);
  expect(rows.length).toBeGreaterThan(1);
  expect(rows.length).toBeLessThanOrEqual(dSae);
  expect((await readdir(report)).every((name) => REPORT_FILES.test(name))).toBe(true);
});

test("a folder with anything else in it is never replaced, and no work is done before that is said", async () => {
  const { folder, onModel } = await prepare();
  const full = join(folder, "full");
  await mkdir(full);
  await writeFile(join(full, "thesis.tex"), "");
  for (const flag of ["--html", "--saedashboard"]) {
    expect(await runCli(...onModel, flag, full)).toMatchObject({
      exitCode: 1,
      stdout: "",
      stderr: `monosem: cannot write the folder ${full}: it holds other files (thesis.tex); name a new folder\n`,
    });
  }
  const source = join(full, "tiny-gpt2", "2-mine");
  await mkdir(source, { recursive: true });
  await writeFile(join(source, "explanations.csv"), "");
  const neuronpedia = await runCli(...onModel, "--neuronpedia", full, "--source-set", "mine");
  expect(neuronpedia).toMatchObject({ exitCode: 1, stderr: expect.stringContaining("(explanations.csv)") });
  expect(await readdir(full)).toEqual(["thesis.tex", "tiny-gpt2"]);
  const nowhere = await runCli(...onModel, "--html", join(folder, "none/report/"));
  expect(nowhere).toMatchObject({ exitCode: 1, stderr: expect.stringContaining("none") });
});

test("options of outputs that nobody asked for are refused; prompts may be of any length", async () => {
  const { folder, onModel } = await prepare();
  expect(await runCli(...onModel, "--all")).toMatchObject({
    exitCode: 1,
    stderr: expect.stringContaining("--all is for"),
  });
  const prompts = await runCli(...onModel, "--html-prompts", "Home");
  expect(prompts).toMatchObject({ exitCode: 1, stderr: expect.stringContaining("give --html, too") });
  const page = join(folder, "page.html");
  const long = await runCli(...onModel, "--html", page, "--html-prompts", "he ".repeat(2000));
  expect(long.exitCode, long.stderr).toBe(0);
  expect(await readFile(page, "utf8")).toContain("he he he");
});

test("features exports to SAEDashboard and Neuronpedia", async () => {
  const { folder, onModel } = await prepare();
  const [dashboard, exports] = [join(folder, "dashboard"), join(folder, "exports")];
  const flags = ["--all", "--saedashboard", dashboard, "--neuronpedia", exports, "--creator", "somebody"];
  const result = await runCli(...onModel, ...flags);
  expect(result.exitCode, result.stderr).toBe(0);
  const source = join(exports, "tiny-gpt2", `2-res-${dSae}`);
  expect(result.stdout).toContain(`\nwrote ${dashboard}\nwrote ${source}\n`);
  const batch = JSON.parse(await readFile(join(dashboard, "batch-0.json"), "utf8"));
  expect(batch).toMatchObject({ model_id: "tiny-gpt2", layer: 2, sae_set: `res-${dSae}`, sae_id_suffix: null });
  for (const feature of batch.features) {
    expect(feature.pos_str).toHaveLength(10);
    expect(feature.neuron_alignment_indices).toHaveLength(3);
    expect(feature).toMatchObject({ n_tokens_in_prompt: 32 });
    // every token of the vocabulary is in the histogram of logits, every firing in that of activations
    expect(feature.logits_hist_data_bar_heights.reduce((sum: number, count: number) => sum + count)).toBe(2048);
    expect(feature.activations.length).toBeGreaterThan(0);
  }
  const release = JSON.parse(await readFile(join(source, "release.jsonl"), "utf8"));
  expect(release).toMatchObject({ creatorName: "somebody" });
  // another source beside it; the same one again
  expect(await runCli(...onModel, "--neuronpedia", exports, "--source-set", "other")).toMatchObject({ exitCode: 0 });
  expect(await runCli(...onModel, "--neuronpedia", exports)).toMatchObject({ exitCode: 0 });
  expect((await readdir(join(exports, "tiny-gpt2"))).sort()).toEqual(["2-other", `2-res-${dSae}`]);
});

test("an export is refused before the work where the other system has no place for the SAE, or the name is none", async () => {
  const embedding = await prepare("hook_embed");
  const result = await runCli(...embedding.onModel, "--saedashboard", join(embedding.folder, "dashboard"));
  expect(result).toMatchObject({ exitCode: 1, stdout: "", stderr: expect.stringContaining("hook_embed") });
  const { folder, onModel } = await prepare();
  const named = await runCli(...onModel, "--neuronpedia", join(folder, "exports"), "--source-set", "../up");
  expect(named).toMatchObject({
    exitCode: 1,
    stderr: 'monosem: the source set may have letters, digits, dots, dashes and underscores, found "../up"\n',
  });
  expect(existsSync(join(folder, "exports"))).toBe(false);
});

const stories = fileURLToPath(new URL("../../../shared/data/models/stories260K", import.meta.url));

test.skipIf(!existsSync(stories))(
  "the report and the exports work on a model of another family and tokenizer",
  async () => {
    const folder = await temporaryFolder();
    const sae = await writeSae(folder, { hookName: "blocks.3.hook_resid_post", modelName: "stories260K" }, 64);
    const corpus = join(folder, "text.txt");
    await writeFile(corpus, text.repeat(20));
    const model = join(folder, "stories260K.bin");
    await writeFile(model, await readFile(join(stories, "stories260K.bin")));
    await writeFile(join(folder, "tokenizer.bin"), await readFile(join(stories, "tok512.bin")));
    const [report, exports] = [join(folder, "report/"), join(folder, "exports")];
    const flags = ["--model", model, "--corpus", corpus, "--tokens", "300", "--context-size", "32"];
    const outputs = ["--all", "--html", report, "--neuronpedia", exports, "--html-prompts", "Once upon a time"];
    const result = await runCli("features", "--sae", sae, ...flags, ...outputs);
    expect(result.exitCode, result.stderr).toBe(0);
    expect(await readFile(join(report, "index.html"), "utf8")).toContain("Once upon a time");
    expect(await readdir(join(exports, "stories260K"))).toEqual([`3-res-${dSae}`]);
  },
);
