#!/usr/bin/env node
import { describeFailure } from "./failure.js";

try {
  // Loads the native engine, which may fail: a person should then read one line, too.
  const { runCommandLine } = await import("./program.js");
  process.exitCode = await runCommandLine(process.argv.slice(2));
} catch (error) {
  const failure = describeFailure(error, process.argv.includes("--verbose"));
  process.stderr.write(failure.text);
  process.exitCode = failure.exitCode;
}
