import { defineConfig } from "vitest/config";

// Its own command, `npm run test:package`: it compiles the whole addon in a copy of the repository.
export default defineConfig({
  test: { include: ["test/package/*.test.ts"], testTimeout: 3_600_000, hookTimeout: 3_600_000 },
});
