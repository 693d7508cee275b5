/**
 * Random and mutated bytes for the safetensors reader. Every input must be refused with ERR_FORMAT, or be a valid file:
 * its tensors cover the data exactly once, so that reading all of them allocates no more than the file's length.
 *
 * A short run is part of the tests; `npm run fuzz -- 1000000` makes a long one, with a new seed each time. A failure
 * prints the input in base64.
 */
import { expect, test } from "vitest";
import { MonosemError } from "../../lib/errors.js";
import { parseHeader, readHeaderLength, safetensorsDTypeBytes } from "../../lib/formats/safetensorsHeader.js";
import { mutated, random, runs, seed } from "./inputs.js";

const validHeaders = [
  "{}",
  '{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}',
  '{"__metadata__":{"format":"pt","x":"\\u00fc"},"a":{"dtype":"F16","shape":[2,2],"data_offsets":[0,8]}}  ',
  '{"a":{"dtype":"U8","shape":[],"data_offsets":[0,1]},"b":{"dtype":"F64","shape":[0,9],"data_offsets":[1,1]},' +
    '"c":{"shape":[7],"data_offsets":[1,8],"dtype":"BOOL"}}',
];

const tokens = [
  ...'{}[]:,"\\ 01289-.eE\n\0',
  ...["null", "true", "1e400", "9007199254740993", "18446744073709551616", "4294967296", "__proto__", "__metadata__"],
  ...['"a":', '"dtype"', '"shape"', '"data_offsets"', '"F32"', "[0,8]", "\\u0061", "\\ud800", "{}", "[[[[[[[["],
].map((token) => Buffer.from(token));

function anyInput(below: (limit: number) => number): Buffer {
  const header = mutated(Buffer.from(validHeaders[below(validHeaders.length)]!), tokens, below);
  const dataBytes = [8, 8, 8, 0, below(17)][below(5)]!;
  const file = Buffer.alloc(8 + header.length + dataBytes);
  file.writeBigUInt64LE(BigInt(below(20) === 0 ? below(2 ** 32) : header.length));
  header.copy(file, 8);
  if (below(20) === 0) file[below(8)] = below(256);
  if (below(50) === 0) for (let i = 8; i < file.length; i++) file[i] = below(256);
  return below(20) === 0 ? file.subarray(0, below(file.length)) : file;
}

test(`${runs} random and mutated safetensors files are valid or refused (seed ${seed})`, { timeout: 0 }, () => {
  const below = random(seed);
  let valid = 0;
  for (let run = 0; run < runs; run++) {
    const file = anyInput(below);
    try {
      const headerBytes = readHeaderLength(file.subarray(0, 8), file.length, "fuzz");
      const { entries } = parseHeader(file.subarray(8, 8 + headerBytes), file.length, "fuzz");
      let position = 8 + headerBytes;
      for (const { dtype, shape, byteOffset, byteLength } of entries.values()) {
        const expectedBytes = shape.reduce((a, b) => a * b, safetensorsDTypeBytes[dtype]);
        if (byteOffset !== position || byteLength !== expectedBytes) expect.fail(file.toString("base64"));
        position += byteLength;
      }
      if (position !== file.length) expect.fail(file.toString("base64"));
      valid++;
    } catch (error) {
      if (!(error instanceof MonosemError) || error.code !== "ERR_FORMAT") {
        throw new Error(`not refused properly: ${file.toString("base64")}`, { cause: error });
      }
    }
  }
  // Otherwise the mutations never get past the first check.
  expect(valid).toBeGreaterThan(runs / 100);
  expect(valid).toBeLessThan(runs / 2);
});
