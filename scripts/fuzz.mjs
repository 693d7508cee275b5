// `npm run fuzz -- RUNS`: the fuzz tests with that many inputs each (a million by default) and a new seed.
import { spawnSync } from "node:child_process";

const runs = Number(process.argv[2] ?? 1_000_000);
if (!Number.isSafeInteger(runs) || runs < 1) {
  console.error(`the number of inputs must be a positive integer, not ${process.argv[2]}`);
  process.exit(1);
}
const { status } = spawnSync("npx", ["vitest", "run", "test/fuzz"], {
  stdio: "inherit",
  env: { ...process.env, MONOSEM_FUZZ_RUNS: String(runs) },
});
process.exit(status ?? 1);
