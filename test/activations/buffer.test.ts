import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { ActivationBuffer, type ModelActivationOptions } from "../../lib/activations/buffer.js";
import { Corpus } from "../../lib/activations/corpus.js";
import type { SourceState } from "../../lib/activations/source.js";
import { Device } from "../../lib/engine/device.js";
import { reachableBytes } from "../reachableBytes.js";
import { testDevice } from "../testDevice.js";
import { FakeModel } from "./fakeModel.js";

let device: Device;
beforeAll(async () => {
  device = await Device.open(testDevice, { threads: 1 });
});
afterAll(() => device.close());

/** 90 different characters, so that every token of the text is told apart. */
const alphabet = String.fromCharCode(...Array.from({ length: 90 }, (_, i) => 37 + i));

const optionsFor = (changes: Partial<ModelActivationOptions> = {}): ModelActivationOptions => ({
  model: new FakeModel(device),
  hook: "hook",
  corpus: Corpus.fromDocuments([alphabet]),
  contextSize: 10,
  prependBos: true,
  excludeSpecialTokens: true,
  bufferTokens: 40,
  seed: 1,
  batchPrompts: 2,
  ...changes,
});

async function serve(buffer: ActivationBuffer, ...batchSizes: number[]): Promise<number[][]> {
  const batches: number[][] = [];
  for (const batchSize of batchSizes) {
    using batch = await buffer.next(batchSize);
    expect(batch.shape).toEqual([batchSize, buffer.dIn]);
    const data = await batch.readFloat32();
    batches.push(Array.from({ length: batchSize }, (_, i) => data[i * buffer.dIn]!));
  }
  return batches;
}

const sorted = (numbers: readonly number[]): number[] => numbers.toSorted((a, b) => a - b);

describe("ActivationBuffer", () => {
  test("serves the activations of every token of the text but special ones, id 0 included, shuffled", async () => {
    // 10 contexts of BOS and 9 tokens make an epoch: 90 different tokens.
    using buffer = await ActivationBuffer.create(optionsFor());
    const codes = [...alphabet].map((character) => character.charCodeAt(0));
    const served = (await serve(buffer, ...Array.from({ length: 90 }, () => 20))).flat();
    expect(new Set(served)).toEqual(new Set(codes));
    expect(served.slice(0, 20)).not.toEqual(sorted(served.slice(0, 20)));
    // 1800 rows are 20 epochs; what is still in the buffer is at most two rows per token short or over.
    for (const code of codes) {
      const times = served.filter((id) => id === code).length;
      expect(Math.abs(times - 20)).toBeLessThanOrEqual(2);
    }
  });

  test("nothing is lost or doubled: what was served and what waits is a stretch of the text", async () => {
    using buffer = await ActivationBuffer.create(optionsFor());
    const served = (await serve(buffer, 7, 13, 20, 1, 19)).flat(); // three halves
    const { state, tensors } = await buffer.saveState();
    const { order, rows } = tensors;
    const { served: place } = state as { served: number };
    const waiting = Array.from(order!.data.slice(place), (row) => rows!.data[row * 2]!);
    const text = [...alphabet, ...alphabet].map((character) => character.charCodeAt(0));
    expect(sorted([...served, ...waiting])).toEqual(sorted(text.slice(0, served.length + waiting.length)));
    expect(waiting).toHaveLength(20);
  });

  test("special tokens are served when the policy says so", async () => {
    using buffer = await ActivationBuffer.create(optionsFor({ excludeSpecialTokens: false, bufferTokens: 100 }));
    const served = (await serve(buffer, 50, 50, 50, 50)).flat();
    expect(served.filter((id) => id === 0).length).toBeGreaterThan(10);
    using without = await ActivationBuffer.create(
      optionsFor({ corpus: Corpus.fromDocuments([alphabet.replaceAll(/[a-f]/g, "$")]) }),
    );
    const kept = new Set((await serve(without, 40, 40, 40, 40, 40, 40, 40, 40)).flat());
    expect(kept.has(0) || kept.has(1)).toBe(false);
    expect(kept.size).toBe(84);
  });

  test("the same seed serves the same, whatever the sizes of the batches; another seed does not", async () => {
    const first40 = async (options: ModelActivationOptions, ...sizes: number[]): Promise<number[]> => {
      using buffer = await ActivationBuffer.create(options);
      return (await serve(buffer, ...sizes)).flat();
    };
    const reference = await first40(optionsFor(), 40, 40);
    expect(await first40(optionsFor(), 1, 3, 16, 30, 30)).toEqual(reference);
    expect(await first40(optionsFor(), 80)).toEqual(reference);
    expect(await first40(optionsFor({ seed: 2 }), 80)).not.toEqual(reference);
    expect(sorted(await first40(optionsFor({ bufferTokens: 3 }), 6))).toHaveLength(6);
  });

  test("a resumed buffer goes on bit for bit, from any place, in another process' memory", async () => {
    for (const served of [[], [5], [20], [20, 20], [7, 7, 7, 7, 33]]) {
      using straight = await ActivationBuffer.create(optionsFor());
      await serve(straight, ...served);
      const { state, tensors } = await straight.saveState();
      const saved: SourceState = { state: JSON.parse(JSON.stringify(state)), tensors };
      const expected = await serve(straight, 11, 20, 50);
      using resumed = await ActivationBuffer.create(optionsFor());
      await serve(resumed, 3); // has work under way when it is restored
      await resumed.restoreState(saved);
      expect(await serve(resumed, 11, 20, 50)).toEqual(expected);
      await straight.restoreState(saved);
      expect(await serve(straight, 11, 20, 50)).toEqual(expected);
    }
  });

  test("calls that overlap serve and save what calls one after the other do", async () => {
    using sequential = await ActivationBuffer.create(optionsFor());
    const expected = await serve(sequential, 5, 20, 33, 1);
    using buffer = await ActivationBuffer.create(optionsFor());
    const [first, second, state, ...rest] = await Promise.all([
      serve(buffer, 5),
      serve(buffer, 20),
      buffer.saveState(),
      serve(buffer, 33),
      serve(buffer, 1),
    ]);
    expect([first, second, ...rest].flat()).toEqual(expected);
    const next = await serve(sequential, 11);
    expect(await serve(buffer, 11)).toEqual(next);
    await buffer.restoreState(state);
    expect(await serve(buffer, 33)).toEqual([expected[2]]);
  });

  test("those that wait for activations when the buffer is disposed hear of it", async () => {
    const buffer = await ActivationBuffer.create(optionsFor());
    const waiting = [buffer.next(5), buffer.next(50)];
    buffer.dispose();
    for (const one of await Promise.allSettled(waiting)) {
      expect(one).toMatchObject({ status: "rejected", reason: { code: "ERR_DISPOSED" } });
    }
  });

  test("a state of another model, text, policy or buffer is refused, and so is a damaged one", async () => {
    using buffer = await ActivationBuffer.create(optionsFor());
    await serve(buffer, 5);
    const saved = await buffer.saveState();
    for (const [changes, named] of [
      [{ corpus: Corpus.fromDocuments([`${alphabet}x`]) }, "corpus"],
      [{ contextSize: 9 }, "contextSize"],
      [{ excludeSpecialTokens: false }, "excludeSpecialTokens"],
      [{ bufferTokens: 42 }, "bufferTokens"],
      [{ seed: 9 }, "seed"],
      [{ batchPrompts: 3 }, "batchPrompts"],
    ] as const) {
      using other = await ActivationBuffer.create(optionsFor(changes));
      const failure = other.restoreState(saved);
      await expect(failure).rejects.toMatchObject({ code: "ERR_CONFIG", message: expect.stringContaining(named) });
    }
    const { rows, order } = saved.tensors;
    const twice = { shape: [40], data: Int32Array.from({ length: 40 }, () => 1) };
    const short = { shape: [1, 2], data: new Float32Array(2) };
    for (const damaged of [
      { ...saved, tensors: { rows: rows! } },
      { ...saved, tensors: { rows: rows!, order: twice } },
      { ...saved, tensors: { rows: short, order: order! } },
      { ...saved, state: { ...(saved.state as object), served: 21 } },
      { ...saved, state: { ...(saved.state as object), position: null } },
    ]) {
      await expect(buffer.restoreState(damaged)).rejects.toMatchObject({ code: "ERR_FORMAT" });
    }
    await buffer.restoreState(saved);
    expect(await serve(buffer, 5)).toHaveLength(1);
  });

  test("passes for the next refill run while the buffer is served, and no more than those", async () => {
    const options = optionsFor();
    using buffer = await ActivationBuffer.create(options);
    const model = options.model as FakeModel;
    await serve(buffer, 4);
    const afterFilling = model.passes; // 40 rows of 18 per pass
    expect(afterFilling).toBe(3);
    await serve(buffer, 8, 8);
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect(model.passes).toBe(4); // 14 rows were left over and half a buffer is 20
    await serve(buffer, 1);
    expect(model.passes).toBe(4);
  });

  test("an abort is reported at once, and what follows is as without it", async () => {
    using undisturbed = await ActivationBuffer.create(optionsFor());
    const expected = await serve(undisturbed, 30, 30);
    using buffer = await ActivationBuffer.create(optionsFor());
    const abort = () => expect(buffer.next(30, AbortSignal.abort())).rejects.toMatchObject({ code: "ERR_ABORTED" });
    await abort();
    const controller = new AbortController();
    const interrupted = buffer.next(30, controller.signal);
    controller.abort();
    await expect(interrupted).rejects.toMatchObject({ code: "ERR_ABORTED" });
    const [first] = await serve(buffer, 30);
    await abort();
    expect([first, ...(await serve(buffer, 30))]).toEqual(expected);
  });

  test("an abort does not wait for passes, and gives back what a batch had taken before them", async () => {
    const options = optionsFor();
    const model = options.model as FakeModel;
    const activations = model.activations.bind(model);
    let waits = Promise.resolve();
    model.activations = (tokens) => waits.then(() => activations(tokens));
    using undisturbed = await ActivationBuffer.create(optionsFor());
    const expected = await serve(undisturbed, 13, 12, 30);
    using buffer = await ActivationBuffer.create(options);
    await serve(buffer, 1);
    let goOn = (): void => undefined;
    waits = new Promise((resolve) => {
      goOn = resolve;
    });
    const [rest] = await serve(buffer, 12);
    const before = await buffer.saveState();
    const controller = new AbortController();
    const interrupted = buffer.next(12, controller.signal); // 7 of them are there
    setTimeout(() => controller.abort(), 20);
    await expect(interrupted).rejects.toMatchObject({ code: "ERR_ABORTED" });
    expect(await buffer.saveState()).toEqual(before);
    goOn();
    expect([rest, ...(await serve(buffer, 12, 30))]).toEqual([expected[0]!.slice(1), ...expected.slice(1)]);
  });

  test("a pass that fails on the device is reported as what it is", async () => {
    const options = optionsFor();
    const model = options.model as FakeModel;
    const activations = model.activations.bind(model);
    model.activations = async (tokens) => {
      const rows = await activations(tokens);
      if (model.passes < 3) return rows;
      const beyond = device.tensor(new Int32Array(20).fill(1000), [20]);
      return device.kernels.gatherRows(rows, beyond);
    };
    using buffer = await ActivationBuffer.create(options);
    await expect(buffer.next(5)).rejects.toMatchObject({
      code: "ERR_INVALID_ARGUMENT",
      message: expect.stringContaining("gatherRows"),
    });
  });

  test("what cannot work is refused with a reason", async () => {
    const refused = async (changes: Partial<ModelActivationOptions>, code: string, reason: string) => {
      const failure = ActivationBuffer.create(optionsFor(changes));
      await expect(failure).rejects.toMatchObject({ code });
      await expect(failure).rejects.toThrow(reason);
    };
    await refused({ corpus: Corpus.fromDocuments(["abc"]) }, "ERR_CONFIG", "3 tokens");
    await refused({ corpus: Corpus.fromDocuments(["$".repeat(30)]) }, "ERR_CONFIG", "special tokens only");
    await refused({ bufferTokens: 1 }, "ERR_CONFIG", "bufferTokens");
    await refused({ bufferTokens: 1e12 }, "ERR_OUT_OF_MEMORY", "use a smaller bufferTokens");
    await refused({ contextSize: 65 }, "ERR_CONFIG", "at most 64");
    await refused({ hook: "nowhere" }, "ERR_NOT_FOUND", "nowhere");
    await refused(
      { hook: "liar" },
      "ERR_SHAPE_MISMATCH",
      "hook point liar gave activations of shape [20, 2], expected [20, 3]",
    );
    await refused({ batchPrompts: 0 }, "ERR_INVALID_ARGUMENT", "batchPrompts");
    const buffer = await ActivationBuffer.create(optionsFor());
    await expect(buffer.next(0)).rejects.toMatchObject({ code: "ERR_INVALID_ARGUMENT" });
    buffer.dispose();
    buffer.dispose();
    await expect(buffer.next(1)).rejects.toMatchObject({ code: "ERR_DISPOSED" });
    await expect(buffer.saveState()).rejects.toMatchObject({ code: "ERR_DISPOSED" });
  });

  test("gives its memory back", async () => {
    const before = await reachableBytes(device);
    const buffer = await ActivationBuffer.create(optionsFor());
    await serve(buffer, 20, 20, 20, 9);
    await buffer.restoreState(await buffer.saveState());
    buffer.dispose();
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect(await reachableBytes(device)).toBe(before);
  });
});
