import { join } from "node:path";
import { Tokenizer as HuggingFaceTokenizer } from "@huggingface/tokenizers";
import { MonosemError } from "../errors.js";
import { readJsonObject, readJsonObjectIfPresent } from "./jsonFile.js";

/** What the library's `encode` returns: an id is missing where the vocabulary has no such token. */
interface Encoding {
  readonly ids: (number | undefined)[];
  readonly tokens: readonly string[];
}

/** Text to token ids and back, as the `tokenizer.json` of a model says. */
export class Tokenizer {
  /** One more than the highest id. */
  readonly vocabularySize: number;
  /** The token that begins a document; 0 is an id like any other. */
  readonly bosTokenId: number | undefined;
  readonly eosTokenId: number | undefined;
  /** Ids of the tokens that are no text: BOS, EOS and what `tokenizer.json` marks as special. */
  readonly specialTokenIds: ReadonlySet<number>;
  readonly #tokenizer: HuggingFaceTokenizer;
  readonly #addedTokens: ReadonlyMap<number, unknown>;
  readonly #byteLevel: boolean;

  private constructor(tokenizer: HuggingFaceTokenizer, byteLevel: boolean, bos?: number, eos?: number) {
    this.#tokenizer = tokenizer;
    this.#byteLevel = byteLevel;
    this.bosTokenId = bos;
    this.eosTokenId = eos;
    const added = tokenizer.get_added_tokens_decoder();
    this.#addedTokens = added;
    const special = new Set<number>();
    for (const [id, token] of added) if (token.special) special.add(id);
    for (const id of [bos, eos]) if (id !== undefined) special.add(id);
    this.specialTokenIds = special;
    let highest = -1;
    for (const id of tokenizer.get_vocab(true).values()) highest = Math.max(highest, id);
    this.vocabularySize = highest + 1;
  }

  /**
   * Reads `tokenizer.json` of a model's folder. BOS and EOS are the tokens that `tokenizer_config.json` names, else the
   * ids in `config.json`.
   *
   * @throws MonosemError ERR_NOT_FOUND when there is no tokenizer.json, ERR_FORMAT when a file is malformed or names a
   *   token that the vocabulary does not have
   */
  static async load(directory: string): Promise<Tokenizer> {
    const path = join(directory, "tokenizer.json");
    const definition = await readJsonObject(path);
    const configPath = join(directory, "tokenizer_config.json");
    const config = (await readJsonObjectIfPresent(configPath)) ?? {};
    const modelConfig = (await readJsonObjectIfPresent(join(directory, "config.json"))) ?? {};
    let tokenizer: HuggingFaceTokenizer;
    try {
      tokenizer = new HuggingFaceTokenizer(definition, config);
    } catch (error) {
      const problem = error instanceof Error ? error.message : String(error);
      throw new MonosemError("ERR_FORMAT", `${path} does not describe a tokenizer: ${problem}`, { cause: error });
    }
    const idOf = (role: "bos" | "eos"): number | undefined => {
      const token = contentOf(config[`${role}_token`]);
      if (token === undefined) return tokenIdIn(modelConfig[`${role}_token_id`]);
      const id = tokenizer.token_to_id(token);
      if (id !== undefined) return id;
      throw new MonosemError("ERR_FORMAT", `${configPath}: ${role}_token ${JSON.stringify(token)} is not in ${path}`);
    };
    return new Tokenizer(tokenizer, isByteLevel(definition.decoder), idOf("bos"), idOf("eos"));
  }

  /**
   * Ids of a text. No special tokens are added, but the name of one inside the text (`<|endoftext|>`) becomes its id.
   * A lone surrogate, which is no character, is read as U+FFFD.
   */
  encode(text: string): number[] {
    if (text === "") return [];
    const encoding: Encoding = this.#tokenizer.encode(text, { add_special_tokens: false });
    const { ids, tokens } = encoding;
    const unknown = ids.indexOf(undefined);
    if (unknown >= 0) {
      throw new MonosemError(
        "ERR_INVALID_ARGUMENT",
        `the tokenizer has no token for ${JSON.stringify(tokens[unknown])}, which the text contains`,
      );
    }
    return ids as number[];
  }

  /**
   * The text of ids, special tokens included by their names; bytes that are no UTF-8 become U+FFFD. A text without lone
   * surrogates comes back from a byte-level tokenizer exactly.
   *
   * @throws MonosemError ERR_INVALID_ARGUMENT for an id that the tokenizer does not have
   */
  decode(ids: readonly number[]): string {
    for (const [position, id] of ids.entries()) {
      if (this.#tokenizer.id_to_token(id) === undefined) {
        throw new MonosemError(
          "ERR_INVALID_ARGUMENT",
          `token id ${id} at position ${position} is not in the tokenizer's vocabulary of ${this.vocabularySize}`,
        );
      }
    }
    if (ids.length === 0) return "";
    return this.#tokenizer.decode([...ids], { skip_special_tokens: false, clean_up_tokenization_spaces: false });
  }

  /**
   * Readable text of one token: spaces and line breaks as they are, the bytes of an incomplete UTF-8 character as
   * escapes such as `\xE2`, a special or otherwise added token by its name, an unknown id as `[id]`. Never throws. What else may need
   * escaping is up to where the text is shown.
   */
  tokenText(id: number): string {
    const token = this.#tokenizer.id_to_token(id);
    if (token === undefined) return `[${id}]`;
    if (this.#addedTokens.has(id)) return token;
    if (!this.#byteLevel) return this.decode([id]);
    const bytes = bytesOf(token);
    return bytes === undefined ? token : readableText(bytes);
  }

  /** `tokenText` of each id. */
  tokenTexts(ids: Iterable<number>): string[] {
    return Array.from(ids, (id) => this.tokenText(id));
  }
}

/** The token that an entry of tokenizer_config.json names, as a string or as an added token's description. */
function contentOf(entry: unknown): string | undefined {
  if (typeof entry === "string") return entry;
  if (typeof entry === "object" && entry !== null && "content" in entry && typeof entry.content === "string") {
    return entry.content;
  }
  return undefined;
}

function tokenIdIn(entry: unknown): number | undefined {
  return Number.isSafeInteger(entry) && (entry as number) >= 0 ? (entry as number) : undefined;
}

/** Whether tokens spell bytes: the decoder is `ByteLevel`, alone or within a sequence. */
function isByteLevel(decoder: unknown): boolean {
  if (typeof decoder !== "object" || decoder === null || !("type" in decoder)) return false;
  if (decoder.type === "ByteLevel") return true;
  return "decoders" in decoder && Array.isArray(decoder.decoders) && decoder.decoders.some(isByteLevel);
}

/**
 * GPT-2's spelling of bytes: the printable characters of Latin-1 stand for themselves, the other bytes, in order, for
 * the characters from U+0100 on.
 */
const byteOfCharacter: ReadonlyMap<string, number> = (() => {
  const printable = (byte: number): boolean =>
    (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || (byte >= 0xae && byte <= 0xff);
  let next = 0x100;
  return new Map(
    Array.from({ length: 256 }, (_, byte) => [String.fromCharCode(printable(byte) ? byte : next++), byte]),
  );
})();

/** The bytes that a token spells; undefined for one that spells none, such as an added token. */
function bytesOf(token: string): Uint8Array | undefined {
  const bytes = Array.from(token, (character) => byteOfCharacter.get(character));
  return bytes.includes(undefined) ? undefined : Uint8Array.from(bytes as number[]);
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
