/**
 * Runs chat templates, which are programs from strangers, with bounds: the library's interpreter runs `range(1000000000)`
 * out of memory, which ends the process, and nested loops forever.
 */
import { Environment, Interpreter, Template } from "@huggingface/jinja";

/** Statements, expressions and list items. A conversation of a thousand turns takes some hundred thousand. */
const maximumSteps = 500_000;
/** Of all texts that are written, joined or looked at: each expression that is a text counts. */
const maximumCharacters = 2 ** 30;
/** Of one text. Methods such as split make an object for each character at worst. */
const maximumTextLength = 2 ** 24;
/** Templates count turns and tools with it. */
const maximumRange = 100_000;
/** Items of a list that is only named count once in so many: of long conversations each turn looks at the list of turns. */
const itemsPerStep = 100;

interface Statement {
  readonly type: string;
  /** Of a loop. */
  readonly iterable?: unknown;
}

interface Value {
  readonly value: unknown;
}

/** What is used of the library's class, whose declarations do not resolve in an ES module. */
interface LibraryInterpreter {
  run(program: unknown): Value;
  evaluate(statement: Statement | undefined, environment: unknown): Value;
}
const LibraryInterpreter = Interpreter as unknown as new (environment: unknown) => LibraryInterpreter;

export class BoundedInterpreter extends LibraryInterpreter {
  #steps = 0;
  #characters = 0;
  /** What loops run over, which costs a step for each item. */
  readonly #iterables = new Set<unknown>();

  /** @param variables - the template's */
  constructor(variables: Readonly<Record<string, unknown>>) {
    const environment = new Environment();
    for (const [name, value] of Object.entries({ ...globals, ...variables })) environment.set(name, value);
    super(environment);
  }

  override evaluate(statement: Statement, environment: unknown): Value {
    if (statement?.type === "For") this.#iterables.add(statement.iterable);
    this.#count(1);
    const value = super.evaluate(statement, environment);
    const content = value.value;
    if (typeof content === "string") this.#countText(content);
    if (Array.isArray(content)) {
      const named = statement?.type === "Identifier" && !this.#iterables.has(statement);
      this.#count(named ? Math.floor(content.length / itemsPerStep) : content.length);
    }
    return value;
  }

  #count(steps: number): void {
    this.#steps += steps;
    if (this.#steps > maximumSteps) throw new Error(`it takes more than ${maximumSteps} steps`);
  }

  #countText({ length }: string): void {
    this.#characters += length;
    if (length > maximumTextLength || this.#characters > maximumCharacters) {
      throw new Error(
        `it makes a text of more than ${maximumTextLength} characters, or of ${maximumCharacters} in all`,
      );
    }
  }
}

/** As the library's, but for `range`. */
const globals: Readonly<Record<string, unknown>> = {
  true: true,
  false: false,
  none: null,
  True: true,
  False: false,
  None: null,
  raise_exception: (message: string) => {
    throw new Error(message);
  },
  strftime_now: (format: string) => formattedNow.render({ format }),
  range: (start: number, stop?: number, step = 1): number[] => {
    const [first, end] = stop === undefined ? [0, start] : [start, stop];
    const length = Math.max(0, Math.ceil((end - first) / step));
    if (step === 0 || !(length <= maximumRange)) throw new Error(`range() of ${length} numbers, over ${maximumRange}`);
    return Array.from({ length }, (_, i) => first + i * step);
  },
};

const formattedNow = new Template("{{ strftime_now(format) }}");
