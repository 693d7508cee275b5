/** scripts/gpu-verify, with programs and tools that only say what such would say. */
import { spawnSync } from "node:child_process";
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, describe, expect, test } from "vitest";

const script = fileURLToPath(new URL("../../scripts/gpu-verify", import.meta.url));
// The stub of Node.js builds nothing.
const isBuilt = existsSync(fileURLToPath(new URL("../../build/bench/trainingParity.js", import.meta.url)));
const systemPath = "/usr/local/bin:/usr/bin:/bin";
const hasTools = spawnSync("bash", ["-c", "command -v timeout && python3 --version"]).status === 0;

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "monosem-"));
  for (const name of ["tools", "programs", "results"]) mkdirSync(join(folder, name));
  program("tools/nvidia-smi", "echo 'Some \"GPU\"'");
  program("tools/node", "exit 0");
  program("tools/compute-sanitizer", 'echo "$2"; shift 4; exec "$@"');
  program("programs/gpu_tests", 'echo "x products: relative error 2.00e-08, allowed 1e-05"; echo "7 passed, 0 failed"');
  program("programs/bench_gpu", `echo '{"case":"copy","milliseconds":1,"bytes":4e9}'; echo "not JSON"`);
  writeFileSync(join(folder, "programs/libmonosem_cuda.so"), "a library");
});
afterEach(() => rmSync(folder, { recursive: true }));

function program(name: string, text: string): void {
  writeFileSync(join(folder, name), `#!/bin/bash\n${text}\n`);
  chmodSync(join(folder, name), 0o755);
}

function verify(...options: string[]) {
  const results = join(folder, "results");
  const run = spawnSync("bash", [script, "--build", join(folder, "programs"), "--out", results, ...options], {
    encoding: "utf8",
    env: { PATH: `${join(folder, "tools")}:${systemPath}` },
  });
  const lines = readFileSync(join(results, "lines.jsonl"), "utf8")
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => JSON.parse(line) as Record<string, unknown>);
  const steps = Object.fromEntries(
    lines.filter((line) => line.case === "verify").map(({ step, status }) => [step, status]),
  );
  return { ...run, lines, steps };
}

describe.skipIf(!hasTools)("scripts/gpu-verify", () => {
  test("runs every part with programs that were built before, and leaves a table", () => {
    const { status, steps, lines, stdout } = verify("--skip-peers");
    const passed = [
      "parity-float32",
      "parity-tf32",
      "parity-bfloat16",
      "memcheck",
      "racecheck",
      "initcheck",
      "benchmark",
    ];
    expect(steps).toMatchObject(Object.fromEntries(passed.map((name) => [name, "passed"])));
    const training = isBuilt ? "passed" : "not run";
    expect(steps).toMatchObject({ build: "not run", peers: "not run", training });
    expect(lines).toContainEqual({
      case: "parity",
      precision: "tf32",
      passed: 7,
      failed: 0,
      error: 2e-8,
      allowed: 1e-5,
    });
    expect(lines).toContainEqual({ case: "copy", milliseconds: 1, bytes: 4e9 });
    expect(lines).toContainEqual(expect.objectContaining({ case: "about", gpu: 'Some "GPU"' }));
    expect(stdout).toContain("copy 4000 GB/s");
    expect(readFileSync(join(folder, "results/gpu.md"), "utf8")).toContain("| float32 | 7 passed, 0 failed |");
    expect(status).toBe(0);
  });

  test("goes on after a failure, and fails", () => {
    program(
      "programs/gpu_tests",
      'echo "x products: relative error 1.00e-01, allowed 1e-03"; echo "6 passed, 1 failed"; [[ $KERNEL_TESTS_ON != tf32 ]]',
    );
    program("programs/bench_gpu", "kill -SEGV $$");
    const { status, steps, lines, stdout } = verify("--skip-peers", "--skip-sanitizer");
    expect(steps).toMatchObject({ "parity-float32": "passed", "parity-tf32": "failed", benchmark: "failed" });
    expect(steps).toMatchObject({ "parity-bfloat16": "passed", sanitizer: "not run" });
    expect(lines).toContainEqual(expect.objectContaining({ case: "parity", precision: "tf32", failed: 1 }));
    expect(stdout).toContain("| benchmark | failed: exit status 139 |");
    expect(status).toBe(1);
  });

  test("fails where there is no GPU, and invents nothing", () => {
    program("tools/nvidia-smi", "exit 9");
    const { status, steps, stdout } = verify();
    expect(new Set(Object.values(steps))).toEqual(new Set(["not run"]));
    expect(stdout).toContain("no GPU here");
    expect(stdout).not.toContain("passed");
    expect(status).toBe(1);
  });

  test("refuses options that it does not know", () => {
    const { status, stderr } = spawnSync("bash", [script, "--fast"], { encoding: "utf8" });
    expect(status).toBe(2);
    expect(stderr).toMatch(/^scripts\/gpu-verify \[--quick\]/);
  });
});
