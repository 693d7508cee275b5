import { expect, onTestFinished, test, vi } from "vitest";
import { startProgress, startProgressTable } from "../../lib/cli/progress.js";

/** What is written on the standard error stream until the test ends, taken for a terminal or not. */
function collectWritten({ terminal }: { terminal: boolean }): string[] {
  const written: string[] = [];
  const spy = vi.spyOn(process.stderr, "write").mockImplementation((text) => {
    written.push(String(text));
    return true;
  });
  const before = process.stderr.isTTY;
  process.stderr.isTTY = terminal;
  onTestFinished(() => {
    process.stderr.isTTY = before;
    spy.mockRestore();
  });
  return written;
}

test.each([
  ["a bar", true, 10],
  ["a count", true, undefined],
  ["lines", false, 10],
])("a title is text, not commands to the terminal or placeholders: %s", (_, terminal, total) => {
  const written = collectWritten({ terminal });
  const progress = startProgress("s\u001b[31m {bar}{value} x", total, "rows");
  progress.update(10, "y\u001b[31m {bar}");
  progress.stop();
  const text = written.join("");
  expect(text).toContain("s\\u{1b}[31m {bar}{value} x");
  expect(text).toContain("y\\u{1b}[31m {bar}");
  expect(text).not.toContain("\u001b[31m");
});

test("a table's rows have the whole names, whatever their place in the list", () => {
  const written = collectWritten({ terminal: false });
  const table = startProgressTable(["narrow", "wide", "hostile\u202e"], 10, "steps");
  for (const name of ["narrow", "wide", "hostile\u202e"]) table.update(name, 10, "L0 3.0");
  table.stop();
  expect(written).toEqual([
    "narrow         : 10/10 steps  L0 3.0\n",
    "wide           : 10/10 steps  L0 3.0\n",
    "hostile\\u{202e}: 10/10 steps  L0 3.0\n",
  ]);
});
