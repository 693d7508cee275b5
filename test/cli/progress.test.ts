import { expect, onTestFinished, test, vi } from "vitest";
import { startProgressTable } from "../../lib/cli/progress.js";

test("a table's rows have the whole names, whatever their place in the list", () => {
  const written: string[] = [];
  const spy = vi.spyOn(process.stderr, "write").mockImplementation((text) => {
    written.push(String(text));
    return true;
  });
  const terminal = process.stderr.isTTY;
  process.stderr.isTTY = false;
  onTestFinished(() => {
    process.stderr.isTTY = terminal;
    spy.mockRestore();
  });
  const table = startProgressTable(["narrow", "wide", "hostile\u202e"], 10, "steps");
  for (const name of ["narrow", "wide", "hostile\u202e"]) table.update(name, 10, "L0 3.0");
  table.stop();
  expect(written).toEqual([
    "narrow         : 10/10 steps  L0 3.0\n",
    "wide           : 10/10 steps  L0 3.0\n",
    "hostile\\u{202e}: 10/10 steps  L0 3.0\n",
  ]);
});
