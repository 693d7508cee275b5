/** What zod finds wrong with a value, said to somebody who wrote a configuration and need not know zod. */
import type { z } from "zod";
import { kindOf } from "./checkArguments.js";

/** A value that a schema accepts, or every problem as `problemText` says it. */
export type Checked<T> =
  | { readonly success: true; readonly data: T }
  | { readonly success: false; readonly problems: readonly string[] };

/** A file of a million wrong entries is said to be wrong by the first ones. */
const mostProblems = 10;

export function checkedBy<T>(schema: z.ZodType<T>, value: unknown): Checked<T> {
  const result = schema.safeParse(value, { reportInput: true, error: requirement });
  if (result.success) return result;
  const { issues } = result.error;
  const problems = issues.slice(0, mostProblems).map(problemText);
  if (issues.length > mostProblems) problems.push(`and ${issues.length - mostProblems} more problems`);
  return { success: false, problems };
}

/** "path: what is wrong (found ...)" */
export function problemText(issue: z.core.$ZodIssue): string {
  const { path, code, message, input } = issue;
  if (code === "unrecognized_keys") {
    const named = issue.keys.slice(0, mostProblems).map((key) => `${placeOf([...path, key])}: unknown key`);
    if (issue.keys.length > mostProblems) named.push(`and ${issue.keys.length - mostProblems} more unknown keys`);
    return named.join("; ");
  }
  if (path.length === 0) return message;
  const place = placeOf(path);
  if (code === "custom" && isObject(input)) return `${place}: ${message}`;
  return `${place}: ${message} (${input === undefined ? "missing" : `found ${quotedValue(input)}`})`;
}

function placeOf(path: readonly PropertyKey[]): string {
  return path.map((part) => shortened(String(part))).join(".");
}

/**
 * A value for a message, as it stands in a file: it may be of any length, and in a pickle a wide integer; what comes from a
 * program need not be anything that JSON has.
 */
export function quotedValue(value: unknown): string {
  if (typeof value === "number") return String(value);
  const isJson = typeof value !== "object" || value === null || Array.isArray(value) || kindOf(value) === "an object";
  if (!isJson || ["bigint", "function", "symbol"].includes(typeof value)) return kindOf(value);
  const json = JSON.stringify(value, (_, item: unknown) => (typeof item === "bigint" ? String(item) : item));
  return shortened(json ?? "nothing");
}

function shortened(text: string): string {
  return text.length > 100 ? `${text.slice(0, 100)}...` : text;
}

function isObject(value: unknown): boolean {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

const nouns: Readonly<Record<string, string>> = {
  int: "an integer",
  number: "a number",
  string: "text",
  boolean: "true or false",
  array: "a list",
  tuple: "a list",
  object: "an object",
};

/** Of what has a length and not a size. */
const parts: Readonly<Record<string, string>> = { string: "characters", array: "entries" };

/** What the value must be, as in "must be an integer"; the `error` of a schema's `safeParse`. */
export function requirement(issue: z.core.$ZodRawIssue): string | undefined {
  switch (issue.code) {
    case "invalid_type":
      if (issue.input === Number.POSITIVE_INFINITY || issue.input === Number.NEGATIVE_INFINITY) return "must be finite";
      return `must be ${nouns[issue.expected] ?? issue.expected}`;
    case "invalid_value":
      return `must be ${anyOf(issue.values.map((value) => JSON.stringify(value)))}`;
    case "too_small": {
      const { origin, minimum, inclusive } = issue;
      if (origin in parts)
        return minimum === 1 ? "must not be empty" : `must have at least ${minimum} ${parts[origin]}`;
      return `must be ${inclusive ? "at least" : "greater than"} ${minimum}`;
    }
    case "too_big": {
      const { origin, maximum, inclusive } = issue;
      if (origin in parts) return `must have at most ${maximum} ${parts[origin]}`;
      return `must be ${inclusive ? "at most" : "less than"} ${maximum}`;
    }
    case "invalid_union":
      return anyAlternative(issue.errors.flat());
    default:
      return undefined;
  }
}

/** Of the alternatives the one that came further than the others, into the value, is the one meant. */
function anyAlternative(problems: readonly z.core.$ZodIssue[]): string {
  const inside = problems.find(({ path }) => path.length > 0);
  if (inside !== undefined) return `entry ${inside.path.join(".")} ${inside.message}`;
  return `must be ${anyOf([...new Set(problems.map(({ message }) => message.replace(/^must be /, "")))])}`;
}

/** "a, b or c" */
function anyOf(choices: readonly string[]): string {
  return choices.length < 2 ? choices.join() : `${choices.slice(0, -1).join(", ")} or ${choices.at(-1)}`;
}
