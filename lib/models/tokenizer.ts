import { stat } from "node:fs/promises";
import { basename, dirname, extname, join } from "node:path";
import { refuseArgument } from "../checkArguments.js";
import { MonosemError } from "../errors.js";
import { exists } from "../formats/exists.js";
import type { ChatMessage } from "./chatTemplate.js";
import { HuggingFaceTokenizer } from "./huggingFaceTokenizer.js";
import { Llama2cTokenizer } from "./llama2cTokenizer.js";
import type { TokenCodec } from "./tokenCodec.js";

/** Token ids of a text, and the part of the text that each token stands for: `text.slice(start, end)`. */
export interface TokensWithOffsets {
  readonly ids: readonly number[];
  /**
   * For each token [start, end) in the text's UTF-16 units. Tokens that share a character, because each has some of its
   * bytes, all have the whole character; one that stands for nothing of the text is empty.
   */
  readonly offsets: readonly (readonly [start: number, end: number])[];
}

/** Text to token ids and back. */
export class Tokenizer {
  /** One more than the highest id. */
  readonly vocabularySize: number;
  /** The token that begins a document; 0 is an id like any other. */
  readonly bosTokenId: number | undefined;
  readonly eosTokenId: number | undefined;
  /** Ids of the tokens that are no text, such as BOS and EOS. */
  readonly specialTokenIds: ReadonlySet<number>;
  readonly #codec: TokenCodec;

  private constructor(codec: TokenCodec) {
    this.#codec = codec;
    this.vocabularySize = codec.vocabularySize;
    this.bosTokenId = codec.bosTokenId;
    this.eosTokenId = codec.eosTokenId;
    this.specialTokenIds = codec.specialTokenIds;
  }

  /**
   * Reads `tokenizer.json` (and `tokenizer_config.json`, `config.json`) of a model's folder, which that file stands for as
   * well, or a file `.bin` of llama2.c. BOS and EOS are the tokens that `tokenizer_config.json` names, else the ids in `config.json`.
   *
   * @throws MonosemError ERR_NOT_FOUND when there is no such file, ERR_FORMAT when a file is another, malformed or names a
   *   token that the vocabulary does not have
   */
  static async load(path: string): Promise<Tokenizer> {
    if (typeof path !== "string") refuseArgument("Tokenizer.load: path", "a folder or a file", path);
    const found = await stat(path).catch(() => undefined);
    if (extname(path) === ".bin" && !found?.isDirectory()) return new Tokenizer(await Llama2cTokenizer.load(path));
    const directory = basename(path) === "tokenizer.json" ? dirname(path) : path;
    const expected = "a tokenizer is a folder with tokenizer.json, that file, or a file .bin of llama2.c";
    if (found?.isFile() && directory === path) {
      throw new MonosemError("ERR_FORMAT", `${path} is no tokenizer: ${expected}`);
    }
    const file = join(directory, "tokenizer.json");
    if (!(await exists(file))) throw new MonosemError("ERR_NOT_FOUND", `${file} does not exist; ${expected}`);
    return new Tokenizer(await HuggingFaceTokenizer.load(directory));
  }

  /**
   * Ids of a text. No special tokens are added, but the name of one inside the text (`<|endoftext|>`) becomes its id.
   * A lone surrogate, which is no character, is read as U+FFFD.
   *
   * @throws MonosemError ERR_INVALID_ARGUMENT for what is no text
   */
  encode(text: string): number[] {
    if (typeof text !== "string") refuseArgument("encode: the text", "a text", text);
    return text === "" ? [] : this.#codec.encode(Buffer.from(text).toString());
  }

  /**
   * Ids of a text, and where in the text each token stands.
   *
   * @throws MonosemError ERR_UNSUPPORTED where the tokens do not spell the text, because the tokenizer changes it first
   *   (lower case, say) or cannot represent it
   */
  encodeWithOffsets(text: string): TokensWithOffsets {
    const ids = this.encode(text);
    const pieces = ids.map((id) => this.#codec.bytesOf(id));
    const inText = Buffer.from(text);
    const spelled = pieces.includes(undefined) ? undefined : Buffer.concat(pieces as Uint8Array[]);
    // Some tokenizers put a space in front of every text.
    const added = spelled !== undefined && spelled.length === inText.length + 1 && spelled[0] === 0x20 ? 1 : 0;
    if (spelled === undefined || !spelled.subarray(added).equals(inText)) {
      throw new MonosemError(
        "ERR_UNSUPPORTED",
        "this tokenizer's tokens do not spell the text (it changes texts before it cuts them): there are no offsets",
      );
    }
    const characters = charactersOfBytes(text);
    let first = -added;
    const offsets = pieces.map((piece): [number, number] => {
      const [begin, end] = [Math.max(first, 0), first + piece!.length];
      first = end;
      if (end <= begin) return [characters.at(begin).start, characters.at(begin).start];
      return [characters.at(begin).start, characters.at(end - 1).end];
    });
    return { ids, offsets };
  }

  /**
   * The text of ids, special tokens included by their names; bytes that are no UTF-8 become U+FFFD. A text without lone
   * surrogates comes back from a byte-level tokenizer exactly.
   *
   * @throws MonosemError ERR_INVALID_ARGUMENT for what is no list, and for an id that the tokenizer does not have
   */
  decode(ids: readonly number[]): string {
    if (!Array.isArray(ids) && !ArrayBuffer.isView(ids)) refuseArgument("decode: the ids", "a list of token ids", ids);
    for (const [position, id] of ids.entries()) {
      if (this.#codec.token(id) === undefined) {
        throw new MonosemError(
          "ERR_INVALID_ARGUMENT",
          `token id ${String(id)} at position ${position} is not in the tokenizer's vocabulary of ${this.vocabularySize}`,
        );
      }
    }
    return ids.length === 0 ? "" : this.#codec.decode(ids);
  }

  /**
   * The bytes that a token adds to a text: UTF-8, though perhaps only a part of a character. Of a special token, or one
   * whose text depends on its surroundings, its name's; of an unknown id none.
   */
  tokenBytes(id: number): Uint8Array {
    return this.#codec.bytesOf(id) ?? Buffer.from(this.#codec.token(id) ?? "");
  }

  /**
   * A conversation as the text that the model was trained to continue, by the template that its makers wrote.
   *
   * @param options - `addGenerationPrompt`: end with what begins the model's answer. Default true.
   * @throws MonosemError ERR_UNSUPPORTED when the tokenizer has no chat template, ERR_INVALID_ARGUMENT when the template
   *   refuses the conversation
   */
  chatText(messages: readonly ChatMessage[], options: { readonly addGenerationPrompt?: boolean } = {}): string {
    const { chatTemplate } = this.#codec;
    if (chatTemplate === undefined) {
      throw new MonosemError("ERR_UNSUPPORTED", "this tokenizer has no chat template: its model is not made for chats");
    }
    return chatTemplate.render(messages, options.addGenerationPrompt ?? true);
  }

  /**
   * Readable text of one token: spaces and line breaks as they are, the bytes of an incomplete UTF-8 character as
   * escapes such as `\xE2`, a special or otherwise added token by its name, an unknown id as `[id]`. Never throws. What
   * else may need escaping is up to where the text is shown.
   */
  tokenText(id: number): string {
    const token = this.#codec.token(id);
    if (token === undefined) return `[${id}]`;
    const bytes = this.#codec.bytesOf(id);
    return bytes === undefined ? token : readableText(bytes);
  }

  /** `tokenText` of each id. */
  tokenTexts(ids: Iterable<number>): string[] {
    return Array.from(ids, (id) => this.tokenText(id));
  }
}

/** Which character of a text, in UTF-16 units, each byte of its UTF-8 belongs to. */
function charactersOfBytes(text: string): { at(byte: number): { readonly start: number; readonly end: number } } {
  const starts: number[] = [];
  const ends: number[] = [];
  let unit = 0;
  for (const character of text) {
    const end = unit + character.length;
    for (let byte = Buffer.byteLength(character); byte > 0; byte--) {
      starts.push(unit);
      ends.push(end);
    }
    unit = end;
  }
  return { at: (byte) => ({ start: starts[byte] ?? unit, end: ends[byte] ?? unit }) };
}

/** UTF-8 to text, with the bytes that belong to no complete character as `\xNN`. */
function readableText(bytes: Uint8Array): string {
  let text = "";
  for (let i = 0; i < bytes.length; ) {
    const length = utf8Length(bytes[i]!);
    const character = length === 0 ? undefined : decodeStrictly(bytes.subarray(i, i + length));
    text += character ?? `\\x${bytes[i]!.toString(16).toUpperCase().padStart(2, "0")}`;
    i += character === undefined ? 1 : length;
  }
  return text;
}

/** Bytes of the UTF-8 character that begins with `byte`; 0 where none does. */
function utf8Length(byte: number): number {
  if (byte < 0x80) return 1;
  if (byte < 0xc2) return 0;
  if (byte < 0xe0) return 2;
  if (byte < 0xf0) return 3;
  return byte < 0xf5 ? 4 : 0;
}

const strictDecoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

function decodeStrictly(bytes: Uint8Array): string | undefined {
  try {
    return strictDecoder.decode(bytes);
  } catch {
    return undefined;
  }
}
