// Builds and runs native test programs, without Node.js in between; ends with "N passed, N failed" over all of them.
//
//   npm run test:native [-- PART]   engine_tests, and kernel_tests on every instruction set of this machine
//   npm run test:cuda [-- PART]     cuda_tests: the kernels of the CUDA library, emulated on the CPU
//
// With PART: only the kernel groups whose name contains it.
import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("..", import.meta.url));
const build = "build/native-tests";
const [programs, parts] = [process.argv[2].split(","), process.argv.slice(3)];

function run(program, args, stdio = "inherit") {
  const result = spawnSync(program, args, { cwd: root, stdio, encoding: "utf8" });
  if (result.error !== undefined) throw result.error;
  return result;
}

for (const args of [
  ["-S", ".", "-B", build, "-DMONOSEM_ADDON=OFF", "-DMONOSEM_TESTS=ON", "-DCMAKE_BUILD_TYPE=Release"],
  ["--build", build, "--parallel", "2", "--target", ...programs],
]) {
  const { status } = run("cmake", args);
  if (status !== 0) process.exit(status ?? 1);
}

let passed = 0;
let failed = 0;
for (const program of programs) {
  const args = program === "engine_tests" ? [] : parts;
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
