import type { ChatTemplate } from "./chatTemplate.js";

/** What a kind of tokenizer does; `Tokenizer` has the rest. */
export interface TokenCodec {
  /** One more than the highest id. */
  readonly vocabularySize: number;
  /** The token that begins a document; 0 is an id like any other. */
  readonly bosTokenId: number | undefined;
  readonly eosTokenId: number | undefined;
  /** Ids of the tokens that are no text. */
  readonly specialTokenIds: ReadonlySet<number>;
  /** How to write a conversation; undefined where the model is not made for any. */
  readonly chatTemplate: ChatTemplate | undefined;
  /** Ids of a text without lone surrogates that is not empty. No special tokens are added. */
  encode(text: string): number[];
  /** The text of ids that the vocabulary has, special tokens included by their names. */
  decode(ids: readonly number[]): string;
  /** The name of a token; undefined where the vocabulary has no such id. */
  token(id: number): string | undefined;
  /** The bytes of text that a token stands for; undefined where that depends on its surroundings, or is not text. */
  bytesOf(id: number): Uint8Array | undefined;
}
