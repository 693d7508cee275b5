/** Arguments as they come from JavaScript, where no type has checked them: what is wrong must not be passed over, nor end in a TypeError. */
import { MonosemError } from "./errors.js";
import { probableName } from "./models/closestNames.js";

/**
 * What is known of an option besides its name: nothing, that it is a boolean, an AbortSignal or a function, or the texts
 * that it may be.
 */
type OptionKind = true | "boolean" | "signal" | "function" | Readonly<Record<string, true>>;

type KindOf<Value> = [Value] extends [boolean]
  ? "boolean"
  : [Value] extends [AbortSignal]
    ? "signal"
    : [Value] extends [(...values: never[]) => unknown]
      ? "function"
      : [Value] extends [string]
        ? string extends Value
          ? never
          : Readonly<Record<Value, true>>
        : never;

/** The names of all options of a type, with what else is to be checked; one too few or too many is a compile error. */
export type OptionNames<Options> = {
  readonly [Name in keyof Options]-?: true | KindOf<Exclude<Options[Name], undefined>>;
};

/**
 * Refuses options that do not exist, with the one that was probably meant, and values of another kind than is said there.
 *
 * @param what - whose options, for the message
 * @param names - an {@link OptionNames}
 * @throws MonosemError ERR_INVALID_ARGUMENT
 */
export function checkOptions(what: string, options: object, names: Readonly<Record<string, OptionKind>>): void {
  if (typeof options !== "object" || options === null || Array.isArray(options)) {
    throw new MonosemError("ERR_INVALID_ARGUMENT", `${what}: options must be an object, found ${kindOf(options)}`);
  }
  const unknown = Object.keys(options).find((key) => !Object.hasOwn(names, key));
  if (unknown !== undefined) {
    const meant = probableName(unknown, Object.keys(names));
    const hint = meant === undefined ? `there are ${Object.keys(names).join(", ")}` : `did you mean ${meant}?`;
    throw new MonosemError("ERR_INVALID_ARGUMENT", `${what}: there is no option ${JSON.stringify(unknown)}; ${hint}`);
  }
  for (const [name, value] of Object.entries(options)) {
    const kind = names[name]!;
    if (value === undefined || kind === true) continue;
    if (kind === "signal") checkSignal(what, value);
    else if (typeof kind === "object") checkOneOf(`${what}: ${name}`, value, kind);
    else if (typeof value !== kind) {
      refuseArgument(`${what}: ${name}`, kind === "boolean" ? "true or false" : "a function", value);
    }
  }
}

/** @throws MonosemError ERR_INVALID_ARGUMENT for what is none of the texts that are known */
export function checkOneOf(what: string, value: unknown, known: Readonly<Record<string, true>>): void {
  if (typeof value === "string" && Object.hasOwn(known, value)) return;
  const names = Object.keys(known).map((name) => JSON.stringify(name));
  const last = names.pop();
  refuseArgument(what, names.length === 0 ? `${last}` : `${names.join(", ")} or ${last}`, value);
}

/**
 * @param what - the argument: "Sae.load: device"
 * @param expected - "a Device (await Device.open())"
 * @throws MonosemError ERR_INVALID_ARGUMENT, always
 */
export function refuseArgument(what: string, expected: string, found: unknown): never {
  throw new MonosemError("ERR_INVALID_ARGUMENT", `${what} must be ${expected}, found ${kindOf(found)}`);
}

/** @throws MonosemError ERR_INVALID_ARGUMENT for what is neither an AbortSignal nor undefined */
export function checkSignal(what: string, signal: unknown): void {
  if (signal === undefined || signal instanceof AbortSignal) return;
  refuseArgument(`${what}: signal`, "an AbortSignal (new AbortController().signal)", signal);
}

/** @throws MonosemError ERR_INVALID_ARGUMENT */
export function checkBoolean(what: string, value: unknown): void {
  if (typeof value !== "boolean") refuseArgument(what, "true or false", value);
}

/**
 * A text that is not empty: a path, a name.
 *
 * @param expected - "the path of a folder"
 * @throws MonosemError ERR_INVALID_ARGUMENT
 */
export function checkText(what: string, expected: string, value: unknown): void {
  if (typeof value !== "string" || value === "") refuseArgument(what, expected, value);
}

/**
 * A name or a list of names, of which there must be one at least.
 *
 * @param expected - "the name of a tensor, or a list of them"
 * @throws MonosemError ERR_INVALID_ARGUMENT
 */
export function checkNames(what: string, expected: string, names: unknown): void {
  if (!Array.isArray(names)) checkText(what, expected, names);
  else if (names.length === 0) refuseArgument(what, expected, names);
  else for (const [index, name] of names.entries()) checkText(`${what}[${index}]`, "a name", name);
}

/** What a value is, in a few words: "undefined", "a text", "a Float32Array", "a list". */
export function kindOf(value: unknown): string {
  if (value === undefined || value === null) return String(value);
  if (typeof value === "string")
    return `the text ${JSON.stringify(value.length > 40 ? `${value.slice(0, 40)}...` : value)}`;
  if (Array.isArray(value)) return value.length === 0 ? "an empty list" : "a list";
  if (typeof value === "function") return "a function";
  if (typeof value !== "object") return `the ${typeof value} ${String(value)}`;
  const name = constructorName(value);
  return name !== undefined && name !== "Object" ? `a ${name}` : "an object";
}

/** Undefined where there is none, or a getter or a Proxy does not let it be read. */
function constructorName(value: object): string | undefined {
  try {
    const name: unknown = value.constructor?.name;
    return typeof name === "string" && name !== "" ? name : undefined;
  } catch {
    return undefined;
  }
}
