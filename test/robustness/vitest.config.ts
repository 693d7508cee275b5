import { defineConfig } from "vitest/config";

/** Slow: `npm run test:robustness`, `MONOSEM_KILLS=N` for more or fewer kills. */
export default defineConfig({
  test: {
    include: ["test/robustness/**/*.test.ts"],
    testTimeout: 3_600_000,
    hookTimeout: 600_000,
    fileParallelism: false,
    maxConcurrency: 3,
  },
});
