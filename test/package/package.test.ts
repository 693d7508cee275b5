/**
 * What a user gets from the registry: `npm run prebuild && npm pack` in a fresh copy of the repository, the tarball
 * installed into an empty folder without scripts, without a network and with every compiler on the PATH replaced by one
 * that fails.
 */
import { spawnSync } from "node:child_process";
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { delimiter, dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, expect, test } from "vitest";

const repository = fileURLToPath(new URL("../..", import.meta.url));
const COMPILERS = [
  "cc",
  "c++",
  "gcc",
  "g++",
  "clang",
  "clang++",
  "make",
  "cmake",
  "ninja",
  "node-gyp",
  "python",
  "python3",
];

let folder: string;
let consumer: string;
let packed: string[];
let compilerCalls: string;
let withoutCompilers: NodeJS.ProcessEnv;

/** Runs a program and returns what it prints. */
function run(program: string, args: readonly string[], cwd: string, env: NodeJS.ProcessEnv = process.env): string {
  const { status, stdout, stderr } = spawnSync(program, args, { cwd, env, encoding: "utf8", maxBuffer: 2 ** 28 });
  if (status !== 0) throw new Error(`${program} ${args.join(" ")} ended with ${status}:\n${stdout}${stderr}`);
  return stdout;
}

/** A copy of what a clone holds, with the installed development dependencies. */
function copyRepository(to: string): void {
  const files = run("git", ["ls-files", "--cached", "--others", "--exclude-standard", "-z"], repository).split("\0");
  for (const file of files) {
    if (file === "" || !existsSync(join(repository, file))) continue;
    mkdirSync(dirname(join(to, file)), { recursive: true });
    cpSync(join(repository, file), join(to, file));
  }
  symlinkSync(join(repository, "node_modules"), join(to, "node_modules"));
}

/** The package's own dependencies, all the way down, as folders that are already installed. */
function dependencyFolders(): string[] {
  return run("npm", ["ls", "--omit=dev", "--all", "--parseable"], repository)
    .split("\n")
    .filter((path) => path !== "" && relative(repository, path) !== "");
}

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "monosem-package-"));
  const copy = join(folder, "repository");
  consumer = join(folder, "consumer");
  const stubs = join(folder, "stubs");
  for (const directory of [copy, consumer, stubs]) mkdirSync(directory);

  copyRepository(copy);
  run("npm", ["run", "prebuild"], copy);
  const [{ filename, files }] = JSON.parse(run("npm", ["pack", "--json", "--silent"], copy));
  packed = files.map((file: { path: string }) => file.path);

  compilerCalls = join(folder, "compiler-calls");
  for (const name of COMPILERS) {
    writeFileSync(join(stubs, name), `#!/bin/sh\necho "$0 $*" >> '${compilerCalls}'\nexit 1\n`, { mode: 0o755 });
  }
  withoutCompilers = { ...process.env, PATH: `${stubs}${delimiter}${process.env.PATH}`, CC: "", CXX: "" };
  writeFileSync(join(consumer, "package.json"), JSON.stringify({ name: "consumer", private: true, type: "module" }));
  run(
    "npm",
    [
      ...["install", "--offline", "--ignore-scripts", "--install-links", "--no-audit", "--no-fund"],
      ...[join(copy, filename), ...dependencyFolders()],
    ],
    consumer,
    withoutCompilers,
  );
});

afterAll(() => {
  rmSync(folder, { recursive: true, force: true });
});

test("the tarball installs without scripts or a compiler, and encodes", () => {
  writeFileSync(
    join(consumer, "encode.js"),
    `import { Device } from "monosem";
     const device = await Device.open("cpu", { threads: 2 });
     const x = device.tensor(new Float32Array([1, 2]), [1, 2]);
     const encoder = device.tensor(new Float32Array([1, 0, 0, 1, -1, -1]), [3, 2]);
     const bias = device.zeros([3]);
     const codes = device.kernels.encode(x, encoder, bias, { select: "topk", k: 1 });
     const { features, values } = await codes.read();
     console.log(JSON.stringify({ features: [...features], values: [...values] }));`,
  );
  const output = run(process.execPath, ["encode.js"], consumer, withoutCompilers);
  expect(JSON.parse(output)).toEqual({ features: [1], values: [2] });
  expect(existsSync(compilerCalls) ? readFileSync(compilerCalls, "utf8") : "").toBe("");
});

test("CommonJS can require the package", () => {
  writeFileSync(join(consumer, "require.cjs"), 'console.log(typeof require("monosem").Device.open)');
  expect(run(process.execPath, ["require.cjs"], consumer, withoutCompilers).trim()).toBe("function");
});

test("the command-line tool starts", () => {
  expect(run("npx", ["--offline", "monosem", "--help"], consumer, withoutCompilers)).toContain("monosem");
});

test("the tarball holds the library, its types, the addon and its sources, and nothing else", () => {
  const addon = packed.filter((path) => path.endsWith(".node"));
  expect(addon).toHaveLength(1);
  expect(addon[0]).toMatch(new RegExp(`^prebuilds/${process.platform}-${process.arch}/monosem(\\.\\w+)*\\.node$`));
  for (const path of ["dist/index.js", "dist/index.d.ts", "dist/cli/main.js", "README.md", "LICENSE", "CHANGELOG.md"]) {
    expect(packed).toContain(path);
  }
  const expected =
    /^(dist\/.+\.(js|d\.ts|html|css|json)|prebuilds\/.+|native\/.+\.(h|cpp|cu|json)|cmake\/.+\.cmake|package\.json|README\.md|CHANGELOG\.md|LICENSE|binding\.gyp|CMakeLists\.txt)$/;
  expect(packed.filter((path) => !expected.test(path))).toEqual([]);
});
