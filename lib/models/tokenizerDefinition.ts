/**
 * A tokenizer.json from strangers. The library that runs it believes it: of what is malformed it makes wrong ids, or
 * arrays as long as an id says. What is checked here is what `tokenizers` itself refuses when it reads such a file, and
 * limits that no real file comes near.
 */
import { MonosemError } from "../errors.js";
import { quotedValue } from "../schemaMessages.js";
import { problemOfPattern } from "./splitPattern.js";

/** The largest vocabularies have 900,000 tokens (XLM-V); the library makes an array of as many as the highest id says. */
const maximumTokenId = 2 ** 22;
/** Of all added tokens' names, of which the library keeps a tree with an object for each. Some models add 30,000 tokens. */
const maximumAddedCharacters = 2 ** 20;
/** Steps of a normalizer, a pre-tokenizer or a decoder. Real ones have fewer than ten. */
const maximumSteps = 200;
/** How many times as long all replacements may make a text, each by as much as its content is longer than what it replaces. */
const maximumGrowth = 1000;

type Json = Readonly<Record<string, unknown>>;

/**
 * Checks a definition.
 *
 * @returns one more than the highest id
 * @throws MonosemError ERR_FORMAT naming the entry and what is wrong with it, ERR_UNSUPPORTED for a regular expression that
 *   could take forever
 */
export function checkTokenizer(definition: Json, path: string): number {
  const checked = new CheckedDefinition(path);
  checked.steps(definition.normalizer, "normalizer");
  checked.steps(definition.pre_tokenizer, "pre_tokenizer");
  checked.steps(definition.decoder, "decoder");
  const { model } = definition;
  if (!isObject(model)) throw checked.wrong("model", "an object", model);
  const ids = checked.vocabulary(model);
  if (!Array.isArray(model.vocab)) {
    if (model.type === "BPE" || "merges" in model) checked.merges(model, ids);
    if (model.type === "WordPiece") checked.wordPieces(model);
  }
  checked.addTokens(definition.added_tokens, ids);
  return checked.highestId + 1;
}

/** The steps that a sequence of each kind consists of. */
const parts: Readonly<Record<string, string>> = {
  normalizer: "normalizers",
  pre_tokenizer: "pretokenizers",
  decoder: "decoders",
};

class CheckedDefinition {
  readonly #path: string;
  highestId = -1;
  #steps = 0;
  #growth = 1;

  constructor(path: string) {
    this.#path = path;
  }

  /** A normalizer, a pre-tokenizer or a decoder; each may be a sequence. */
  steps(step: unknown, kind: string): void {
    if (step !== null && step !== undefined) this.#step(step, kind, kind);
    // What a decoder is given was not made longer by what encodes.
    if (kind === "pre_tokenizer") this.#growth = 1;
  }

  #step(step: unknown, kind: string, where: string): void {
    this.#steps += 1;
    if (this.#steps > maximumSteps) {
      throw this.#malformed(
        `${where} is one of more than ${maximumSteps} steps of normalizer, pre_tokenizer and decoder`,
      );
    }
    if (!isObject(step) || typeof step.type !== "string") throw this.wrong(where, "an object with a type", step);
    const { type } = step;
    const key = parts[kind]!;
    if (type === "Sequence") {
      const sequence = step[key];
      if (!Array.isArray(sequence)) throw this.wrong(`${where}.${key}`, "a list", sequence);
      for (const [i, one] of sequence.entries()) this.#step(one, kind, `${where}.${key}.${i}`);
    }
    if (type === "Split" || type === "Replace") {
      const matched = this.#pattern(step.pattern, `${where}.pattern`);
      if (type === "Replace") {
        const content = this.#text(step.content, `${where}.content`);
        this.#grow(content.length / matched, where);
      }
    }
    if (type === "Split") {
      this.#text(step.behavior, `${where}.behavior`);
      if (step.invert !== undefined && typeof step.invert !== "boolean") {
        throw this.wrong(`${where}.invert`, "true or false", step.invert);
      }
    }
    if (type === "Prepend") this.#text(step.prepend, `${where}.prepend`);
    if (type === "Metaspace") {
      for (const name of ["replacement", "str_rep"]) {
        if (step[name] === undefined) continue;
        this.#grow(this.#text(step[name], `${where}.${name}`).length, where);
      }
    }
    if (type === "FixedLength" && !(isId(step.length) && step.length > 0)) {
      throw this.wrong(`${where}.length`, "a positive integer", step.length);
    }
  }

  /** The least number of characters that it matches. */
  #pattern(pattern: unknown, where: string): number {
    const { Regex: regex, String: string } = isObject(pattern) ? pattern : {};
    if (typeof regex === "string" && string === undefined) {
      const problem = problemOfPattern(regex);
      if (problem === undefined) return 1;
      throw new MonosemError("ERR_UNSUPPORTED", `${this.#path}: ${where} ${problem}: a text could take forever`);
    }
    if (typeof string === "string" && string !== "" && regex === undefined) return string.length;
    throw this.wrong(where, 'a "Regex" or a "String" that is not empty', pattern);
  }

  #text(value: unknown, where: string): string {
    if (typeof value === "string") return value;
    throw this.wrong(where, "text", value);
  }

  #grow(times: number, where: string): void {
    this.#growth *= Math.max(times, 1);
    if (this.#growth <= maximumGrowth) return;
    throw this.#malformed(
      `${where} and the steps before it could make a text more than ${maximumGrowth} times as long`,
    );
  }

  /** The id of each token: those of a list are its indices. */
  vocabulary({ type, vocab, unk_id: unknown }: Json): Map<string, number> {
    const ids = new Map<string, number>();
    if (Array.isArray(vocab) && (type === undefined || type === "Unigram")) {
      if (vocab.length === 0) throw this.wrong("model.vocab", "a list that is not empty", vocab);
      for (const [id, entry] of vocab.entries()) {
        const [token, score] = Array.isArray(entry) ? entry : [];
        if (typeof token !== "string" || !Number.isFinite(score)) {
          throw this.wrong(`model.vocab.${id}`, "a pair of a token and its score", entry);
        }
        ids.set(token, this.#id(id, token));
      }
      if (unknown !== undefined && unknown !== null && !(isId(unknown) && unknown < vocab.length)) {
        throw this.wrong("model.unk_id", `an id below ${vocab.length}`, unknown);
      }
      return ids;
    }
    if (type === "Unigram") throw this.wrong("model.vocab", "a list of pairs of tokens and scores", vocab);
    if (!isObject(vocab)) throw this.wrong("model.vocab", "an object of tokens and their ids", vocab);
    for (const [token, id] of Object.entries(vocab)) ids.set(token, this.#id(id, token));
    this.#requireUnique(ids);
    return ids;
  }

  #id(id: unknown, token: string): number {
    if (isId(id)) {
      this.highestId = Math.max(this.highestId, id);
      return id;
    }
    throw this.wrong(`the id of token ${quotedValue(token)}`, `an integer from 0 to ${maximumTokenId}`, id);
  }

  #requireUnique(ids: ReadonlyMap<string, number>): void {
    const tokens = new Map<number, string>();
    for (const [token, id] of ids) {
      const other = tokens.get(id);
      if (other !== undefined) {
        throw this.#malformed(`the tokens ${quotedValue(other)} and ${quotedValue(token)} have the same id ${id}`);
      }
      tokens.set(id, token);
    }
  }

  /** Pairs of tokens that the vocabulary has, as lists of two or with a space between them. */
  merges(
    { merges, unk_token: unknown, continuing_subword_prefix: prefix }: Json,
    ids: ReadonlyMap<string, number>,
  ): void {
    if (!Array.isArray(merges)) throw this.wrong("model.merges", "a list", merges);
    if (unknown !== undefined && unknown !== null) this.#text(unknown, "model.unk_token");
    const asLists = Array.isArray(merges[0]);
    const prefixed = typeof prefix === "string" && prefix !== "";
    for (const [i, merge] of merges.entries()) {
      const pair: unknown = asLists ? merge : typeof merge === "string" ? merge.split(" ") : undefined;
      const [left, right, ...others] = Array.isArray(pair) ? pair : [];
      if (typeof left !== "string" || typeof right !== "string" || others.length > 0) {
        throw this.wrong(
          `model.merges.${i}`,
          `a pair of tokens${asLists ? " as a list" : ", with a space between them"}`,
          merge,
        );
      }
      const missing = [left, right, ...(prefixed ? [] : [left + right])].find((token) => !ids.has(token));
      if (missing !== undefined) {
        throw this.#malformed(`model.merges.${i} is of ${quotedValue(missing)}, which the vocabulary does not have`);
      }
    }
  }

  wordPieces({ unk_token: unknown, continuing_subword_prefix: prefix, max_input_chars_per_word: longest }: Json): void {
    this.#text(unknown, "model.unk_token");
    this.#text(prefix, "model.continuing_subword_prefix");
    if (longest !== undefined && !isId(longest))
      throw this.wrong("model.max_input_chars_per_word", "an integer", longest);
  }

  /** Adds them to the vocabulary: the id of an added token replaces the vocabulary's. */
  addTokens(added: unknown, ids: Map<string, number>): void {
    if (!Array.isArray(added)) throw this.wrong("added_tokens", "a list", added);
    let characters = 0;
    for (const [i, token] of added.entries()) {
      if (!isObject(token)) throw this.wrong(`added_tokens.${i}`, "an object", token);
      const content = this.#text(token.content, `added_tokens.${i}.content`);
      characters += content.length;
      ids.set(content, this.#id(token.id, content));
    }
    if (characters > maximumAddedCharacters) {
      throw this.#malformed(`the added tokens have more than ${maximumAddedCharacters} characters`);
    }
    this.#requireUnique(ids);
  }

  wrong(where: string, expected: string, found: unknown): MonosemError {
    return this.#malformed(`${where} must be ${expected}, found ${quotedValue(found)}`);
  }

  #malformed(problem: string): MonosemError {
    return new MonosemError("ERR_FORMAT", `${this.#path} does not describe a tokenizer: ${problem}`);
  }
}

function isObject(value: unknown): value is Json {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isId(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0 && (value as number) <= maximumTokenId;
}
