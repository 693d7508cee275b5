/**
 * Random and mutated bytes for the readers of llama2.c's files. Every input must be refused with ERR_FORMAT or
 * ERR_UNSUPPORTED, or be one: a checkpoint whose tensors are exactly the file, a tokenizer that gives every text back.
 *
 * A short run is part of the tests; `npm run fuzz -- 1000000` makes a long one, with a new seed each time. A failure
 * prints the input in base64.
 */
import { expect, test } from "vitest";
import { MonosemError } from "../../lib/errors.js";
import { parseHeader } from "../../lib/models/llama2c.js";
import { Llama2cTokenizer } from "../../lib/models/llama2cTokenizer.js";
import { random, runs, seed } from "./inputs.js";

const numbers = [0, 1, -1, 2, 3, 4, 12, 259, 2 ** 24, 2 ** 24 + 1, 2 ** 31 - 1, -(2 ** 31), 0x616b3432];

function mutated(bytes: Buffer, below: (limit: number) => number): Buffer {
  let out = Buffer.from(bytes);
  for (let mutations = below(5); mutations > 0 && out.length >= 4; mutations--) {
    const at = below(out.length - 3);
    const kind = below(4);
    if (kind === 0) out[at] = below(256);
    else if (kind === 1) out.writeInt32LE(numbers[below(numbers.length)]!, at - (at % 4));
    else if (kind === 2) out = out.subarray(0, at);
    else out = Buffer.concat([out.subarray(0, at), out.subarray(at - below(at + 1))]);
  }
  return out;
}

function refusal(bytes: Buffer, read: () => void): void {
  try {
    read();
  } catch (error) {
    if (error instanceof MonosemError && ["ERR_FORMAT", "ERR_UNSUPPORTED"].includes(error.code)) return;
    throw new Error(`input ${bytes.toString("base64")}`, { cause: error });
  }
}

test("headers of checkpoints", () => {
  const below = random(seed);
  const version0 = Buffer.from(Int32Array.of(4, 6, 2, 2, 1, 5, 3).buffer);
  const version1 = Buffer.concat([Buffer.from("24ka"), Buffer.from([1, 0, 0, 0]), version0, Buffer.alloc(220)]);
  let accepted = 0;
  for (let run = 0; run < runs; run++) {
    const bytes = mutated(below(2) === 0 ? version0 : version1, below);
    // Of the lengths that a file can have, the one that its header asks for is the interesting one.
    let fileBytes = bytes.length;
    refusal(bytes, () => parseHeader(bytes, fileBytes, "file"));
    try {
      parseHeader(bytes, -1, "file");
    } catch (error) {
      fileBytes = Number(/asks for (\d+) \(/.exec((error as Error).message)?.[1] ?? -1);
    }
    if (fileBytes < 0 || fileBytes > 2 ** 24) continue;
    const { config, elements, offset } = parseHeader(bytes, fileBytes, "file");
    accepted += 1;
    expect(offset + 4 * elements).toBe(fileBytes);
    expect(config.nHeads * config.dHead).toBe(config.dModel);
  }
  expect(accepted).toBeGreaterThan(runs / 20);
});

test("tokenizers", () => {
  const below = random(seed);
  const token = (piece: string): Buffer => {
    const head = Buffer.alloc(8);
    head.writeFloatLE(-piece.length, 0);
    head.writeInt32LE(piece.length, 4);
    return Buffer.concat([head, Buffer.from(piece, "latin1")]);
  };
  const pieces = ["<unk>", "\n<s>\n", "\n</s>\n", ...Array.from({ length: 256 }, (_, i) => `<0x${i.toString(16)}>`)];
  const valid = Buffer.concat([Buffer.alloc(4), ...[...pieces, " ", "a", "b", "ab", "ba", " a"].map(token)]);
  let accepted = 0;
  for (let run = 0; run < runs / 20; run++) {
    const bytes = mutated(valid, below);
    refusal(bytes, () => {
      const tokenizer = Llama2cTokenizer.parse(bytes, "file");
      accepted += 1;
      // What it spells is the file's business: a piece may have been changed, also one that stands for a byte.
      const ids = tokenizer.encode("abba é😀 a");
      expect(ids.length).toBeGreaterThan(0);
      expect(ids.every((id) => Number.isInteger(id) && id >= 0 && id < tokenizer.vocabularySize)).toBe(true);
      expect(typeof tokenizer.decode(ids)).toBe("string");
    });
  }
  expect(accepted).toBeGreaterThan(runs / 200);
});
