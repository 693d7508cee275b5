/**
 * Tokenizers of llama2.c: a SentencePiece vocabulary with scores, in one file of little-endian numbers: i32, the longest
 * token; then for each token f32 score, i32 length, its bytes.
 *
 * A text gets a space in front, is cut into characters (those that the vocabulary lacks into bytes, tokens 3 ... 258), and
 * then the neighbours whose union has the highest score are joined, the leftmost of equals, until no union is a token.
 */
import { readFile, stat } from "node:fs/promises";
import { MonosemError } from "../errors.js";
import type { TokenCodec } from "./tokenCodec.js";

const mostBytes = 2 ** 28;
const [unknownId, bosId, eosId, firstByteId] = [0, 1, 2, 3];

/** A possible union of two neighbours. */
interface Union {
  readonly score: number;
  readonly left: number;
  readonly right: number;
  readonly id: number;
}

export class Llama2cTokenizer implements TokenCodec {
  readonly vocabularySize: number;
  readonly bosTokenId: number = bosId;
  /** llama2.c's models end a story by beginning another. */
  readonly eosTokenId: number = bosId;
  readonly chatTemplate: undefined;
  readonly specialTokenIds: ReadonlySet<number> = new Set([unknownId, bosId, eosId]);
  /** Tokens as strings of bytes, one per character: JavaScript compares and joins those quickly. */
  readonly #pieces: readonly string[];
  readonly #scores: readonly number[];
  readonly #idOf: ReadonlyMap<string, number>;

  private constructor(pieces: readonly string[], scores: readonly number[]) {
    this.vocabularySize = pieces.length;
    this.#pieces = pieces;
    this.#scores = scores;
    const idOf = new Map<string, number>();
    for (const [id, piece] of pieces.entries()) if (!idOf.has(piece)) idOf.set(piece, id);
    this.#idOf = idOf;
  }

  /** @throws MonosemError ERR_NOT_FOUND, ERR_IO, ERR_FORMAT for a file that is no such tokenizer */
  static async load(path: string): Promise<Llama2cTokenizer> {
    let bytes: Buffer;
    try {
      const { size } = await stat(path);
      if (size > mostBytes) throw new MonosemError("ERR_FORMAT", `${path} is no llama2.c tokenizer: ${size} bytes`);
      bytes = await readFile(path);
    } catch (error) {
      if (error instanceof MonosemError) throw error;
      const missing = ["ENOENT", "ENOTDIR"].includes((error as NodeJS.ErrnoException).code ?? "");
      throw new MonosemError(
        missing ? "ERR_NOT_FOUND" : "ERR_IO",
        missing ? `${path} does not exist` : `${path} cannot be read: ${(error as Error).message}`,
        { cause: error },
      );
    }
    return Llama2cTokenizer.parse(bytes, path);
  }

  /** @throws MonosemError ERR_FORMAT, naming `path`, for bytes that are no such tokenizer */
  static parse(bytes: Buffer, path: string): Llama2cTokenizer {
    const refuse = (problem: string): never => {
      throw new MonosemError("ERR_FORMAT", `${path} is no llama2.c tokenizer: ${problem}`);
    };
    const pieces: string[] = [];
    const scores: number[] = [];
    for (let at = 4; at < bytes.length; ) {
      if (at + 8 > bytes.length) refuse("it ends within a token");
      const score = bytes.readFloatLE(at);
      const length = bytes.readInt32LE(at + 4);
      at += 8;
      if (Number.isNaN(score)) refuse(`the score of token ${pieces.length} is NaN`);
      if (length < 0 || at + length > bytes.length) refuse(`token ${pieces.length} has a length of ${length}`);
      pieces.push(bytes.toString("latin1", at, at + length));
      scores.push(score);
      at += length;
    }
    if (pieces.length < firstByteId + 256) refuse(`${pieces.length} tokens are fewer than there are bytes`);
    return new Llama2cTokenizer(pieces, scores);
  }

  encode(text: string): number[] {
    const ids: number[] = [];
    for (const character of ` ${text}`) {
      const bytes = Buffer.from(character);
      const id = this.#idOf.get(bytes.toString("latin1"));
      if (id === undefined) for (const byte of bytes) ids.push(firstByteId + byte);
      else ids.push(id);
    }
    return this.#joined(ids);
  }

  decode(ids: readonly number[]): string {
    const parts = ids.map((id, i) => {
      if (this.specialTokenIds.has(id)) return Buffer.from(this.token(id)!);
      const bytes = this.bytesOf(id)!;
      const first = i === 0 || ids[i - 1] === bosId;
      return first && bytes[0] === 0x20 ? bytes.subarray(1) : bytes;
    });
    return new TextDecoder("utf-8", { ignoreBOM: true }).decode(Buffer.concat(parts));
  }

  token(id: number): string | undefined {
    const piece = this.#pieces[id];
    if (piece === undefined) return undefined;
    const name = Buffer.from(piece, "latin1").toString();
    return this.specialTokenIds.has(id) ? name.trim() : name;
  }

  bytesOf(id: number): Uint8Array | undefined {
    const piece = this.#pieces[id];
    if (piece === undefined || this.specialTokenIds.has(id)) return undefined;
    return id < firstByteId + 256 ? Uint8Array.of(id - firstByteId) : Buffer.from(piece, "latin1");
  }

  /** Joins neighbours, the best first. Places are those of the characters; a union stands at its left one. */
  #joined(characters: readonly number[]): number[] {
    const ids: (number | undefined)[] = [...characters];
    const count = ids.length;
    const next = Int32Array.from({ length: count }, (_, i) => i + 1);
    const previous = Int32Array.from({ length: count }, (_, i) => i - 1);
    const unions = new UnionHeap();
    const consider = (left: number, right: number): void => {
      if (left < 0 || right >= count) return;
      const id = this.#idOf.get(this.#pieces[ids[left]!]! + this.#pieces[ids[right]!]!);
      if (id !== undefined) unions.push({ score: this.#scores[id]!, left, right, id });
    };
    for (let i = 0; i + 1 < count; i++) consider(i, i + 1);
    for (let union = unions.pop(); union !== undefined; union = unions.pop()) {
      const { left, right, id } = union;
      const [a, b] = [ids[left], ids[right]];
      // One of the two may have been joined with another since.
      if (a === undefined || b === undefined || next[left] !== right) continue;
      if (this.#idOf.get(this.#pieces[a]! + this.#pieces[b]!) !== id) continue;
      ids[left] = id;
      ids[right] = undefined;
      const after = next[right]!;
      next[left] = after;
      if (after < count) previous[after] = left;
      consider(previous[left]!, left);
      consider(left, after);
    }
    return ids.filter((id) => id !== undefined);
  }
}

/** The best union first: the highest score, then the leftmost. */
class UnionHeap {
  readonly #unions: Union[] = [];

  push(union: Union): void {
    const unions = this.#unions;
    let i = unions.push(union) - 1;
    while (i > 0) {
      const parent = (i - 1) >> 1;
      if (!before(unions[i]!, unions[parent]!)) break;
      [unions[i], unions[parent]] = [unions[parent]!, unions[i]!];
      i = parent;
    }
  }

  pop(): Union | undefined {
    const unions = this.#unions;
    const best = unions[0];
    const last = unions.pop();
    if (best === undefined || last === best) return best;
    unions[0] = last!;
    for (let i = 0; ; ) {
      let first = i;
      for (const child of [2 * i + 1, 2 * i + 2]) {
        if (child < unions.length && before(unions[child]!, unions[first]!)) first = child;
      }
      if (first === i) return best;
      [unions[i], unions[first]] = [unions[first]!, unions[i]!];
      i = first;
    }
  }
}

function before(a: Union, b: Union): boolean {
  return a.score !== b.score ? a.score > b.score : a.left < b.left;
}
