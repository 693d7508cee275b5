/**
 * Regular expressions of tokenizers from strangers, which are matched against every text.
 *
 * Matching goes back over every way in which repetitions and alternatives can share the text between them. Their number
 * grows exponentially where what is repeated can itself be read in several ways, as in (a+)+ or (a|a)*, and where many
 * optional parts follow each other. The patterns of real tokenizers do neither, and are refused none of. What is left can
 * still take time that is a power of the text's length (\s*\s*x).
 */

import { quotedValue } from "../schemaMessages.js";

/** Places of a pattern, on the way through it, where matching may go one way or another. GPT-4o's has 6. */
const maximumChoices = 12;
/** Within groups; GPT-4o's pattern has 1. */
const maximumGroups = 30;
/** The longest known list all scripts and signs of a language, in some hundreds. */
const maximumLength = 10_000;

/** Why a pattern in Oniguruma's notation is not to be matched; undefined where nothing speaks against it. */
export function problemOfPattern(pattern: string): string | undefined {
  if (pattern.length === 0) return "must not be empty";
  if (pattern.length > maximumLength) return `must have at most ${maximumLength} characters, not ${pattern.length}`;
  const { choices, problem } = new PatternReader(pattern).alternatives(0);
  if (problem !== undefined) return problem;
  return choices > maximumChoices
    ? `has ${choices} optional or repeated parts in a row, over ${maximumChoices}`
    : undefined;
}

interface Part {
  /** Of its places, on the way through it, those where matching may go several ways. */
  readonly choices: number;
  readonly problem?: string | undefined;
}

class PatternReader {
  readonly #pattern: string;
  #at = 0;

  constructor(pattern: string) {
    this.#pattern = pattern;
  }

  /** Up to the parenthesis that closes them, or the end. */
  alternatives(groups: number): Part {
    if (groups > maximumGroups) return { choices: 0, problem: `nests more than ${maximumGroups} groups` };
    let most = 0;
    let several = 0;
    for (;;) {
      const { choices, problem } = this.#sequence(groups);
      if (problem !== undefined) return { choices, problem };
      most = Math.max(most, choices);
      if (this.#pattern[this.#at] !== "|") return { choices: most + several };
      several = 1;
      this.#at += 1;
    }
  }

  #sequence(groups: number): Part {
    let total = 0;
    while (this.#at < this.#pattern.length && !"|)".includes(this.#pattern[this.#at]!)) {
      const { choices, problem } = this.#quantified(groups);
      if (problem !== undefined) return { choices, problem };
      total += choices;
    }
    return { choices: total };
  }

  /** An atom and the quantifiers behind it. */
  #quantified(groups: number): Part {
    const begin = this.#at;
    const atom = this.#atom(groups);
    if (atom.problem !== undefined) return atom;
    let { choices } = atom;
    for (;;) {
      quantifier.lastIndex = this.#at;
      const [text, least, comma, most] = quantifier.exec(this.#pattern) ?? [];
      if (text === undefined) return { choices };
      this.#at += text.length;
      const fixed = text.startsWith("{") && (comma === "" || least === most);
      const times = text.startsWith("?") ? 1 : Number((comma === "" ? least : most) || Number.POSITIVE_INFINITY);
      if (times > 1 && choices > 0) {
        const repeated = this.#pattern.slice(begin, this.#at);
        return { choices, problem: `repeats what can itself match in several ways: ${quotedValue(repeated)}` };
      }
      if (!fixed) choices += 1;
    }
  }

  #atom(groups: number): Part {
    const character = this.#pattern[this.#at]!;
    if (character === "(") {
      this.#at += 1;
      // What the group is for: (?: (?= (?<name> and the like.
      if (this.#pattern[this.#at] === "?") this.#at += 1;
      const inside = this.alternatives(groups + 1);
      this.#at += 1;
      return inside;
    }
    if (character === "[") this.#skipClass();
    else if (character === "\\") this.#skipEscape();
    else this.#at += 1;
    return { choices: 0 };
  }

  #skipEscape(): void {
    bracedEscape.lastIndex = this.#at;
    this.#at += bracedEscape.exec(this.#pattern)?.[0].length ?? 2;
  }

  /** Classes may stand in classes; a bracket that closes none stands for itself where it comes first. */
  #skipClass(): void {
    let open = 0;
    do {
      const character = this.#pattern[this.#at]!;
      if (character === "[") {
        open += 1;
        if (this.#pattern[this.#at + 1] === "^") this.#at += 1;
        if (this.#pattern[this.#at + 1] === "]") this.#at += 1;
      } else if (character === "]") open -= 1;
      else if (character === "\\") this.#at += 1;
      this.#at += 1;
    } while (open > 0 && this.#at < this.#pattern.length);
  }
}

/** With what makes it lazy or possessive; a repetition behind braces is one of its own. */
const quantifier = /[*+?][+?]?|\{(?=,?\d)(\d*)(,?)(\d*)\}\??/y;

/** Of a class of characters, or one by its code. */
const bracedEscape = /\\[pPxu]\{[^}]*\}/y;
