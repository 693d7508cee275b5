import { defineConfig } from "vitest/config";

// The command line, the examples and what the README has of both, as a user runs them, a process each time: apart, so
// that `npm test` stays short.
export default defineConfig({
  test: {
    include: ["test/cli/**/*.test.ts", "test/{examples,readme}.test.ts"],
    pool: "forks",
    maxWorkers: 3, // on two cores: many tests wait, for servers and processes
    testTimeout: 600_000, // against hanging, not for speed
  },
});
