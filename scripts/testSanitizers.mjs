// `npm run test:sanitizers [-- quick] [address|thread]`: the native tests, and the addon in Node.js, built for AddressSanitizer
// with LeakSanitizer and UndefinedBehaviorSanitizer, and again for ThreadSanitizer. In Node.js the sanitizer's runtime
// is preloaded, because Node.js itself is not built with it. Quick: the kernels on the best instruction set
// only, and a part of the emulated CUDA kernels.
import { execFileSync, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { readdirSync, readFileSync, rmSync } from "node:fs";
import { availableParallelism } from "node:os";
import { fileURLToPath } from "node:url";

const quick = process.argv[2] === "quick";
const slice = quick ? { KERNEL_TESTS_ON: "best" } : {};
const root = fileURLToPath(new URL("..", import.meta.url));

function fail(message) {
  console.error(message);
  process.exit(1);
}

function run(program, args, environment = {}) {
  console.log(`$ ${program} ${args.join(" ")}`);
  const env = { ...process.env, ...environment };
  const { status, signal } = spawnSync(program, args, { cwd: root, stdio: "inherit", env });
  if (status !== 0) fail(`${program} ended with ${status ?? signal}`);
}

/** The groups of a program of kernel tests, in as many processes as there are cores. A part may be left without a group, which it calls a failure. */
async function runShards(program, args, environment) {
  const count = availableParallelism();
  console.log(`$ ${program} ${args.join(" ")} (in ${count} parts)`);
  const endings = Array.from({ length: count }, async (_, shard) => {
    const env = { ...process.env, ...environment, KERNEL_TESTS_SHARD: `${shard + 1}/${count}` };
    const child = spawn(program, args, { cwd: root, env, stdio: ["ignore", "pipe", "inherit"] });
    let printed = "";
    child.stdout.setEncoding("utf8").on("data", (text) => {
      process.stdout.write(text);
      printed += text;
    });
    const [status, signal] = await once(child, "close");
    return status === 0 || (status === 1 && printed.trim() === "0 passed, 0 failed") ? undefined : (status ?? signal);
  });
  for (const ending of await Promise.all(endings)) if (ending !== undefined) fail(`${program} ended with ${ending}`);
}

/** Builds the addon and the native tests; returns where they are. */
function build(name, flags, programs) {
  // The loader looks for build/Release/*.node below the folder that MONOSEM_PREBUILD names.
  const home = `${root}build/sanitize-${name}`;
  const directory = `${home}/build`;
  run("cmake", [
    ...["-S", ".", "-B", directory, "-DMONOSEM_TESTS=ON", `-DMONOSEM_SANITIZE=${flags}`],
    `-DCMAKE_LIBRARY_OUTPUT_DIRECTORY=${directory}/Release`,
  ]);
  run("cmake", ["--build", directory, "--parallel", "2", "--target", "monosem", ...programs]);
  return { home, programs: programs.map((program) => `${directory}/${program}`) };
}

/** The environment in which Node.js loads the addon in `home` together with the sanitizer's runtimes. */
function preload(home, runtimes) {
  const compiler = process.env.CXX ?? "g++";
  const paths = runtimes.map((name) =>
    execFileSync(compiler, [`-print-file-name=${name}`], { encoding: "utf8" }).trim(),
  );
  return { MONOSEM_PREBUILD: home, LD_PRELOAD: paths.join(" ") };
}

async function testAddresses() {
  const native = ["engine_tests", "kernel_tests", "cuda_tests"];
  const { home, programs } = build("address", "address,undefined", native);
  const undefinedBehaviour = { UBSAN_OPTIONS: "halt_on_error=1:print_stacktrace=1" };
  // Emulated and sanitized kernels are slow: of those, what shows each way to use shared memory, scratch and offsets.
  const emulated = ["decodeGradient", "stepRows", "ties", "selectTop", "softmax"];
  const [engineTests, ...kernelTests] = programs;
  run(engineTests, [], undefinedBehaviour);
  for (const program of kernelTests) {
    const groups = quick && program.endsWith("cuda_tests") ? emulated : [];
    await runShards(program, groups, { ...undefinedBehaviour, ...slice });
  }
  const environment = { ...undefinedBehaviour, ...preload(home, ["libasan.so", "libubsan.so"]) };
  // Leaks in a plain program only: Node.js itself leaves much behind when the test runner ends its processes.
  run("node", ["test/native/leaks.mjs"], {
    ...environment,
    ASAN_OPTIONS: "detect_leaks=1",
    LSAN_OPTIONS: `suppressions=${root}test/native/leaks.supp:print_suppressions=0`,
  });
  // A test asks for more memory than there is, which JavaScript then says.
  const refusesLargeBlocks = "allocator_may_return_null=1";
  run("npx", ["vitest", "run", "test/engine"], {
    ...environment,
    ASAN_OPTIONS: `detect_leaks=0:${refusesLargeBlocks}`,
  });
}

/** Whether the innermost frame of one of a report's accesses, but for the runtime's interceptors, is in the addon. */
function accessIsOurs(report) {
  return report
    .split(/\n\s*\n/)
    .filter((part) => /^\s*(WARNING|Previous|Read|Write|Atomic)/.test(part))
    .some((part) =>
      part
        .split("\n")
        .filter((line) => /^\s*#\d+ /.test(line) && !line.includes("(libtsan"))[0]
        ?.includes("monosem"),
    );
}

async function testThreads() {
  const { home, programs } = build("thread", "thread", ["engine_tests", "kernel_tests"]);
  const [engineTests, kernelTests] = programs;
  run(engineTests, [], { TSAN_OPTIONS: "halt_on_error=1" });
  // One group for each way in which kernels share work among threads: the rest takes many minutes and adds none.
  const groups = ["thread pool", "encode ties", "stepRows", ...(quick ? ["linear: bf16"] : ["linear", "attention"])];
  await runShards(kernelTests, groups, { TSAN_OPTIONS: "halt_on_error=1", ...slice });

  // The sanitizer does not see how Node.js and V8 synchronise their own threads, and reports them: what counts are
  // reports of an access that our code makes.
  const prefix = "races";
  const reportsOf = () => readdirSync(home).filter((file) => file.startsWith(`${prefix}.`));
  for (const file of reportsOf()) rmSync(`${home}/${file}`);
  run("node", ["test/native/threads.mjs"], {
    ...preload(home, ["libtsan.so"]),
    TSAN_OPTIONS: `exitcode=0:log_path=${home}/${prefix}`,
  });
  const reports = reportsOf().flatMap((file) => readFileSync(`${home}/${file}`, "utf8").split(/^={10,}$/m));
  const ours = reports.filter(accessIsOurs);
  if (ours.length > 0) fail(`${ours.join("\n")}\nThreadSanitizer reports ${ours.length} races`);
}

const tests = { address: testAddresses, thread: testThreads };
const wanted = process.argv.slice(quick ? 3 : 2);
for (const name of wanted.length > 0 ? wanted : Object.keys(tests)) {
  if (tests[name] === undefined) fail(`no sanitizer "${name}"; there are ${Object.keys(tests).join(", ")}`);
  await tests[name]();
}
console.log("no sanitizer has complained");
