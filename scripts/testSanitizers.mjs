// `npm run test:sanitizers [-- address|thread]`: the native tests, and the engine's tests through Node.js, with the
// addon built for AddressSanitizer and UndefinedBehaviorSanitizer, and again for ThreadSanitizer. The sanitizer's
// runtime is preloaded, because Node.js itself is not built with it.
import { execFileSync, spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("..", import.meta.url));
const compiler = process.env.CXX ?? "g++";

const sanitizers = {
  address: {
    flags: "address,undefined",
    runtimes: ["libasan.so", "libubsan.so"],
    options: {
      ASAN_OPTIONS: "detect_leaks=0:halt_on_error=1",
      UBSAN_OPTIONS: "halt_on_error=1:print_stacktrace=1",
    },
  },
  thread: { flags: "thread", runtimes: ["libtsan.so"], options: { TSAN_OPTIONS: "halt_on_error=1" } },
};

// Their tests take every path through the queue, the allocator and the boundary.
const suites = ["test/engine"];

function run(program, args, environment = {}) {
  console.log(`$ ${program} ${args.join(" ")}`);
  const { status, signal } = spawnSync(program, args, {
    cwd: root,
    stdio: "inherit",
    env: { ...process.env, ...environment },
  });
  if (status !== 0) {
    console.error(`${program} ended with ${status ?? signal}`);
    process.exit(1);
  }
}

const wanted = process.argv.slice(2);
for (const name of wanted.length > 0 ? wanted : Object.keys(sanitizers)) {
  const sanitizer = sanitizers[name];
  if (sanitizer === undefined) {
    console.error(`no sanitizer "${name}"; there are ${Object.keys(sanitizers).join(", ")}`);
    process.exit(1);
  }
  // The loader looks for build/Release/*.node below the folder that MONOSEM_PREBUILD names.
  const home = `${root}build/sanitize-${name}`;
  const build = `${home}/build`;
  run("cmake", [
    ...["-S", ".", "-B", build, "-DMONOSEM_TESTS=ON", `-DMONOSEM_SANITIZE=${sanitizer.flags}`],
    `-DCMAKE_LIBRARY_OUTPUT_DIRECTORY=${build}/Release`,
  ]);
  run("cmake", ["--build", build, "--parallel", "2"]);
  run(`${build}/engine_tests`, [], sanitizer.options);
  run(`${build}/kernel_tests`, [], sanitizer.options);
  const preload = sanitizer.runtimes.map((runtime) =>
    execFileSync(compiler, [`-print-file-name=${runtime}`], { encoding: "utf8" }).trim(),
  );
  run("npx", ["vitest", "run", ...suites], {
    ...sanitizer.options,
    MONOSEM_PREBUILD: home,
    MONOSEM_SANITIZED: name,
    LD_PRELOAD: preload.join(" "),
  });
}
console.log("no sanitizer has complained");
