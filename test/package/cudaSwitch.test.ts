/**
 * Whether a build has the CUDA library in it, and for which GPUs: by default where there is nvcc, else as the environment
 * says, each time.
 */
import { execFileSync, spawnSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, onTestFinished, test } from "vitest";

const repository = fileURLToPath(new URL("../..", import.meta.url));
const has = (program: string): boolean => spawnSync(program, ["--version"], { stdio: "ignore" }).status === 0;

test.skipIf(!has("cmake") || !has("nvcc"))(
  "MONOSEM_CUDA=OFF in the environment leaves the CUDA library out, and the next build decides anew",
  () => {
    const folder = mkdtempSync(join(tmpdir(), "monosem-cuda-switch-"));
    onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
    /** Through cmake-js, as `npm install` does it: what is printed. */
    const configure = (variables: Readonly<Record<string, string>>): string => {
      const { MONOSEM_CUDA: _switch, MONOSEM_CUDA_ARCHITECTURES: _architectures, ...rest } = process.env;
      const options = { cwd: repository, env: { ...rest, ...variables }, encoding: "utf8" } as const;
      return execFileSync("npx", ["cmake-js", "configure", "--out", folder], { ...options, stdio: "pipe" });
    };
    const builds = (variables: Readonly<Record<string, string>>): boolean => {
      configure(variables);
      const targets = execFileSync("cmake", ["--build", folder, "--target", "help"], { encoding: "utf8" });
      return /\bmonosem_cuda\b/.test(targets);
    };
    expect([builds({ MONOSEM_CUDA: "OFF" }), builds({}), builds({ MONOSEM_CUDA: "OFF" })]).toEqual([
      false,
      true,
      false,
    ]);
    expect(configure({ MONOSEM_CUDA: "ON", MONOSEM_CUDA_ARCHITECTURES: "86-real" })).toContain("for: 86-real");
    expect(configure({ MONOSEM_CUDA_ARCHITECTURES: "89-real" })).toContain("for: 89-real");
    expect(builds({})).toBe(true);
    expect(() => configure({ MONOSEM_CUDA: "maybe" })).toThrow(/MONOSEM_CUDA in the environment is ON or OFF, not/);
    const library = join(folder, "Release/libmonosem_cuda.so");
    mkdirSync(dirname(library), { recursive: true });
    writeFileSync(library, "of an earlier build");
    builds({});
    expect(existsSync(library)).toBe(true);
    builds({ MONOSEM_CUDA: "OFF" });
    expect(existsSync(library)).toBe(false);
  },
);
