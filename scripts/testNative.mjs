// `npm run test:native [-- PART]`: builds and runs the native test programs, without Node.js in between. With PART: only
// the kernel groups whose name contains it. Ends with "N passed, N failed" over all programs.
import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("..", import.meta.url));
const build = "build/native-tests";

function run(program, args, stdio = "inherit") {
  const result = spawnSync(program, args, { cwd: root, stdio, encoding: "utf8" });
  if (result.error !== undefined) throw result.error;
  return result;
}

for (const args of [
  ["-S", ".", "-B", build, "-DMONOSEM_ADDON=OFF", "-DMONOSEM_TESTS=ON", "-DCMAKE_BUILD_TYPE=Release"],
  ["--build", build, "--parallel", "2"],
]) {
  const { status } = run("cmake", args);
  if (status !== 0) process.exit(status ?? 1);
}

let passed = 0;
let failed = 0;
for (const [program, args] of [
  ["engine_tests", []],
  ["kernel_tests", process.argv.slice(2)],
]) {
  const { stdout, status } = run(`${root}/${build}/${program}`, args, ["ignore", "pipe", "inherit"]);
  process.stdout.write(stdout);
  const counts = /(\d+) passed, (\d+) failed\s*$/.exec(stdout);
  passed += Number(counts?.[1] ?? 0);
  failed += Number(counts?.[2] ?? 0);
  if (counts === null || (status !== 0 && counts[2] === "0")) {
    console.log(`${program} ended with ${status}`);
    failed++;
  }
}
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed > 0 ? 1 : 0);
