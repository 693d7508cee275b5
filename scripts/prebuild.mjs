// `npm run prebuild`: the addon for this platform into prebuilds/<platform>-<arch>/, where the package's users get it.
import { spawnSync } from "node:child_process";
import { readdirSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { availableParallelism } from "node:os";
import { fileURLToPath } from "node:url";
import { nodeHeadersDirectory } from "./nodeHeaders.mjs";

const root = fileURLToPath(new URL("..", import.meta.url));
const target = new URL(`../prebuilds/${process.platform}-${process.arch}/`, import.meta.url);
rmSync(target, { recursive: true, force: true });

const headers = nodeHeadersDirectory();
const prebuildify = createRequire(import.meta.url).resolve("prebuildify/bin.js");
const { status } = spawnSync(
  process.execPath,
  [prebuildify, "--napi", "--strip", "--tag-libc", "--tag-armv", "--name", "monosem"],
  {
    cwd: root,
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
