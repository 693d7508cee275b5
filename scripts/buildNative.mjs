// `npm run build:native`: builds the addon into build/Release, with CMake where there is one, else with node-gyp (make).
import { spawnSync } from "node:child_process";
import { createRequire } from "node:module";
import { availableParallelism } from "node:os";
import { fileURLToPath } from "node:url";
import { nodeHeadersDirectory } from "./nodeHeaders.mjs";

const root = fileURLToPath(new URL("..", import.meta.url));
const require = createRequire(import.meta.url);

function has(program) {
  return spawnSync(program, ["--version"], { stdio: "ignore" }).status === 0;
}

function run(script, args, environment = {}) {
  const { status } = spawnSync(process.execPath, [require.resolve(script), ...args], {
    cwd: root,
    stdio: "inherit",
    env: { ...process.env, ...environment },
  });
  if (status !== 0) process.exit(status ?? 1);
}

function refuse(message) {
  console.error(`monosem: ${message}`);
  process.exit(1);
}

if (process.platform !== "win32") {
  const compilers = [process.env.CXX, "c++", "g++", "clang++"].filter((name) => name !== undefined && name !== "");
  if (!compilers.some(has)) {
    refuse(
      "no C++ compiler was found. Install g++ (or clang++) and either cmake or make, then run `npm run build:native`.",
    );
  }
}
const parallel = String(availableParallelism());
if (has("cmake") && (has("ninja") || has("make") || process.platform === "win32")) {
  // Apart: `compile` configures only what has never been, whatever the environment says by now and which compilers came.
  run("cmake-js/bin/cmake-js", ["configure"]);
  run("cmake-js/bin/cmake-js", ["compile", "--parallel", parallel]);
} else {
  if (process.platform !== "win32" && !has("make")) {
    refuse(
      "neither CMake (with ninja or make) nor make was found. Install cmake or make, then run `npm run build:native`.",
    );
  }
  const headers = nodeHeadersDirectory();
  run(
    "node-gyp/bin/node-gyp.js",
    ["rebuild", "--jobs", parallel],
    headers === undefined ? {} : { npm_config_nodedir: headers },
  );
}
