import fc from "fast-check";
import { expect, test } from "vitest";
import { maximumAssignment } from "../../lib/toy/linearAssignment.js";

/** The best sum over all assignments of the rows (no more than columns), by trying them all. */
function bestSum(weights: Float32Array, rows: number, columns: number, row = 0, used = 0): number {
  if (row === rows) return 0;
  let best = Number.NEGATIVE_INFINITY;
  for (let column = 0; column < columns; column++) {
    if (used & (1 << column)) continue;
    const rest = bestSum(weights, rows, columns, row + 1, used | (1 << column));
    best = Math.max(best, weights[row * columns + column]! + rest);
  }
  return best;
}

function sumOf(weights: Float32Array, columns: number, columnOfRow: Int32Array): number {
  return columnOfRow.reduce((sum, column, row) => (column === -1 ? sum : sum + weights[row * columns + column]!), 0);
}

const problem = fc.tuple(fc.integer({ min: 1, max: 5 }), fc.integer({ min: 1, max: 6 })).chain(([rows, columns]) =>
  fc.record({
    rows: fc.constant(rows),
    columns: fc.constant(columns),
    // Small integers make ties, floats none.
    weights: fc.oneof(
      fc.array(fc.integer({ min: -2, max: 2 }), { minLength: rows * columns, maxLength: rows * columns }),
      fc.array(fc.float({ min: -1, max: 1, noNaN: true }), { minLength: rows * columns, maxLength: rows * columns }),
    ),
  }),
);

test("the matching has the largest sum of all, with each column used once at most", async () => {
  await fc.assert(
    fc.asyncProperty(problem, async ({ rows, columns, weights }) => {
      const matrix = Float32Array.from(weights);
      const columnOfRow = await maximumAssignment(matrix, rows, columns);
      const matched = columnOfRow.filter((column) => column !== -1);
      expect(columnOfRow.length).toBe(rows);
      expect(matched.length).toBe(Math.min(rows, columns));
      expect(new Set(matched).size).toBe(matched.length);
      const transposed = Float32Array.from(matrix, (_, i) => matrix[(i % rows) * columns + Math.floor(i / rows)]!);
      const best = rows <= columns ? bestSum(matrix, rows, columns) : bestSum(transposed, columns, rows);
      expect(sumOf(matrix, columns, columnOfRow)).toBeCloseTo(best, 5);
    }),
    { numRuns: 500 },
  );
});

test("a hidden permutation is found among many rows, also when all rows want the same columns", async () => {
  const size = 300;
  const weights = new Float32Array(size * size);
  for (let row = 0; row < size; row++) {
    for (let column = 0; column < size; column++) {
      // popular columns add the same to every row, so they do not change which matching is best
      const noise = ((row * 7919 + column * 104729) % 1000) / 10_000;
      weights[row * size + column] = noise + (column % 50) / 50 + (column === (row * 17 + 5) % size ? 0.2 : 0);
    }
  }
  const columnOfRow = await maximumAssignment(weights, size, size);
  expect(Array.from(columnOfRow)).toEqual(Array.from({ length: size }, (_, row) => (row * 17 + 5) % size));
});

test("nothing to match gives nothing; wrong sizes, NaN and infinity are refused; the signal ends a long search", async () => {
  expect(await maximumAssignment(new Float32Array(0), 0, 3)).toEqual(new Int32Array(0));
  expect(await maximumAssignment(new Float32Array(0), 2, 0)).toEqual(Int32Array.of(-1, -1));
  await expect(maximumAssignment(new Float32Array(5), 2, 3)).rejects.toMatchObject({ code: "ERR_SHAPE_MISMATCH" });
  for (const bad of [Number.NaN, Number.POSITIVE_INFINITY]) {
    await expect(maximumAssignment(Float32Array.of(1, bad), 1, 2)).rejects.toMatchObject({ code: "ERR_NON_FINITE" });
  }
  const size = 1500;
  const large = Float32Array.from({ length: size * size }, (_, i) => Math.sin(i));
  await expect(maximumAssignment(large, size, size, AbortSignal.abort())).rejects.toMatchObject({
    code: "ERR_ABORTED",
  });
});
