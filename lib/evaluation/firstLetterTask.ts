import { MonosemError } from "../errors.js";
import { keyedNumber, keyedShuffle } from "../interpretation/keyedNumber.js";
import type { HookedTransformer } from "../models/hookedTransformer.js";

export const LETTERS: readonly string[] = [..."abcdefghijklmnopqrstuvwxyz"];

/** What follows a word in a prompt; the model is to go on with a space and the word's first letter, in upper case. */
export const QUESTION = " has the first letter:";

/** Words that a prompt shows with their answers before it asks, if there is room. */
const MOST_EXAMPLES = 10;

/** A prompt that asks for the first letter of its last word. */
export interface LetterPrompt {
  /** As it stands in the vocabulary, perhaps with a space in front. */
  readonly word: string;
  /** Index in `LETTERS`. */
  readonly letter: number;
  readonly ids: readonly number[];
  /** Of the word's token. */
  readonly position: number;
}

export interface FirstLetterTask {
  readonly train: readonly LetterPrompt[];
  readonly test: readonly LetterPrompt[];
  /** Examples in each prompt. */
  readonly examples: number;
  /** Words of the vocabulary that a prompt does not hold as one token. */
  readonly leftOut: number;
}

export interface FirstLetterOptions {
  /** Most tokens of a prompt. */
  readonly contextSize: number;
  readonly prependBos: boolean;
  /** Most words; a random choice of the vocabulary's if it has more. */
  readonly words: number;
  /** Of the choice of words, of the split and of the examples. */
  readonly seed: number;
}

const TRAIN_SHARE = 0.8;

/**
 * SAEBench's first-letter task on the words of a model's vocabulary: tokens of the letters a to z alone, with or without
 * a space in front. Four fifths are for training, the others for testing; the examples of a prompt are of its own part.
 *
 * @throws MonosemError ERR_CONFIG where the vocabulary has too few words, or a prompt with one example does not fit
 */
export function firstLetterTask(model: HookedTransformer, options: FirstLetterOptions): FirstLetterTask {
  const all = keyedShuffle(vocabularyWords(model), options.seed);
  const words = all.slice(0, options.words);
  const end = Math.floor(TRAIN_SHARE * words.length);
  const parts = [words.slice(0, end), words.slice(end)] as const;
  if (parts[1].length <= MOST_EXAMPLES) {
    throw new MonosemError(
      "ERR_CONFIG",
      `the first-letter task needs words, but the vocabulary of "${model.config.name}" has ${words.length} tokens of letters a to z`,
    );
  }
  const bos = options.prependBos && model.config.bosTokenId !== undefined ? 1 : 0;
  const longest = words.reduce((most, word) => Math.max(most, model.tokenizer.encode(shownExample(word)).length), 0);
  const room = Math.floor((options.contextSize - bos) / longest) - 1;
  if (room < 1) {
    throw new MonosemError(
      "ERR_CONFIG",
      `the first-letter task needs contexts of ${bos + 2 * longest} tokens for a prompt with one example, but they have ${options.contextSize} at most`,
    );
  }
  const examples = Math.min(MOST_EXAMPLES, room);
  const [train, test] = parts.map((part, index) => promptsOf(model, part, examples, { ...options, part: index }));
  return { train: train!, test: test!, examples, leftOut: words.length - train!.length - test!.length };
}

/** The model's answer to a prompt, if it can spell. */
export function letterAnswer(word: string): string {
  return ` ${word.trim()[0]!.toUpperCase()}`;
}

interface VocabularyWord {
  readonly id: number;
  readonly word: string;
  readonly letter: number;
}

function vocabularyWords({ tokenizer }: HookedTransformer): VocabularyWord[] {
  const words: VocabularyWord[] = [];
  for (let id = 0; id < tokenizer.vocabularySize; id++) {
    const word = tokenizer.tokenText(id);
    if (tokenizer.specialTokenIds.has(id) || !/^ ?[A-Za-z]+$/.test(word)) continue;
    words.push({ id, word, letter: LETTERS.indexOf(word.trim()[0]!.toLowerCase()) });
  }
  return words;
}

function promptsOf(
  { tokenizer, config }: HookedTransformer,
  words: readonly VocabularyWord[],
  examples: number,
  { seed, part, prependBos }: FirstLetterOptions & { readonly part: number },
): LetterPrompt[] {
  const bos = prependBos && config.bosTokenId !== undefined ? [config.bosTokenId] : [];
  return words.flatMap(({ id, word, letter }, index) => {
    // The words are in random order: a stretch that begins anywhere is a random choice.
    const first = Math.floor(keyedNumber(seed, part, index) * (words.length - 1));
    const shown = Array.from({ length: examples }, (_, i) =>
      shownExample(words[(index + 1 + ((first + i) % (words.length - 1))) % words.length]!),
    ).join("");
    const before = tokenizer.encode(`${shown}\n${word}`);
    const ids = tokenizer.encode(`${shown}\n${word}${QUESTION}`);
    if (before.at(-1) !== id || before.some((token, i) => ids[i] !== token)) return [];
    return [{ word, letter, ids: [...bos, ...ids], position: bos.length + before.length - 1 }];
  });
}

function shownExample({ word }: { readonly word: string }): string {
  return `\n${word}${QUESTION}${letterAnswer(word)}`;
}
