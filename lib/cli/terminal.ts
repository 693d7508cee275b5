/** What the standard output can show. */

const COLUMNS_OF_A_FILE = 100;

/** Whether results may be coloured: on a terminal, unless the NO_COLOR convention (no-color.org) forbids it. */
export function printsColour(): boolean {
  return process.stdout.isTTY === true && (process.env.NO_COLOR ?? "") === "" && process.env.TERM !== "dumb";
}

export function printedColumns(): number {
  // A terminal that does not know its size says 0.
  return Math.max(40, process.stdout.columns || COLUMNS_OF_A_FILE);
}
