import { defineConfig } from "vitest/config";

// The command line as a user runs it, a process each time: by itself, so that `npm test` stays short.
export default defineConfig({
  test: {
    include: ["test/cli/**/*.test.ts"],
    pool: "forks",
    maxWorkers: 3, // on two cores: many tests wait, for servers and processes
    testTimeout: 600_000, // against hanging, not for speed
  },
});
