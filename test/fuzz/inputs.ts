/** What the fuzz tests share: how many inputs, which, and how valid ones are spoiled. */

/** A short run is part of the tests; scripts/fuzz.mjs makes a long one, with a new seed each time. */
export const runs = Number(process.env.MONOSEM_FUZZ_RUNS ?? 5_000);
export const seed = process.env.MONOSEM_FUZZ_RUNS === undefined ? 1 : Date.now() >>> 0;

export type Below = (limit: number) => number;

/** mulberry32: a small generator, so that a seed names an input. */
export function random(state: number): Below {
  return (below) => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) % below;
  };
}

/** Up to four times: a byte is changed, bytes are left out or doubled, a token is put in or over others. */
export function mutated(bytes: Buffer, tokens: readonly Buffer[], below: Below): Buffer {
  for (let mutations = below(5); mutations > 0; mutations--) {
    const at = below(bytes.length + 1);
    const end = Math.min(bytes.length, at + below(8));
    const kind = below(5);
    if (kind === 0 && bytes.length > 0) {
      bytes = Buffer.from(bytes);
      bytes[at % bytes.length] = below(256);
    } else if (kind === 1) bytes = Buffer.concat([bytes.subarray(0, at), bytes.subarray(end)]);
    else if (kind === 2) bytes = Buffer.concat([bytes.subarray(0, end), bytes.subarray(at)]);
    else {
      const token = tokens[below(tokens.length)]!;
      bytes = Buffer.concat([bytes.subarray(0, at), token, bytes.subarray(kind === 3 ? at : end)]);
    }
  }
  return bytes;
}
