/** Token sequences of one length, cut from a corpus. */
import { setImmediate as otherWork } from "node:timers/promises";
import { MonosemError } from "../errors.js";
import type { Corpus } from "./corpus.js";

/** What is needed of a tokenizer. */
export interface TextTokenizer {
  readonly bosTokenId: number | undefined;
  /** Token ids, without added special tokens. */
  encode(text: string): readonly number[];
}

export interface ContextOptions {
  /** Tokens per context, BOS included. */
  readonly contextSize: number;
  /**
   * Every context starts with BOS, and BOS stands between the documents within one. A text's own BOS in that place is not
   * doubled. Without it documents follow each other with nothing between them.
   */
  readonly prependBos: boolean;
  /** After the last document, start again with the first, without end. */
  readonly repeat?: boolean;
}

/** A place between two contexts: the token with which the next one begins. */
export interface ContextPosition {
  /** Passes over the corpus completed. */
  readonly epoch: number;
  readonly document: number;
  readonly piece: number;
  /** Index of the token in the piece. */
  readonly token: number;
}

interface Cut {
  readonly context: Int32Array;
  readonly documents: Uint32Array;
  readonly next: ContextPosition;
}

/**
 * Cuts the documents of a corpus, joined, into contexts of exactly `contextSize` tokens. The rest at the end of a pass,
 * too short for a context, is dropped. Passes are alike and in the order of the corpus: shuffling is the business of
 * whoever shuffles activations.
 *
 * This is how SAELens builds its training contexts (concat_and_batch_sequences with BOS as first and separator token).
 */
export function contexts(corpus: Corpus, tokenizer: TextTokenizer, options: ContextOptions): Contexts {
  return new Contexts(corpus, tokenizer, options);
}

/** The contexts of a corpus, one after the other, from a position that can be saved and returned to. */
export class Contexts implements AsyncIterable<Int32Array> {
  readonly #corpus: Corpus;
  readonly #tokenizer: TextTokenizer;
  readonly #contextSize: number;
  readonly #bos: number | undefined;
  readonly #repeat: boolean;
  #position: ContextPosition = { epoch: 0, document: 0, piece: 0, token: 0 };
  #documents: Uint32Array = new Uint32Array(0);
  #running: AsyncGenerator<Cut, void, undefined> | undefined;
  #signal: AbortSignal | undefined;

  /**
   * @throws MonosemError ERR_CONFIG for a context size that holds no text, or for `prependBos` with a tokenizer that has
   *   no BOS
   */
  constructor(corpus: Corpus, tokenizer: TextTokenizer, options: ContextOptions) {
    const { contextSize, prependBos, repeat = false } = options;
    const least = prependBos ? 2 : 1;
    if (!Number.isSafeInteger(contextSize) || contextSize < least) {
      const why = prependBos ? " (BOS and a token)" : "";
      throw new MonosemError(
        "ERR_CONFIG",
        `contextSize must be an integer of at least ${least}${why}, found ${contextSize}`,
      );
    }
    if (prependBos && tokenizer.bosTokenId === undefined) {
      throw new MonosemError("ERR_CONFIG", "the tokenizer has no BOS token: set prependBos to false");
    }
    this.#corpus = corpus;
    this.#tokenizer = tokenizer;
    this.#contextSize = contextSize;
    this.#bos = prependBos ? tokenizer.bosTokenId : undefined;
    this.#repeat = repeat;
  }

  /** Where the next context begins. */
  get position(): ContextPosition {
    return this.#position;
  }

  /** Of each token of the context given last, which document of the corpus it is from. */
  get documents(): Uint32Array {
    return this.#documents;
  }

  /** Continues at a position that an iteration over the same corpus with the same options was at. */
  seek(position: ContextPosition): void {
    this.#position = position;
    this.#running = undefined;
  }

  /**
   * The next context, i32 [contextSize]; undefined after the last one (never, when repeating).
   *
   * @throws MonosemError ERR_CONFIG when the whole corpus is shorter than one context, ERR_ABORTED, ERR_FORMAT or ERR_IO
   *   from the corpus; after any of them the next call continues where the last context ended
   */
  async next(signal?: AbortSignal): Promise<Int32Array | undefined> {
    this.#signal = signal;
    this.#throwIfAborted();
    this.#running ??= this.#run();
    try {
      const { value, done } = await this.#running.next();
      if (done) return undefined;
      this.#position = value.next;
      this.#documents = value.documents;
      return value.context;
    } catch (error) {
      this.#running = undefined;
      throw error;
    }
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Int32Array, void, undefined> {
    for (let context = await this.next(); context !== undefined; context = await this.next()) yield context;
  }

  async *#run(): AsyncGenerator<Cut, void, undefined> {
    let start = this.#position;
    do {
      yield* this.#pass(start);
      start = { epoch: start.epoch + 1, document: 0, piece: 0, token: 0 };
    } while (this.#repeat);
  }

  async *#pass(start: ContextPosition): AsyncGenerator<Cut, void, undefined> {
    const { epoch } = start;
    let context = new Int32Array(this.#contextSize);
    let documents = new Uint32Array(this.#contextSize);
    let length = 0;
    let lastDocument = -1;
    let tokensSeen = 0;
    let contextsCut = 0;
    for await (const { document, piece, text } of this.#corpus.pieces(start.document)) {
      const inFirstDocument = document === start.document;
      if (inFirstDocument && piece < start.piece) continue;
      // Tokenising is synchronous: between two pieces, everything else gets its turn.
      await otherWork();
      this.#throwIfAborted();
      const tokens = this.#tokenizer.encode(text);
      tokensSeen += tokens.length;
      let token = inFirstDocument && piece === start.piece ? start.token : 0;
      while (token < tokens.length) {
        const isFirst = length === 0 || document !== lastDocument;
        documents[length] = document;
        if (isFirst && this.#bos !== undefined && tokens[token] !== this.#bos) context[length++] = this.#bos;
        else context[length++] = tokens[token++]!;
        lastDocument = document;
        if (length < this.#contextSize) continue;
        contextsCut += 1;
        yield { context, documents, next: { epoch, document, piece, token } };
        context = new Int32Array(this.#contextSize);
        documents = new Uint32Array(this.#contextSize);
        length = 0;
      }
    }
    const fromTheStart = start.document === 0 && start.piece === 0 && start.token === 0;
    if (contextsCut === 0 && fromTheStart) {
      throw new MonosemError(
        "ERR_CONFIG",
        `${this.#corpus.name} has ${tokensSeen} tokens, too few for one context of ${this.#contextSize}: ` +
          "give more text or a smaller contextSize",
      );
    }
  }

  #throwIfAborted(): void {
    const signal = this.#signal;
    if (signal?.aborted) {
      throw new MonosemError("ERR_ABORTED", "reading contexts was aborted", { cause: signal.reason });
    }
  }
}
