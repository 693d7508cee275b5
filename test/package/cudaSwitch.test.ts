/** Whether a build has the CUDA library in it: by default where there is nvcc, else as the environment says. */
import { execFileSync, spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, onTestFinished, test } from "vitest";

const repository = fileURLToPath(new URL("../..", import.meta.url));
const has = (program: string): boolean => spawnSync(program, ["--version"], { stdio: "ignore" }).status === 0;

test.skipIf(!has("cmake") || !has("nvcc"))(
  "MONOSEM_CUDA=OFF in the environment leaves the CUDA library out, and the next build decides anew",
  () => {
    const folder = mkdtempSync(join(tmpdir(), "monosem-cuda-switch-"));
    onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
    /** Through cmake-js, as `npm install` does it. */
    const builds = (value: string | undefined): boolean => {
      const { MONOSEM_CUDA: _, ...rest } = process.env;
      const env = value === undefined ? rest : { ...rest, MONOSEM_CUDA: value };
      execFileSync("npx", ["cmake-js", "configure", "--out", folder], { cwd: repository, env, stdio: "ignore" });
      const targets = execFileSync("cmake", ["--build", folder, "--target", "help"], { encoding: "utf8" });
      return /\bmonosem_cuda\b/.test(targets);
    };
    expect([builds("OFF"), builds(undefined), builds("OFF"), builds("ON")]).toEqual([false, true, false, true]);
  },
);
