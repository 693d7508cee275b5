// Builds and runs native test programs, without Node.js in between; ends with "N passed, N failed" over all of them.
//
//   npm run test:native [-- PART]   engine_tests, and kernel_tests on every instruction set of this machine
//   npm run test:cuda [-- PART]     cuda_tests: the kernels of the CUDA library, emulated on the CPU
//
// With PART: only the kernel groups whose name contains it.
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { availableParallelism } from "node:os";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("..", import.meta.url));
const build = "build/native-tests";
const [programs, parts] = [process.argv[2].split(","), process.argv.slice(3)];

for (const args of [
  ["-S", ".", "-B", build, "-DMONOSEM_ADDON=OFF", "-DMONOSEM_TESTS=ON", "-DCMAKE_BUILD_TYPE=Release"],
  ["--build", build, "--parallel", "2", "--target", ...programs],
]) {
  const { status, error } = spawnSync("cmake", args, { cwd: root, stdio: "inherit" });
  if (error !== undefined) throw error;
  if (status !== 0) process.exit(status ?? 1);
}

// The kernels' groups in as many processes as there are cores: an emulated device keeps one core busy, no more.
const shards = availableParallelism();
const runs = programs.flatMap((program) =>
  /kernel_tests|cuda_tests/.test(program)
    ? Array.from({ length: shards }, (_, shard) => ({ program, args: parts, shard: `${shard + 1}/${shards}` }))
    : [{ program, args: [], shard: "1/1" }],
);
let passed = 0;
let failed = 0;
for (const program of programs) {
  const outcomes = await Promise.all(runs.filter((run) => run.program === program).map(output));
  for (const { stdout, status } of outcomes) {
    process.stdout.write(stdout);
    const counts = /(\d+) passed, (\d+) failed\s*$/.exec(stdout);
    passed += Number(counts?.[1] ?? 0);
    failed += Number(counts?.[2] ?? 0);
    // A shard may be left without a group: nothing passed then is no failure.
    const empty = parts.length > 0 && counts?.[1] === "0";
    if (counts === null || (status !== 0 && counts[2] === "0" && !empty)) {
      console.log(`${program} ended with ${status}`);
      failed++;
    }
  }
}
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed > 0 || passed === 0 ? 1 : 0);

/** What a program prints, and how it ended. */
async function output({ program, args, shard }) {
  const env = { ...process.env, KERNEL_TESTS_SHARD: shard };
  const child = spawn(`${root}/${build}/${program}`, args, { cwd: root, env, stdio: ["ignore", "pipe", "inherit"] });
  let stdout = "";
  for await (const text of child.stdout.setEncoding("utf8")) stdout += text;
  const status = child.exitCode ?? (await once(child, "exit"))[0];
  return { stdout, status };
}
