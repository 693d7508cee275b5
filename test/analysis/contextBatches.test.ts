import { expect, test } from "vitest";
import { type Contexts, contextBatches, limitTokens } from "../../lib/analysis/contextBatches.js";

const of = (...lengths: number[]): Int32Array[] => lengths.map((length, index) => new Int32Array(length).fill(index));

async function shapes(contexts: Contexts, size: number): Promise<number[][]> {
  const result: number[][] = [];
  for await (const batch of contextBatches(contexts, size)) {
    result.push([batch.contexts.length, batch.positions]);
  }
  return result;
}

test("contexts of one length are grouped, and another length begins a new batch", async () => {
  expect(await shapes(of(4, 4, 4, 4, 4, 3, 4), 2)).toEqual([
    [2, 4],
    [2, 4],
    [1, 4],
    [1, 3],
    [1, 4],
  ]);
});

test("empty contexts are passed over, and nothing but empty ones is an error", async () => {
  expect(await shapes(of(0, 2, 0), 8)).toEqual([[1, 2]]);
  await expect(shapes(of(0), 8)).rejects.toMatchObject({ code: "ERR_CONFIG" });
  await expect(shapes([], 8)).rejects.toMatchObject({ code: "ERR_CONFIG" });
});

test("an abort ends the pass before the next batch", async () => {
  const controller = new AbortController();
  const seen: number[] = [];
  const pass = async (): Promise<void> => {
    for await (const batch of contextBatches(of(4, 4, 4), 1, controller.signal)) {
      seen.push(batch.positions);
      controller.abort();
    }
  };
  await expect(pass()).rejects.toMatchObject({ code: "ERR_ABORTED" });
  expect(seen).toEqual([4]);
});

test("a limit on tokens ends after the context that reaches it", async () => {
  const lengths = async (tokens: number): Promise<number[]> => {
    const result: number[] = [];
    for await (const context of limitTokens(of(4, 4, 4), tokens)) result.push(context.length);
    return result;
  };
  expect(await lengths(1)).toEqual([4]);
  expect(await lengths(8)).toEqual([4, 4]);
  expect(await lengths(9)).toEqual([4, 4, 4]);
  expect(await lengths(100)).toEqual([4, 4, 4]);
});
