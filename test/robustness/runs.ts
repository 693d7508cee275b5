import { type ChildProcess, spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const program = fileURLToPath(new URL("trainingRun.mjs", import.meta.url));

/** A run of trainingRun.mjs; `lines` grows as it prints. */
export interface Run {
  readonly process: ChildProcess;
  readonly lines: string[];
  readonly ready: Promise<void>;
  readonly ended: Promise<{ readonly exitCode: number | null; readonly stderr: string }>;
}

export function startRun(output: string, config: object, environment: Readonly<Record<string, string>> = {}): Run {
  const child = spawn(process.execPath, [program, output, JSON.stringify(config)], {
    stdio: ["ignore", "pipe", "pipe"],
    env: { ...process.env, ...environment },
  });
  const lines: string[] = [];
  let text = "";
  let stderr = "";
  let becomeReady = (): void => undefined;
  const ready = new Promise<void>((resolve) => {
    becomeReady = resolve;
  });
  child.stderr.on("data", (data) => {
    stderr += String(data);
  });
  child.stdout.on("data", (data) => {
    text += String(data);
    const parts = text.split("\n");
    text = parts.pop()!;
    lines.push(...parts);
    if (lines.length > 0) becomeReady();
  });
  const ended = new Promise<{ exitCode: number | null; stderr: string }>((resolve) => {
    child.on("close", (exitCode) => {
      becomeReady();
      resolve({ exitCode, stderr });
    });
  });
  return { process: child, lines, ready, ended };
}

/** sha256 of every file under a folder that a finished run leaves, by path. */
export function digest(folder: string): Record<string, string> {
  const digests: Record<string, string> = {};
  for (const path of readdirSync(folder, { recursive: true, encoding: "utf8" }).sort()) {
    if (!statSync(join(folder, path)).isFile()) continue;
    digests[path] = createHash("sha256")
      .update(readFileSync(join(folder, path)))
      .digest("hex");
  }
  return digests;
}
