import { defineConfig } from "vitest/config";

// Processes, not threads: each test file has its own native module, and a crash names the file.
export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    exclude: [
      "test/cli/**",
      "test/{examples,readme}.test.ts",
      "test/cuda/**",
      "test/package/**",
      "test/robustness/**",
      "node_modules/**",
    ],
    pool: "forks",
    maxWorkers: 3, // on two cores: many tests wait, for servers and processes
    testTimeout: 600_000, // against hanging, not for speed
  },
});
