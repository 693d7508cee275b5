import { execFileSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { runCli } from "./runCli.js";

const commands = [
  "train",
  "eval",
  "bench-sae",
  "audit",
  "encode",
  "features",
  "interpret",
  "generate",
  "attribute",
  "probe",
  "patch",
  "steer",
  "compare",
  "info",
  "convert",
  "download",
  "toy",
];

test("help lists every command, and goes to the standard output", async () => {
  const { exitCode, stdout, stderr } = await runCli("--help");
  expect(exitCode).toBe(0);
  expect(stderr).toBe("");
  for (const command of commands) expect(stdout).toMatch(new RegExp(`^  ${command} `, "m"));
});

test.each(commands)("%s --help says what it does and shows examples", async (command) => {
  const { exitCode, stdout } = await runCli(command, "--help");
  expect(exitCode).toBe(0);
  expect(stdout).toContain(`Usage: monosem ${command} `);
  expect(stdout).toMatch(new RegExp(`Examples:\n  monosem ${command}`));
  expect(stdout).not.toMatch(/default: (false|\[\])/);
});

test("a model's tokenizer may lie elsewhere, in every command that takes a model", async () => {
  const taking: string[] = [];
  for (const command of [...commands.filter((name) => name !== "attribute"), "attribute lime", "attribute shap"]) {
    const { stdout } = await runCli(...command.split(" "), "--help");
    if (!stdout.includes("--model <")) continue;
    taking.push(command);
    expect(stdout, command).toContain("--tokenizer <path>");
  }
  expect(taking.length).toBeGreaterThanOrEqual(10);
});

test("help tells what numbers mean where that is not obvious", async () => {
  const help = async (command: string): Promise<string> =>
    (await runCli(command, "--help")).stdout.replaceAll(/\s+/g, " ");
  expect(await help("eval")).toContain("stop after this many tokens of the corpus, rounded up to whole contexts");
  expect(await help("encode")).toContain("above 0 unless the SAE is of an architecture with negative latents");
  expect(await help("features")).toContain("each latent's most negative examples follow its largest ones");
});

test("mistakes in the command line are one line with exit code 1", async () => {
  for (const [commandLine, message] of [
    [["trian", "x"], /^monosem: unknown command 'trian' \(Did you mean train\?\)\n$/],
    [["train"], /^monosem: missing required argument 'config'\n$/],
    [["info", "--jsom"], /^monosem: unknown option '--jsom' \(Did you mean --json\?\)\n$/],
    [["generate", "--model", "m", "--promt", "x"], /^monosem: unknown option '--promt' \(Did you mean --prompt\?\)\n$/],
    [["attribute", "shap", "--modle", "m"], /^monosem: unknown option '--modle' \(Did you mean --model\?\)\n$/],
    [["attribute", "shap", "--model", "m"], /^monosem: required option '--prompt <text>' not specified\n$/],
    [["encode", "--sae", "x"], /^monosem: required option '--activations <file>' not specified\n$/],
    [["info", "--threads", "two"], /^monosem: .*'--threads <n>'.*expected a positive integer\.\n$/],
    [["info", "--device", "gpu"], /^monosem: .*'--device <name>'.*expected "auto", "cpu" or "cuda:N"\.\n$/],
    [
      ["encode", "--precision", "half"],
      /^monosem: .*'--precision <name>'.*Allowed choices are float32, tf32, bfloat16\.\n$/,
    ],
    [["info", "nowhere\u001b[31m"], /^monosem: the folder nowhere\\u\{1b\}\[31m does not exist\n$/],
    [["toy", "models"], /^monosem: unknown command 'models': .* superposition, phases, synthetic, recovery\n$/],
  ] as const) {
    const { exitCode, stdout, stderr } = await runCli(...commandLine);
    expect(stderr).toMatch(message);
    expect(stdout).toBe("");
    expect(exitCode).toBe(1);
  }
});

test("a stack is shown only with --verbose", async () => {
  const quiet = await runCli("info", "nowhere");
  expect(quiet.stderr.split("\n")).toHaveLength(2);
  const verbose = await runCli("info", "nowhere", "--verbose");
  expect(verbose.exitCode).toBe(1);
  expect(verbose.stderr.startsWith(quiet.stderr)).toBe(true);
  expect(verbose.stderr).toContain("\n    at ");
});

test.skipIf(process.platform === "win32")("a build is executable, as npx wants it, and does not build again", () => {
  const root = new URL("../../", import.meta.url);
  const command = fileURLToPath(new URL("dist/cli/main.js", root));
  expect(execFileSync(command, ["--version"], { encoding: "utf8" })).toMatch(/^\d+\.\d+\.\d+\n$/);
  const prepare = [fileURLToPath(new URL("scripts/prepare.mjs", root))];
  const env = { ...process.env, npm_command: "exec", PATH: "" }; // there is no npm that it could run
  expect(execFileSync(process.execPath, prepare, { env, encoding: "utf8" })).toBe("");
});
