#!/usr/bin/env node
import { describeFailure } from "./failure.js";

// `monosem features ... | head`: whoever reads has had enough.
process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  if (error.code !== "EPIPE") throw error;
  process.exit(0);
});

try {
  // Loads the native engine, which may fail: a person should then read one line, too.
  const { runCommandLine } = await import("./program.js");
  process.exitCode = await runCommandLine(process.argv.slice(2));
} catch (error) {
  const failure = describeFailure(error, process.argv.includes("--verbose"));
  process.stderr.write(failure.text);
  process.exitCode = failure.exitCode;
}
