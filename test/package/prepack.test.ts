import { spawnSync } from "node:child_process";
import { cpSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, onTestFinished, test } from "vitest";

const repository = fileURLToPath(new URL("../..", import.meta.url));

test("a package without an addon for this platform is not packed, with what to do", () => {
  const folder = mkdtempSync(join(tmpdir(), "monosem-prepack-"));
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
  for (const part of ["package.json", "scripts"])
    cpSync(join(repository, part), join(folder, part), { recursive: true });
  const pack = () => spawnSync("npm", ["pack"], { cwd: folder, encoding: "utf8" });
  const addons = join(folder, "prebuilds", `${process.platform}-${process.arch}`);
  for (const prepare of [() => {}, () => mkdirSync(addons, { recursive: true })]) {
    prepare();
    const { status, stderr } = pack();
    expect(status).not.toBe(0);
    expect(stderr).toContain(`prebuilds/${process.platform}-${process.arch}/ holds no addon`);
    expect(stderr).toContain("npm run prebuild && npm pack");
  }
  writeFileSync(join(addons, "monosem.node"), "");
  const { status, stderr } = spawnSync(process.execPath, ["scripts/prepack.mjs"], { cwd: folder, encoding: "utf8" });
  expect([status, stderr]).toEqual([0, ""]);
});
