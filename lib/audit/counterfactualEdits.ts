/** Edits of a text that leave the meaning of what they do not touch as it was. */
import { keyedNumber } from "../interpretation/keyedNumber.js";

export interface CounterfactualPair {
  /** What was done, such as "another name". */
  readonly edit: string;
  readonly original: string;
  readonly edited: string;
}

const SENTENCES = ["It was a quiet day.", "This is how it was.", "Here is what happened."];

/** Names by what "he" and "she" in a text may refer to: another of the same group fits as well. */
const NAMES = [
  ["Tom", "Tim", "Ben", "Sam", "Jack", "Max", "John", "Peter", "Paul", "David", "James", "Robert"],
  ["Lily", "Lucy", "Anna", "Mia", "Sara", "Emma", "Mary", "Jane", "Sarah", "Susan", "Amy", "Sue"],
];

/** What each edit is, for people. */
export const EDITS: Readonly<Record<string, string>> = {
  "a sentence in front": `one of "${SENTENCES.join('", "')}" before the text`,
  "another name": `first names (${NAMES.map((group) => group.slice(0, 3).join(", ")).join(", ")} ...) by others of the same group, each by the same everywhere`,
  "other numbers": "digits by other digits, none by 0",
  "the first letter's case": "the first letter of the text in the other case",
};

/** The edits of one text that apply to it. */
export function counterfactualPairs(original: string, ...keys: readonly number[]): CounterfactualPair[] {
  const pick = (salt: number, count: number): number => Math.floor(keyedNumber(...keys, salt) * count);
  const edits: Readonly<Record<string, string>> = {
    "a sentence in front": `${SENTENCES[pick(0, SENTENCES.length)]} ${original.trimStart()}`,
    "another name": NAMES.reduce((text, group, index) => {
      const shift = 1 + pick(1 + index, group.length - 1);
      const pattern = new RegExp(`\\b(?:${group.join("|")})\\b`, "g");
      return text.replace(pattern, (name) => group[(group.indexOf(name) + shift) % group.length]!);
    }, original),
    "other numbers": original.replace(/[0-9]/g, (digit) => String(1 + ((Number(digit) + pick(3, 8)) % 9))),
    "the first letter's case": original.replace(/\p{L}/u, (letter) =>
      letter === letter.toUpperCase() ? letter.toLowerCase() : letter.toUpperCase(),
    ),
  };
  return Object.entries(edits)
    .filter(([, edited]) => edited !== original)
    .map(([edit, edited]) => ({ edit, original, edited }));
}

/**
 * The tokens that two sequences have in common, as pairs of positions: a longest common subsequence. Those that an edit
 * replaced, added or cut in another way are in no pair.
 */
export function commonTokens(a: readonly number[], b: readonly number[]): (readonly [number, number])[] {
  const width = b.length + 1;
  const longest = new Uint16Array((a.length + 1) * width);
  for (let i = a.length - 1; i >= 0; i--) {
    for (let j = b.length - 1; j >= 0; j--) {
      longest[i * width + j] =
        a[i] === b[j]
          ? longest[(i + 1) * width + j + 1]! + 1
          : Math.max(longest[(i + 1) * width + j]!, longest[i * width + j + 1]!);
    }
  }
  const pairs: (readonly [number, number])[] = [];
  for (let i = 0, j = 0; i < a.length && j < b.length; ) {
    if (a[i] === b[j]) pairs.push([i++, j++]);
    else if (longest[(i + 1) * width + j]! >= longest[i * width + j + 1]!) i += 1;
    else j += 1;
  }
  return pairs;
}
