import { readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { runCli, runCliUnread, temporaryFolder } from "./runCli.js";

const short = ["--steps", "60", "--batch-size", "64", "--attempts", "1"];

test("toy trains a model for every importance and sparsity, and prints a table of them", async () => {
  const { exitCode, stdout } = await runCli("toy", ...short, "--sparsity", "0", "0.9", "--importance", "0.5", "1");
  expect(exitCode).toBe(0);
  const lines = stdout.trimEnd().split("\n");
  expect(lines[0]).toMatch(/^ *S {2}importance {2} *loss {2} *\|W\|² {2} *D\* {2}represented {2}dimensionality$/);
  expect(lines.slice(1).map((line) => line.trim().split(/ {2,}/).slice(0, 2))).toEqual([
    ["0", "0.5^i"],
    ["0.9", "0.5^i"],
    ["0", "1"],
    ["0.9", "1"],
  ]);
});

test("toy writes a page and pictures, says so, and repeats with the same seed", async () => {
  const folder = await temporaryFolder();
  const commandLine = (name: string): string[] => [
    ...["toy", "superposition", ...short, "--sparsity", "0", "0.9", "--seed", "7"],
    ...["--html", join(folder, `${name}.html`), "--svg", join(folder, name, "pictures")],
  ];
  const { exitCode, stdout } = await runCli(...commandLine("a"));
  expect(exitCode).toBe(0);
  expect(stdout).toContain(`wrote ${join(folder, "a.html")}\n`);
  const html = await readFile(join(folder, "a.html"), "utf8");
  expect(html).toContain("5 features in 2 dimensions");
  expect(html).toContain("Content-Security-Policy");
  expect((await readdir(join(folder, "a", "pictures"))).sort()).toEqual([
    "dimensions-per-feature.svg",
    "feature-dimensionality.svg",
    "legend.svg",
    "model-0-sparsity-0.svg",
    "model-1-sparsity-0.9.svg",
  ]);
  await runCli(...commandLine("b"));
  expect(await readFile(join(folder, "b.html"), "utf8")).toBe(html);
});

test("toy --json prints one object with every weight and measure, and nothing else", async () => {
  const folder = await temporaryFolder();
  const svg = join(folder, "pictures");
  const { stdout, stderr } = await runCli("toy", ...short, "--sparsity", "0.5", "--linear", "--json", "--svg", svg);
  const { models } = JSON.parse(stdout) as { models: Record<string, unknown>[] };
  expect(stdout.trimEnd()).not.toContain("\n");
  expect(stderr).toContain(`wrote ${join(svg, "legend.svg")}`);
  expect(models).toHaveLength(1);
  expect(models[0]).toMatchObject({ features: 5, dimensions: 2, output: "linear", sparsity: 0.5 });
  for (const [name, length] of Object.entries({
    weights: 10,
    bias: 5,
    norms: 5,
    dimensionality: 5,
    interference: 25,
  })) {
    expect(models[0]![name]).toHaveLength(length);
  }
});

test("toy writes page and pictures although nobody reads what is printed, and checks first that it can", async () => {
  const folder = await temporaryFolder();
  const [html, svg] = [join(folder, "toy.html"), join(folder, "pictures")];
  const commandLine = ["toy", ...short, "--sparsity", "0.5", "--json", "--svg", svg];
  expect(await runCliUnread(...commandLine, "--html", html)).toMatchObject({ exitCode: 0 });
  expect(await readFile(html, "utf8")).toContain("</html>");
  expect(await readdir(svg)).toContain("legend.svg");
  const nowhere = join(folder, "nodir", "toy.html");
  expect(await runCli(...commandLine, "--html", nowhere)).toMatchObject({
    exitCode: 1,
    stdout: "",
    stderr: `monosem: cannot write ${nowhere}: the folder ${join(folder, "nodir")} does not exist\n`,
  });
  await writeFile(join(folder, "file"), "");
  const blocked = await runCli("toy", ...short, "--sparsity", "0.5", "--svg", join(folder, "file"));
  expect(blocked.stderr).toMatch(/^monosem: cannot make the folder .*file: .*\n$/);
});

test("toy phases prints theory and trained models side by side", async () => {
  const folder = await temporaryFolder();
  const html = join(folder, "phases.html");
  const { exitCode, stdout } = await runCli("toy", "phases", ...short, "--points", "3", "--html", html);
  expect(exitCode).toBe(0);
  const lines = stdout.split("\n");
  expect(lines[0]).toBe("density  theory  trained");
  expect(lines[1]).toMatch(/^ {2}1\.000 {2}··# {5}[·x#]{3}$/);
  expect(lines[3]).toMatch(/^ {2}0\.010 {2}xxx {5}[·x#]{3}$/);
  expect(stdout).toMatch(/agree at \d+% of the points\nwrote /);
  expect(await readFile(html, "utf8")).toContain("Superposition as a phase change");
  const { stdout: json } = await runCli("toy", "phases", ...short, "--points", "3", "--dimensions", "2", "--json");
  const diagram = JSON.parse(json) as Record<"theory" | "theoreticalLosses" | "trained", unknown[][]>;
  expect(diagram).toMatchObject({ dimensions: 2, densities: [1, expect.closeTo(0.1, 12), 0.01] });
  expect(diagram.theory[2]![0]).toBe("superposition");
  expect(diagram.theoreticalLosses[2]![0]).toBeCloseTo((1.1 * 0.01 ** 2) / 6, 12);
  expect(Object.keys(diagram.trained[2]![0]!)).toEqual(["phase", "norm", "superposition", "loss"]);
});

test("values that cannot be meant are refused before anything is trained", async () => {
  for (const [commandLine, message] of [
    [["toy", "--sparsity", "1"], /^monosem: .*'--sparsity <S\.\.\.>'.*expected a number from 0 to less than 1\.\n$/],
    [["toy", "phases", "--dimensions", "3"], /^monosem: .*expected 1 or 2\.\n$/],
    [
      ["toy", "phases", "--points", "1"],
      /^monosem: trainPhaseDiagram: points must be an integer of at least 2, found 1\n$/,
    ],
    [["toy", "--lr", "0"], /^monosem: trainSuperposition: learningRate must be positive, found 0\n$/],
  ] as const) {
    const { exitCode, stdout, stderr } = await runCli(...commandLine);
    expect(stderr).toMatch(message);
    expect(stdout).toBe("");
    expect(exitCode).toBe(1);
  }
});

test.each([
  ["superposition", /weights, biases, losses/],
  ["phases", /at each point, phase and loss in theory/],
])("toy %s --help says what it does, what --json holds, and shows examples", async (command, jsonContent) => {
  const { exitCode, stdout } = await runCli("toy", command, "--help");
  expect(exitCode).toBe(0);
  expect(stdout).toContain(`Usage: monosem toy ${command} [options]`);
  expect(stdout.slice(stdout.indexOf("--json")).replaceAll(/\s+/g, " ")).toMatch(jsonContent);
  expect(stdout).toMatch(new RegExp(`Examples:\n  monosem toy ${command}`));
});
