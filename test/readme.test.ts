import { execFile } from "node:child_process";
import { mkdir, mkdtemp, readFile, rm, stat, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { afterAll, beforeAll, expect, test } from "vitest";

const run = promisify(execFile);
const root = fileURLToPath(new URL("..", import.meta.url));
const commandLine = join(root, "dist/cli/main.js");

let folder: string;
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
});

afterAll(() => rm(folder, { recursive: true, force: true }));

test("the README's command lines run as written, one after the other", async () => {
  const [config] = blocks("json");
  await writeFile(join(folder, "run.json"), config!);
  const commands = blocks("sh")
    .flatMap((block) => block.trim().split("\n"))
    .filter((line) => line.includes("npx monosem "))
    .map((line) => line.replaceAll("npx monosem ", `"${process.execPath}" "${commandLine}" `));
  expect(commands.length).toBeGreaterThanOrEqual(4);
  for (const command of commands) await run("sh", ["-c", command], { cwd: folder });

  const metrics = await readFile(join(folder, "runs/first/metrics.jsonl"), "utf8");
  expect(metrics.trim().split("\n").length).toBeGreaterThan(1);
  expect((await stat(join(folder, "features.html"))).size).toBeGreaterThan(1000);
});

test("the README's programs are TypeScript, too, with every check on", async () => {
  const files = blocks("js").map((_, index) => join(folder, `typed-${index}.mts`));
  for (const [index, program] of blocks("js").entries()) await writeFile(files[index]!, program);
  const tsc = join(root, "node_modules/typescript/bin/tsc");
  const options = [
    "--noEmit",
    "--strict",
    "--skipLibCheck",
    "--module",
    "nodenext",
    "--target",
    "es2023",
    "--types",
    "node",
  ];
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
