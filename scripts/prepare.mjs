// npm's `prepare`: in a clone, `npm install` builds the addon and the library; `npm pack` builds the library afresh and
// takes the addons that `npm run prebuild` left in prebuilds/. The first `npx monosem` in a clone prepares it once more, for
// which nothing is to be done.
import { spawnSync } from "node:child_process";
import { existsSync, rmSync } from "node:fs";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("..", import.meta.url));
const packing = ["pack", "publish"].includes(process.env.npm_command ?? "");

if (process.env.npm_command === "exec" && existsSync(new URL("../dist/cli/main.js", import.meta.url))) process.exit(0);

function npmRun(script) {
  const { status } = spawnSync("npm", ["run", "--silent", script], {
    cwd: root,
    stdio: "inherit",
    shell: process.platform === "win32",
  });
  if (status !== 0) process.exit(status ?? 1);
}

if (packing) rmSync(new URL("../dist", import.meta.url), { recursive: true, force: true });
else npmRun("build:native");
npmRun("build:ts");
