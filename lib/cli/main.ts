#!/usr/bin/env node
import { describeFailure } from "./failure.js";

process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  // `monosem features ... | head`: whoever reads has had enough.
  if (error.code === "EPIPE") process.exit(0);
  process.stderr.write(`monosem: cannot write to the standard output: ${error.message.replace(/, write$/, "")}\n`);
  process.exit(1);
});
// That nobody reads how far a run is, is no reason to end it.
process.stderr.on("error", () => undefined);

try {
  // Loads the native engine, which may fail: a person should then read one line, too.
  const { runCommandLine } = await import("./program.js");
  process.exitCode = await runCommandLine(process.argv.slice(2));
} catch (error) {
  const failure = describeFailure(error, process.argv.includes("--verbose"));
  process.stderr.write(failure.text);
  process.exitCode = failure.exitCode;
}
