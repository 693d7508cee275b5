import { visibleText } from "../analysis/visibleText.js";
import { MonosemError } from "../errors.js";
import { INTERRUPTED } from "./interruption.js";

/** What an error means to the person at the terminal: the text to print and the process's exit status. */
export interface Failure {
  readonly text: string;
  readonly exitCode: number;
}

/** One line that begins with `monosem: `; with `verbose` the stack and the causes below it. */
export function describeFailure(error: unknown, verbose: boolean): Failure {
  const expected = error instanceof MonosemError;
  const message = error instanceof Error ? error.message : String(error);
  const line = message.trim().replace(/\s*\n\s*/g, "; ");
  const headline = visibleText(expected ? line : `unexpected error: ${line}`);
  const hint = expected || verbose ? "" : " (--verbose shows where)";
  return {
    text: `monosem: ${headline}${hint}\n${verbose ? stackOf(error) : ""}`,
    exitCode: expected && error.code === "ERR_ABORTED" ? INTERRUPTED : 1,
  };
}

function stackOf(error: unknown): string {
  if (!(error instanceof Error)) return "";
  const lines = (error.stack ?? error.message).split("\n").map((line) => visibleText(line));
  const cause =
    error.cause === undefined ? "" : `caused by: ${stackOf(error.cause) || `${visibleText(String(error.cause))}\n`}`;
  return `${lines.join("\n")}\n${cause}`;
}
