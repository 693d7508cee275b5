import { expect, test } from "vitest";
import { describeFailure } from "../../lib/cli/failure.js";
import { MonosemError } from "../../lib/errors.js";

test("a message as long as a file is cut, its lines and its stack are not lost", () => {
  const long = `${"\n".repeat(100_000)}the file holds ${"\u001b".repeat(1_000_000)}`;
  for (const error of [new MonosemError("ERR_FORMAT", `cut ${long}`), new Error(`cut ${long}`), long]) {
    const quiet = describeFailure(error, false);
    expect(quiet.text.length).toBeLessThan(50_000);
    expect(quiet.text).toContain("…");
    const verbose = describeFailure(new Error("short", { cause: error }), true).text;
    expect(verbose.length).toBeLessThan(50_000);
    expect(verbose.match(/\n {4}at /g)!.length).toBeGreaterThan(0);
  }
});
