import { type ChildProcess, type ChildProcessByStdio, spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Readable } from "node:stream";
import { fileURLToPath } from "node:url";
import { onTestFinished } from "vitest";

const entry = fileURLToPath(new URL("../../dist/cli/main.js", import.meta.url));

export interface CliResult {
  readonly exitCode: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** The built command line in a process of its own, not on a terminal. */
export function startCli(...commandLine: string[]): { process: ChildProcess; result: Promise<CliResult> } {
  return startNode([], commandLine);
}

function startNode(
  options: readonly string[],
  commandLine: readonly string[],
): { process: ChildProcess; result: Promise<CliResult> } {
  if (!existsSync(entry)) throw new Error(`${entry} is missing: build the TypeScript first (npm run build:ts)`);
  return collected(spawn(process.execPath, [...options, entry, ...commandLine], { stdio: ["ignore", "pipe", "pipe"] }));
}

function collected(child: ChildProcessByStdio<null, Readable, Readable>): {
  process: ChildProcess;
  result: Promise<CliResult>;
} {
  let stdout = "";
  let stderr = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    stdout += text;
  });
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    stderr += text;
  });
  const result = new Promise<CliResult>((resolve, reject) => {
    child.on("error", reject);
    child.on("close", (exitCode) => resolve({ exitCode, stdout, stderr }));
  });
  return { process: child, result };
}

export function runCli(...commandLine: string[]): Promise<CliResult> {
  return startCli(...commandLine).result;
}

/** The command line that knows "abstopk", an architecture whose latents may be negative. */
export function runCliWithAbsTopk(...commandLine: string[]): Promise<CliResult> {
  return startNode(["--import", new URL("absTopk.mjs", import.meta.url).href], commandLine).result;
}

/** The command line where no file can grow beyond 512 bytes, as on a disk that is full. */
export function runCliWithSmallFiles(...commandLine: string[]): Promise<CliResult> {
  return runInShell('ulimit -f 1; exec "$@"', ...commandLine);
}

/** The command line as "$@" of a shell's script. */
export function runInShell(script: string, ...commandLine: string[]): Promise<CliResult> {
  const args = ["-c", script, "sh", process.execPath, entry, ...commandLine];
  return collected(spawn("sh", args, { stdio: ["ignore", "pipe", "pipe"] })).result;
}

/** The command line where whoever reads its output has gone before anything is printed, as at last in `| head`. */
export function runCliUnread(...commandLine: string[]): Promise<CliResult> {
  const { process: child, result } = startCli(...commandLine);
  child.stdout!.destroy();
  return result;
}

/** The command line where whoever reads what it says of its progress has gone. */
export function runCliUnheard(...commandLine: string[]): Promise<CliResult> {
  const { process: child, result } = startCli(...commandLine);
  child.stderr!.destroy();
  return result;
}

/** A folder that is gone after the test. */
export async function temporaryFolder(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "monosem-cli-"));
  onTestFinished(() => rm(folder, { recursive: true, force: true }));
  return folder;
}
