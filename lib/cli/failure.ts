import { visibleText } from "../analysis/visibleText.js";
import { MonosemError } from "../errors.js";
import { INTERRUPTED } from "./interruption.js";

/** What an error means to the person at the terminal: the text to print and the process's exit status. */
export interface Failure {
  readonly text: string;
  readonly exitCode: number;
}

/** Characters of a message that are shown: a file that it quotes may hold names and lists of any length. */
const longestMessage = 4000;

/** One line that begins with `monosem: `; with `verbose` the stack and the causes below it. */
export function describeFailure(error: unknown, verbose: boolean): Failure {
  const expected = error instanceof MonosemError;
  const message = error instanceof Error ? error.message : String(error);
  const line = shortened(message)
    .trim()
    .replace(/\s*\n\s*/g, "; ");
  const headline = visibleText(expected ? line : `unexpected error: ${line}`);
  const hint = expected || verbose ? "" : " (--verbose shows where)";
  return {
    text: `monosem: ${headline}${hint}\n${verbose ? stackOf(error) : ""}`,
    exitCode: expected && error.code === "ERR_ABORTED" ? INTERRUPTED : 1,
  };
}

function stackOf(error: unknown): string {
  if (!(error instanceof Error)) return "";
  // The stack repeats the message.
  const stack = (error.stack ?? error.message).replace(error.message, () => shortened(error.message));
  const lines = stack.split("\n").map((line) => visibleText(line));
  const cause =
    error.cause === undefined
      ? ""
      : `caused by: ${stackOf(error.cause) || `${visibleText(shortened(String(error.cause)))}\n`}`;
  return `${lines.join("\n")}\n${cause}`;
}

function shortened(message: string): string {
  return message.length > longestMessage ? `${message.slice(0, longestMessage)}…` : message;
}
