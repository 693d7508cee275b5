// `npm run prebuild`: the addon for this platform into prebuilds/<platform>-<arch>/, where the package's users get it.
// Built in a folder of its own, because node-gyp wipes the build folder that it works in.
//
// npm would run this script by itself before a script called "build", and one called "prebuild:X" before "build:X": so
// there are none.
import { spawnSync } from "node:child_process";
import { cpSync, mkdirSync, readdirSync, rmSync, symlinkSync } from "node:fs";
import { createRequire } from "node:module";
import { availableParallelism } from "node:os";
import { fileURLToPath } from "node:url";
import { nodeHeadersDirectory } from "./nodeHeaders.mjs";

const root = fileURLToPath(new URL("..", import.meta.url));
const target = new URL(`../prebuilds/${process.platform}-${process.arch}/`, import.meta.url);
rmSync(target, { recursive: true, force: true });

const stage = fileURLToPath(new URL("../build/prebuild", import.meta.url));
rmSync(stage, { recursive: true, force: true });
mkdirSync(stage, { recursive: true });
for (const part of ["package.json", "binding.gyp", "native"]) {
  cpSync(`${root}${part}`, `${stage}/${part}`, { recursive: true });
}
symlinkSync(`${root}node_modules`, `${stage}/node_modules`, "junction");

const headers = nodeHeadersDirectory();
const prebuildify = createRequire(import.meta.url).resolve("prebuildify/bin.js");
const { status } = spawnSync(
  process.execPath,
  [prebuildify, "--napi", "--strip", "--tag-libc", "--tag-armv", "--name", "monosem", "--out", root],
  {
    cwd: stage,
    stdio: "inherit",
    env: {
      ...process.env,
      JOBS: String(availableParallelism()),
      ...(headers === undefined ? {} : { npm_config_nodedir: headers }),
    },
  },
);
if (status !== 0) process.exit(status ?? 1);
console.log(`${fileURLToPath(target)}: ${readdirSync(target).join(", ")}`);
