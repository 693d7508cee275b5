import { execFile } from "node:child_process";
import { mkdir, mkdtemp, readFile, rm, stat, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import { Device } from "../lib/engine/device.js";
import { Sae } from "../lib/sae/sae.js";
import { HubServer } from "./hub/hubServer.js";
import { judge } from "./interpretation/judges.js";
import { startServer } from "./interpretation/mockServer.js";
import { servedFolder } from "./pretrained/servedFolder.js";
import { testDevice } from "./testDevice.js";

const run = promisify(execFile);
const root = fileURLToPath(new URL("..", import.meta.url));
const commandLine = join(root, "dist/cli/main.js");

let folder: string;
let hub: HubServer;
let readme: string;

/** The fenced blocks of the README in that language, in order. */
function blocks(language: string): string[] {
  return [...readme.matchAll(new RegExp(`^\`\`\`${language}\\n(.*?)^\`\`\``, "gms"))].map((match) => match[1]!);
}

beforeAll(async () => {
  readme = await readFile(join(root, "README.md"), "utf8");
  // inside the package, so that `import ... from "monosem"` finds it
  await mkdir(join(root, "build"), { recursive: true });
  folder = await mkdtemp(join(root, "build/readme-"));
  await symlink(join(root, "assets"), join(folder, "assets"));
  // a published SAE, in small, where the README has one
  const published = "gemma-scope-2b-pt-res";
  await symlink(join(root, "test/fixtures/pretrained", published), join(folder, published));
  hub = await startHub();
  vi.stubEnv("HF_ENDPOINT", hub.endpoint);
  vi.stubEnv("HF_HOME", join(folder, "huggingface"));
  for (const name of ["HF_HUB_CACHE", "HF_HUB_OFFLINE", "HF_TOKEN"]) vi.stubEnv(name, undefined);
});

afterAll(async () => {
  vi.unstubAllEnvs();
  await hub.stop();
  await rm(folder, { recursive: true, force: true });
});

/** A hub with what the README asks for by name: the small model in GPT-2's place, and an SAE of its width. */
async function startHub(): Promise<HubServer> {
  const saeFolder = join(folder, "published");
  const device = await Device.open(testDevice, { threads: 1 });
  const config = { architecture: "topk" as const, dIn: 192, dSae: 64, k: 8, applyBDecToInput: true };
  const metadata = {
    modelName: "gpt2-small",
    hookName: "blocks.2.hook_resid_post",
    contextSize: 64,
    prependBos: false,
    model_from_pretrained_kwargs: { center_writing_weights: false },
  };
  await Sae.create(config, device, 0, { metadata }).save(saeFolder);
  await device.close();
  const files = await servedFolder(saeFolder, "v5_32k_layer_2.pt/");
  return await HubServer.start(
    { name: "openai-community/gpt2", files: await servedFolder(join(root, "assets/tiny-gpt2")) },
    { name: "jbloom/GPT2-Small-OAI-v5-32k-resid-post-SAEs", files },
  );
}

test("the README's command lines run as written, one after the other", async () => {
  const [config] = blocks("json");
  await writeFile(join(folder, "run.json"), config!);
  const commands = blocks("sh")
    .flatMap((block) => block.trim().split("\n"))
    .filter((line) => line.includes("npx monosem "))
    .map((line) => line.replaceAll("npx monosem ", `"${process.execPath}" "${commandLine}" `));
  expect(commands.length).toBeGreaterThanOrEqual(4);
  const server = await startServer(judge((right) => right));
  vi.stubEnv("MONOSEM_SERVER", server.baseUrl);
  for (const command of commands) await run("sh", ["-c", command], { cwd: folder });

  const metrics = await readFile(join(folder, "runs/first/metrics.jsonl"), "utf8");
  expect(metrics.trim().split("\n").length).toBeGreaterThan(1);
  for (const page of ["features.html", "words.html"]) {
    expect((await stat(join(folder, page))).size).toBeGreaterThan(1000);
  }
  expect(server.requests.length).toBeGreaterThan(0);
});

test("the README's programs are TypeScript, too, with every check on", async () => {
  const files = blocks("js").map((_, index) => join(folder, `typed-${index}.mts`));
  for (const [index, program] of blocks("js").entries()) await writeFile(files[index]!, program);
  const tsc = join(root, "node_modules/typescript/bin/tsc");
  const options = ["--noEmit", "--strict", "--module", "nodenext", "--target", "es2023", "--types", "node"];
  await run(process.execPath, [tsc, "--ignoreConfig", ...options, ...files], { cwd: folder }).catch(({ stdout }) => {
    expect(stdout).toBe("");
  });
});

test("the README's programs run as written, one after the other", async () => {
  const programs = blocks("js");
  expect(programs.length).toBeGreaterThanOrEqual(3);
  for (const [index, program] of programs.entries()) {
    const path = join(folder, `program-${index}.mjs`);
    await writeFile(path, program);
    const { stdout } = await run(process.execPath, [path], { cwd: folder });
    expect(stdout).not.toBe("");
  }
});
