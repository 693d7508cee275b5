import type { Tokenizer } from "./tokenizer.js";

/**
 * The text of tokens that arrive one by one, up to the first of some stop strings. Characters that are spread over
 * several tokens appear when they are complete, and what may be the beginning of a stop string when it turns out not to
 * be. Special tokens are no text; without a tokenizer there is none.
 */
export class GeneratedText {
  readonly #tokenizer: Tokenizer | undefined;
  readonly #stopStrings: readonly string[];
  readonly #decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  #heldBack = "";
  #stopped = false;

  constructor(tokenizer: Tokenizer | undefined, stopStrings: readonly string[]) {
    this.#tokenizer = tokenizer;
    this.#stopStrings = stopStrings;
  }

  /** Whether a stop string has been met; no text comes after it. */
  get stopped(): boolean {
    return this.#stopped;
  }

  /** What can be said after another token. */
  append(token: number): string {
    const tokenizer = this.#tokenizer;
    if (this.#stopped || tokenizer === undefined || tokenizer.specialTokenIds.has(token)) return "";
    return this.#take(this.#decoder.decode(tokenizer.tokenBytes(token), { stream: true }));
  }

  /** What is left when no more tokens come. */
  rest(): string {
    if (this.#stopped) return "";
    const text = this.#take(this.#decoder.decode()) + this.#heldBack;
    this.#heldBack = "";
    return text;
  }

  #take(fresh: string): string {
    const text = this.#heldBack + fresh;
    const stops = this.#stopStrings.map((stop) => text.indexOf(stop)).filter((at) => at >= 0);
    this.#stopped = stops.length > 0;
    const end = this.#stopped ? Math.min(...stops) : text.length - this.#lengthOfPossibleStop(text);
    this.#heldBack = this.#stopped ? "" : text.slice(end);
    return text.slice(0, end);
  }

  /** Of the longest end of a text with which a stop string begins. */
  #lengthOfPossibleStop(text: string): number {
    let longest = 0;
    for (const stop of this.#stopStrings) {
      for (let length = Math.min(stop.length - 1, text.length); length > longest; length--) {
        if (text.endsWith(stop.slice(0, length))) longest = length;
      }
    }
    return longest;
  }
}
