/** Tokenizers of Hugging Face: a model's `tokenizer.json`. */
import { join } from "node:path";
import { Tokenizer as HuggingFace } from "@huggingface/tokenizers";
import { MonosemError } from "../errors.js";
import { quotedValue } from "../schemaMessages.js";
import { ChatTemplate, contentOf } from "./chatTemplate.js";
import { readJsonObject, readJsonObjectIfPresent } from "./jsonFile.js";
import type { TokenCodec } from "./tokenCodec.js";
import { checkTokenizer } from "./tokenizerDefinition.js";

/** What the library's `encode` returns: an id is missing where the vocabulary has no such token. */
interface Encoding {
  readonly ids: (number | undefined)[];
  readonly tokens: readonly string[];
}

/** How tokens spell text. */
type Spelling = "bytes" | "pieces" | "otherwise";

export class HuggingFaceTokenizer implements TokenCodec {
  readonly vocabularySize: number;
  readonly bosTokenId: number | undefined;
  readonly eosTokenId: number | undefined;
  /** Ids of the tokens that are no text: BOS, EOS and what `tokenizer.json` marks as special. */
  readonly specialTokenIds: ReadonlySet<number>;
  readonly chatTemplate: ChatTemplate | undefined;
  /** Of tokenizer.json, for messages. */
  readonly #path: string;
  readonly #tokenizer: HuggingFace;
  readonly #addedTokens: ReadonlyMap<number, unknown>;
  readonly #spelling: Spelling;

  private constructor(
    tokenizer: HuggingFace,
    parts: {
      readonly path: string;
      readonly vocabularySize: number;
      readonly spelling: Spelling;
      readonly bos: number | undefined;
      readonly eos: number | undefined;
      readonly chatTemplate: ChatTemplate | undefined;
    },
  ) {
    const { spelling, bos, eos } = parts;
    this.#tokenizer = tokenizer;
    this.#spelling = spelling;
    this.bosTokenId = bos;
    this.eosTokenId = eos;
    this.chatTemplate = parts.chatTemplate;
    const added = tokenizer.get_added_tokens_decoder();
    this.#addedTokens = added;
    const special = new Set<number>();
    for (const [id, token] of added) if (token.special) special.add(id);
    for (const id of [bos, eos]) if (id !== undefined) special.add(id);
    this.specialTokenIds = special;
    this.vocabularySize = parts.vocabularySize;
    this.#path = parts.path;
  }

  /**
   * Reads `tokenizer.json` of a model's folder. BOS and EOS are the tokens that `tokenizer_config.json` names, else the
   * ids in `config.json`.
   *
   * @throws MonosemError ERR_NOT_FOUND when there is no tokenizer.json, ERR_FORMAT when a file is malformed or names a
   *   token that the vocabulary does not have, ERR_UNSUPPORTED for a regular expression that could take forever
   */
  static async load(directory: string): Promise<HuggingFaceTokenizer> {
    const path = join(directory, "tokenizer.json");
    const definition = await readJsonObject(path);
    const configPath = join(directory, "tokenizer_config.json");
    const config = (await readJsonObjectIfPresent(configPath)) ?? {};
    const modelConfig = (await readJsonObjectIfPresent(join(directory, "config.json"))) ?? {};
    const vocabularySize = checkTokenizer(definition, path);
    let tokenizer: HuggingFace;
    try {
      // No special tokens are added or left out here, which is all that these two are for.
      const used = { ...definition, post_processor: null };
      tokenizer = new HuggingFace(used, { ...config, additional_special_tokens: [] });
    } catch (error) {
      const problem = error instanceof Error ? error.message : String(error);
      throw new MonosemError("ERR_FORMAT", `${path} does not describe a tokenizer: ${problem}`, { cause: error });
    }
    const idOf = (role: "bos" | "eos"): number | undefined => {
      const token = contentOf(config[`${role}_token`]);
      if (token === undefined) return tokenIdIn(modelConfig[`${role}_token_id`]);
      const id = tokenizer.token_to_id(token);
      if (id !== undefined) return id;
      throw new MonosemError("ERR_FORMAT", `${configPath}: ${role}_token ${quotedValue(token)} is not in ${path}`);
    };
    return new HuggingFaceTokenizer(tokenizer, {
      path,
      vocabularySize,
      spelling: spellingOf(definition.decoder),
      bos: idOf("bos"),
      eos: idOf("eos"),
      chatTemplate: await ChatTemplate.load(directory, config),
    });
  }

  encode(text: string): number[] {
    const encoding: Encoding = this.#running(() => this.#tokenizer.encode(text, { add_special_tokens: false }));
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

  decode(ids: readonly number[]): string {
    const options = { skip_special_tokens: false, clean_up_tokenization_spaces: false };
    return this.#running(() => this.#tokenizer.decode([...ids], options));
  }

  /** What is wrong with a definition may be seen only where it is run. */
  #running<Result>(run: () => Result): Result {
    try {
      return run();
    } catch (error) {
      const problem = error instanceof Error ? error.message : String(error);
      throw new MonosemError("ERR_FORMAT", `${this.#path}: the tokenizer fails: ${problem}`, { cause: error });
    }
  }

  token(id: number): string | undefined {
    return this.#tokenizer.id_to_token(id);
  }

  bytesOf(id: number): Uint8Array | undefined {
    const token = this.token(id);
    if (token === undefined) return undefined;
    if (this.#addedTokens.has(id)) return Buffer.from(token);
    if (this.#spelling === "bytes") return bytesOf(token);
    if (this.#spelling === "otherwise") return undefined;
    const byte = /^<0x([0-9A-F]{2})>$/.exec(token);
    return byte === null ? Buffer.from(token.replaceAll("\u2581", " ")) : Uint8Array.of(Number.parseInt(byte[1]!, 16));
  }
}

function tokenIdIn(entry: unknown): number | undefined {
  return Number.isSafeInteger(entry) && (entry as number) >= 0 ? (entry as number) : undefined;
}

/**
 * `ByteLevel` decoders, alone or within a sequence, read tokens as bytes; those that turn U+2581 into a space read pieces
 * of text, in which `<0xNN>` is a byte.
 */
function spellingOf(decoder: unknown): Spelling {
  if (typeof decoder !== "object" || decoder === null || !("type" in decoder)) return "otherwise";
  if (decoder.type === "ByteLevel") return "bytes";
  if (decoder.type === "Metaspace") return "pieces";
  if (decoder.type === "Replace" && JSON.stringify(decoder).includes("\u2581")) return "pieces";
  if (!("decoders" in decoder) || !Array.isArray(decoder.decoders)) return "otherwise";
  return decoder.decoders.map(spellingOf).find((spelling) => spelling !== "otherwise") ?? "otherwise";
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
