import { mkdir, mkdtemp, readFile, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { keyedPermutation } from "../../lib/activations/permutation.js";
import { StoredActivations, type StoredActivationsOptions } from "../../lib/activations/storedActivations.js";
import { Device } from "../../lib/engine/device.js";
import { writeSafetensors } from "../../lib/formats/safetensors.js";
import { testDevice } from "../testDevice.js";

let device: Device;
beforeAll(async () => {
  device = await Device.open(testDevice, { threads: 1 });
});
afterAll(() => device.close());

let directory: string;
const opened: StoredActivations[] = [];
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "monosem-stored-"));
});
afterEach(async () => {
  for (const source of opened.splice(0)) source.dispose();
  await rm(directory, { recursive: true, force: true });
});

/** Row r of the whole set is [r, r + 0.5, -r]. */
const rowsOf = (first: number, rows: number): Float32Array =>
  Float32Array.from({ length: rows * 3 }, (_, i) => {
    const row = first + Math.floor(i / 3);
    return [row, row + 0.5, -row][i % 3]!;
  });

async function writeShards(path: string, sizes: readonly number[], tensor = "activations"): Promise<void> {
  await mkdir(path, { recursive: true });
  let first = 0;
  for (const [index, rows] of sizes.entries()) {
    const data = rowsOf(first, rows);
    await writeSafetensors(join(path, `part-${index}.safetensors`), { [tensor]: { shape: [rows, 3], data } });
    first += rows;
  }
}

async function open(path: string, options: Partial<StoredActivationsOptions> = {}): Promise<StoredActivations> {
  const source = await StoredActivations.open(path, device, { shuffle: false, seed: 0, ...options });
  opened.push(source);
  return source;
}

/** Serves batches and gives the numbers of their rows, having checked that the rows are whole. */
async function serve(source: StoredActivations, ...batchSizes: number[]): Promise<number[][]> {
  const batches: number[][] = [];
  for (const batchSize of batchSizes) {
    using batch = await source.next(batchSize);
    expect(batch.shape).toEqual([batchSize, 3]);
    const data = await batch.readFloat32();
    const rows = Array.from({ length: batchSize }, (_, i) => data[i * 3]!);
    expect(data).toEqual(Float32Array.from(rows.flatMap((row) => [row, row + 0.5, -row])));
    batches.push(rows);
  }
  return batches;
}

const upTo = (rows: number): number[] => Array.from({ length: rows }, (_, i) => i);

describe("in order", () => {
  test("batches are consecutive rows across shards, beginning again after the last row", async () => {
    await writeShards(join(directory, "shards"), [3, 0, 1, 6]);
    await writeShards(directory, [10]);
    for (const path of [join(directory, "shards"), join(directory, "part-0.safetensors")]) {
      const source = await open(path);
      expect([source.rows, source.dIn]).toEqual([10, 3]);
      expect(await serve(source, 4, 4, 4, 1, 25, 3)).toEqual([
        [0, 1, 2, 3],
        [4, 5, 6, 7],
        [8, 9, 0, 1],
        [2],
        [...upTo(10).slice(3), ...upTo(10), ...upTo(8)],
        [8, 9, 0],
      ]);
    }
  });

  test("f16 and bf16 files are served as f32", async () => {
    for (const dtype of ["F16", "BF16"] as const) {
      const path = join(directory, `${dtype}.safetensors`);
      const data =
        dtype === "F16" ? Uint16Array.of(0x3c00, 0xc100, 0x0001, 0x7bff) : Uint16Array.of(0x3f80, 0xc020, 1, 2);
      await writeSafetensors(path, { activations: { shape: [2, 2], dtype, data } });
      using batch = await (await open(path)).next(2);
      const expected = dtype === "F16" ? [1, -2.5, 2 ** -24, 65504] : [1, -2.5, 2 ** -133, 2 ** -132];
      expect(Array.from(await batch.readFloat32())).toEqual(expected);
    }
  });

  test("another tensor is served when it is named", async () => {
    await writeShards(directory, [2, 2], "layer 3");
    expect(await serve(await open(directory, { tensor: "layer 3" }), 4)).toEqual([[0, 1, 2, 3]]);
    await expect(open(directory)).rejects.toMatchObject({
      code: "ERR_NOT_FOUND",
      message: expect.stringContaining('"layer 3"'),
    });
  });
});

describe("shuffled", () => {
  const epochs = async (source: StoredActivations, batchSizes: number[], epochRows: number): Promise<number[][]> => {
    const stream = (await serve(source, ...batchSizes)).flat();
    const found: number[][] = [];
    for (let i = 0; i + epochRows <= stream.length; i += epochRows) found.push(stream.slice(i, i + epochRows));
    return found;
  };

  test.each([
    ["in memory", undefined],
    ["in groups", 400],
    ["in the smallest groups", 1],
  ])("every row is served once per epoch, in another order each time, %s", async (_, shuffleMemoryBytes) => {
    await writeShards(directory, [40, 7, 53]);
    const options = { shuffle: true, seed: 5, ...(shuffleMemoryBytes === undefined ? {} : { shuffleMemoryBytes }) };
    const batchSizes = [30, 30, 30, 30, 1, 79, 7, 93];
    const served = await epochs(await open(directory, options), batchSizes, 100);
    expect(served).toHaveLength(3);
    for (const epoch of served) {
      expect(epoch.toSorted((a, b) => a - b)).toEqual(upTo(100));
      expect(epoch).not.toEqual(upTo(100));
    }
    expect(served[0]).not.toEqual(served[1]);
    expect(await epochs(await open(directory, options), [50, 50, 200], 100)).toEqual(served);
    const [otherSeed] = await epochs(await open(directory, { ...options, seed: 6 }), [100], 100);
    expect(otherSeed).not.toEqual(served[0]);
  });

  test("groups mix rows from all over the files", async () => {
    await writeShards(directory, [500, 500]);
    const spans: number[] = [];
    for (let seed = 0; seed < 10; seed++) {
      const source = await open(directory, { shuffle: true, seed, shuffleMemoryBytes: 12 * 400 });
      const [batch] = await serve(source, 100);
      spans.push(Math.max(...batch!) - Math.min(...batch!));
    }
    // A group of 200 rows is 8 runs of 25: the expected span of 8 random places among 1000 rows is about 780.
    expect(spans.reduce((sum, span) => sum + span, 0) / spans.length).toBeGreaterThan(650);
  });
});

describe("calls that overlap", () => {
  test.each([
    ["in order", { shuffle: false }],
    ["shuffled", { shuffle: true, seed: 3 }],
    ["shuffled in groups", { shuffle: true, seed: 3, shuffleMemoryBytes: 12 * 40 }],
  ])("serve and save what calls one after the other do, %s", async (_, options) => {
    await writeShards(directory, [40, 60]);
    const sequential = await open(directory, options);
    const expected = await serve(sequential, 30, 7, 30, 1, 50);
    const source = await open(directory, options);
    const [first, second, , state, ...rest] = await Promise.all([
      serve(source, 30),
      serve(source, 7),
      expect(source.next(9, AbortSignal.abort())).rejects.toMatchObject({ code: "ERR_ABORTED" }),
      source.saveState(),
      serve(source, 30),
      serve(source, 1),
      serve(source, 50),
    ]);
    expect([first, second, ...rest].flat()).toEqual(expected);
    expect(state.state).toMatchObject({ served: 37 });
    expect((await source.saveState()).state).toEqual((await sequential.saveState()).state);
    await source.restoreState(state);
    expect(await serve(source, 30)).toEqual([expected[2]]);
  });

  test("one that is aborted while it waits for its turn takes no rows, and does not wait", async () => {
    await writeShards(directory, [40]);
    const source = await open(directory);
    const abort = new AbortController();
    const settled: string[] = [];
    const first = serve(source, 5).finally(() => settled.push("first"));
    const aborted = source.next(5, abort.signal).finally(() => settled.push("aborted"));
    const last = serve(source, 5);
    abort.abort();
    await expect(aborted).rejects.toMatchObject({ code: "ERR_ABORTED" });
    expect(await first).toEqual([[0, 1, 2, 3, 4]]);
    expect(await last).toEqual([[5, 6, 7, 8, 9]]);
    expect(settled).toEqual(["aborted", "first"]);
  });

  test("those that wait when the source is disposed hear of it", async () => {
    await writeShards(directory, [40]);
    const source = await open(directory);
    const waiting = [source.next(5), source.next(5)];
    source.dispose();
    for (const one of await Promise.allSettled(waiting)) {
      expect(one).toMatchObject({ status: "rejected", reason: { code: "ERR_DISPOSED" } });
    }
  });
});

describe("resuming", () => {
  test.each([
    ["in order", { shuffle: false }],
    ["shuffled", { shuffle: true, seed: 3 }],
    ["shuffled in groups", { shuffle: true, seed: 3, shuffleMemoryBytes: 150 }],
  ])("continues exactly, %s", async (_, options) => {
    await writeShards(directory, [11, 12]);
    const straight = await open(directory, options);
    await serve(straight, 5, 5, 20);
    const saved = JSON.parse(JSON.stringify(await straight.saveState()));
    const expected = await serve(straight, 7, 7, 50);
    const resumed = await open(directory, options);
    await serve(resumed, 3);
    await resumed.restoreState(saved);
    expect(await serve(resumed, 7, 7, 50)).toEqual(expected);
    await straight.restoreState(saved);
    expect(await serve(straight, 7)).toEqual(expected.slice(0, 1));
  });

  test("is refused for other files, another order or a damaged state", async () => {
    await writeShards(directory, [10]);
    await writeShards(join(directory, "more"), [12]);
    const source = await open(directory, { shuffle: true, seed: 1 });
    const saved = await source.saveState();
    for (const [path, options, named] of [
      [join(directory, "more"), { shuffle: true, seed: 1 }, "rows"],
      [directory, { shuffle: true, seed: 2 }, "seed"],
      [directory, { shuffle: false }, "shuffle"],
    ] as const) {
      const failure = (await open(path, options)).restoreState(saved);
      await expect(failure).rejects.toMatchObject({ code: "ERR_CONFIG", message: expect.stringContaining(named) });
    }
    await expect(source.restoreState({ state: null, tensors: {} })).rejects.toMatchObject({ code: "ERR_CONFIG" });
    const noCount = { ...(saved.state as object), served: -1 };
    await expect(source.restoreState({ state: noCount, tensors: {} })).rejects.toMatchObject({ code: "ERR_FORMAT" });
  });
});

describe("the row that holds NaN or infinity is named by its file", () => {
  /** Two shards of 40 and 60 rows; the second holds a bad number in its row 23. */
  async function writeBad(dtype: "F32" | "F16" | "BF16"): Promise<string> {
    for (const [part, rows] of [40, 60].entries()) {
      const bits = { F16: [0x3c00, 0xfc00], BF16: [0x3f80, 0x7fc0], F32: [1, Number.NaN] }[dtype];
      const data = dtype === "F32" ? new Float32Array(rows * 3) : new Uint16Array(rows * 3);
      data.fill(bits[0]!);
      if (part === 1) data[23 * 3 + 2] = bits[1]!;
      await writeSafetensors(join(directory, `part-${part}.safetensors`), {
        activations: { shape: [rows, 3], dtype, data } as never,
      });
    }
    return directory;
  }

  test.each<["F32" | "F16" | "BF16", Partial<StoredActivationsOptions>]>([
    ["F32", { shuffle: false }],
    ["F16", { shuffle: false }],
    ["BF16", { shuffle: true }],
    ["F32", { shuffle: true, seed: 3 }],
    ["F32", { shuffle: true, seed: 4, shuffleMemoryBytes: 30 * 12 }],
  ])("%s, %o", async (dtype, options) => {
    const source = await open(await writeBad(dtype), options);
    let found: string | undefined;
    for (let served = 0; served < 300; served += 25) {
      const batch = await source.next(25);
      const bad = (await batch.readFloat32()).some((value) => !Number.isFinite(value));
      found = await source.findNonFinite(25);
      if (bad) expect(found).toBe(`row 23 (the first is 0) of ${join(directory, "part-1.safetensors")}`);
      else expect(found).toBeUndefined();
      batch.dispose();
    }
    expect(await source.findNonFinite(100)).toMatch(/row 23 /);
  });
});

describe("files that cannot be right", () => {
  const write = (name: string, shape: number[], data: Float32Array | Float64Array | Int32Array) =>
    writeSafetensors(join(directory, name), { activations: { shape, data } });

  test("shards that disagree in width or dtype, or have the wrong shape, are refused by name", async () => {
    await write("a.safetensors", [2, 3], new Float32Array(6));
    await write("b.safetensors", [2, 4], new Float32Array(8));
    await expect(open(directory)).rejects.toMatchObject({
      code: "ERR_FORMAT",
      message: expect.stringMatching(/b\.safetensors is F32 of width 4.*a\.safetensors is F32 of width 3/),
    });
    const bits = { shape: [2, 3], dtype: "BF16", data: new Uint16Array(6) } as const;
    await writeSafetensors(join(directory, "b.safetensors"), { activations: bits });
    await expect(open(directory)).rejects.toMatchObject({ code: "ERR_FORMAT" });
    await write("b.safetensors", [2, 3, 1], new Float32Array(6));
    await expect(open(directory)).rejects.toMatchObject({ code: "ERR_SHAPE_MISMATCH" });
    await write("b.safetensors", [2, 3], new Float64Array(6));
    await expect(open(directory)).rejects.toMatchObject({ code: "ERR_DTYPE_MISMATCH" });
    await write("b.safetensors", [0, 3], new Float32Array(0));
    await expect(open(join(directory, "b.safetensors"))).rejects.toMatchObject({ code: "ERR_CONFIG" });
  });

  test("a truncated shard, an empty folder and a missing path are refused by name", async () => {
    await writeShards(directory, [4, 4]);
    const shard = join(directory, "part-1.safetensors");
    const { length } = await readFile(shard);
    await truncate(shard, length - 1);
    await expect(open(directory)).rejects.toMatchObject({
      code: "ERR_FORMAT",
      message: expect.stringContaining("part-1.safetensors"),
    });
    await mkdir(join(directory, "empty"));
    await expect(open(join(directory, "empty"))).rejects.toMatchObject({ code: "ERR_NOT_FOUND" });
    await expect(open(join(directory, "nowhere"))).rejects.toMatchObject({ code: "ERR_NOT_FOUND" });
  });

  test("a shard cut while it is served is an error of the batch that needs it", async () => {
    await writeShards(directory, [4]);
    const source = await open(directory);
    await serve(source, 1);
    await truncate(join(directory, "part-0.safetensors"), 100);
    await serve(source, 1); // was read ahead
    await expect(source.next(3)).rejects.toMatchObject({ code: "ERR_FORMAT" });
  });

  test("a manifest that does not fit its shards is refused", async () => {
    await writeShards(directory, [4, 4]);
    const manifest = {
      ...{ formatVersion: 1, model: "m", hook: "h", tokenizer: "", corpus: "", contextSize: 8, prependBos: true },
      ...{ excludeSpecialTokens: true, tensor: "activations", dtype: "F32", dIn: 3, rows: 8, complete: true },
      shards: ["part-1.safetensors", "part-0.safetensors"].map((file) => ({ file, rows: 4 })),
      position: { epoch: 0, document: 0, piece: 0, token: 0 },
    };
    const tryManifest = async (changes: object): Promise<StoredActivations> => {
      await writeFile(join(directory, "manifest.json"), JSON.stringify({ ...manifest, ...changes }));
      return await open(directory);
    };
    expect(await serve(await tryManifest({}), 8)).toEqual([[4, 5, 6, 7, 0, 1, 2, 3]]);
    for (const [changes, reason] of [
      [{ rows: 9 }, "its shards have 8"],
      [{ rows: 9, shards: [{ file: "part-0.safetensors", rows: 9 }] }, "the manifest says 9"],
      [{ dIn: 4 }, "width 4"],
      [{ dtype: "BF16" }, "BF16"],
      [{ complete: false }, "incomplete"],
      [{ shards: [{ file: "../part-0.safetensors", rows: 8 }] }, "not a file beside it"],
      [{ surprise: 1 }, "surprise"],
      [{ formatVersion: 2 }, "formatVersion"],
    ] as const) {
      const failure = tryManifest(changes);
      await expect(failure).rejects.toMatchObject({ code: "ERR_FORMAT" });
      await expect(failure).rejects.toThrow(reason);
    }
    await writeFile(join(directory, "manifest.json"), "{");
    await expect(open(directory)).rejects.toThrow("is not JSON");
  });
});

test("an abort loses nothing, and bad arguments and disposed sources are refused", async () => {
  await writeShards(directory, [4]);
  const source = await open(directory);
  await expect(source.next(2, AbortSignal.abort())).rejects.toMatchObject({ code: "ERR_ABORTED" });
  const controller = new AbortController();
  const interrupted = source.next(2, controller.signal);
  controller.abort();
  await expect(interrupted).rejects.toMatchObject({ code: "ERR_ABORTED" });
  expect(await serve(source, 2)).toEqual([[0, 1]]);
  for (const batchSize of [0, -1, 1.5]) {
    await expect(source.next(batchSize)).rejects.toMatchObject({ code: "ERR_INVALID_ARGUMENT" });
  }
  await expect(open(directory, { seed: -1 })).rejects.toMatchObject({ code: "ERR_INVALID_ARGUMENT" });
  source.dispose();
  source.dispose();
  await expect(source.next(1)).rejects.toMatchObject({ code: "ERR_DISPOSED" });
});

describe("keyedPermutation", () => {
  test("is a permutation, the same for the same keys, another for others", async () => {
    for (const size of [0, 1, 2, 3, 1000, 70_000]) {
      const permutation = await keyedPermutation(size, [7, 1]);
      expect(permutation.toSorted()).toEqual(Uint32Array.from(upTo(size)));
      expect(await keyedPermutation(size, [7, 1])).toEqual(permutation);
    }
    const of = async (...keys: number[]) => (await keyedPermutation(50, keys)).join();
    const several = [
      await of(0),
      await of(1),
      await of(0, 0),
      await of(0, 1),
      await of(1, 0),
      await of(2 ** 32),
      await of(2 ** 40),
    ];
    expect(new Set(several).size).toBe(several.length);
  });

  test("puts every element everywhere equally often", async () => {
    const size = 5;
    const rounds = 20_000;
    const counts = new Float64Array(size * size);
    for (let key = 0; key < rounds; key++) {
      const permutation = await keyedPermutation(size, [key]);
      for (const [place, element] of permutation.entries()) counts[place * size + element]! += 1;
    }
    const expected = rounds / size;
    const chiSquared = counts.reduce((sum, count) => sum + (count - expected) ** 2 / expected, 0);
    expect(chiSquared).toBeLessThan(45); // 16 degrees of freedom: the keys are fixed, so this never changes
  });
});
