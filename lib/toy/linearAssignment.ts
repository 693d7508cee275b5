/**
 * The linear assignment problem: match each row of a matrix with a column of its own, so that the sum of the weights is as
 * large as possible (the "Hungarian matching").
 *
 * Shortest augmenting paths with dual variables, as Crouse 2016, "On implementing 2D rectangular assignment algorithms",
 * which is also what scipy.optimize.linear_sum_assignment runs: at most rows² * columns steps. Before, most rows are matched
 * by bidding for columns (the augmenting row reduction of Jonker and Volgenant 1987), which is far cheaper where many rows
 * want the same columns.
 */
import { setImmediate as otherWork } from "node:timers/promises";
import { MonosemError, throwIfAborted } from "../errors.js";

/** Comparisons of a weight between two turns of the event loop: some milliseconds. */
const stepsPerTurn = 2 ** 22;

/** Bids that are made in all, per row: what has no column then is matched by a path. */
const scansPerRow = 16;

/**
 * @param weights - [rows, columns], row by row, finite
 * @returns the column of every row, [rows]; -1 for those that are left over where there are more rows than columns. Every
 *   column occurs once at most.
 * @throws MonosemError ERR_SHAPE_MISMATCH, ERR_NON_FINITE, ERR_ABORTED by the signal.
 */
export async function maximumAssignment(
  weights: Float32Array,
  rows: number,
  columns: number,
  signal?: AbortSignal,
): Promise<Int32Array> {
  if (weights.length !== rows * columns) {
    throw new MonosemError(
      "ERR_SHAPE_MISMATCH",
      `an assignment of ${rows} rows to ${columns} columns needs ${rows * columns} weights, found ${weights.length}`,
    );
  }
  if (!weights.every(Number.isFinite)) throw new MonosemError("ERR_NON_FINITE", "a weight is NaN or infinite");
  if (rows <= columns) return (await assignRows(weights, rows, columns, signal)).columnOfRow;
  const transposed = new Float32Array(weights.length);
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      transposed[column * rows + row] = weights[row * columns + column]!;
    }
  }
  return (await assignRows(transposed, columns, rows, signal)).rowOfColumn;
}

/** With no more rows than columns. */
async function assignRows(
  weights: Float32Array,
  rows: number,
  columns: number,
  signal: AbortSignal | undefined,
): Promise<{ columnOfRow: Int32Array; rowOfColumn: Int32Array }> {
  const columnOfRow = new Int32Array(rows).fill(-1);
  const rowOfColumn = new Int32Array(columns).fill(-1);
  // The cost of (row, column) is -weight. Its reduced cost, -weight - rowDual - columnDual, is never negative for a matched
  // row, and 0 where the two are matched; columnDual is 0 for a free column.
  const rowDual = new Float64Array(rows);
  const columnDual = new Float64Array(columns);
  let scans = scansPerRow * rows;
  let steps = 0;
  for (let row = 0; row < rows; row++) {
    // A row bids for its best column by how much that is better than its second best; who loses the column bids next.
    for (let bidder = row; bidder !== -1 && scans > 0; scans--) {
      const begin = bidder * columns;
      let best = -1;
      let lowest = Number.POSITIVE_INFINITY;
      let second = Number.POSITIVE_INFINITY;
      for (let column = 0; column < columns; column++) {
        const cost = -weights[begin + column]! - columnDual[column]!;
        if (cost >= second) continue;
        if (cost < lowest) {
          second = lowest;
          lowest = cost;
          best = column;
        } else {
          second = cost;
        }
      }
      steps += columns;
      const bound = columns === 1 ? lowest : second;
      const owner = rowOfColumn[best]!;
      if (owner !== -1 && lowest === bound) break; // nothing to bid with
      columnDual[best]! -= bound - lowest;
      rowDual[bidder] = bound;
      rowOfColumn[best] = bidder;
      columnOfRow[bidder] = best;
      if (owner !== -1) columnOfRow[owner] = -1;
      bidder = owner;
    }
    if (steps > stepsPerTurn) {
      steps = 0;
      await otherWork();
      throwIfAborted(signal, "matching latents with features");
    }
  }

  const distance = new Float64Array(columns); // of the shortest path from the free row to a column
  const before = new Int32Array(columns); // the row before a column on that path
  const open = new Int32Array(columns); // columns whose distance is not final, then those where it is, as found
  for (let free = 0; free < rows; free++) {
    if (columnOfRow[free] !== -1) continue;
    distance.fill(Number.POSITIVE_INFINITY);
    for (let i = 0; i < columns; i++) open[i] = i;
    let openCount = columns;
    let row = free;
    let reached = 0;
    let end = -1;
    while (end === -1) {
      const begin = row * columns;
      const offset = reached - rowDual[row]!;
      let nearest = -1;
      let smallest = Number.POSITIVE_INFINITY;
      for (let i = 0; i < openCount; i++) {
        const column = open[i]!;
        const through = offset - weights[begin + column]! - columnDual[column]!;
        let shortest = distance[column]!;
        if (through < shortest) {
          distance[column] = through;
          before[column] = row;
          shortest = through;
        }
        // Among equals a free column ends the search.
        if (shortest < smallest || (shortest === smallest && rowOfColumn[column] === -1)) {
          smallest = shortest;
          nearest = i;
        }
      }
      reached = smallest;
      const column = open[nearest]!;
      openCount--;
      open[nearest] = open[openCount]!;
      open[openCount] = column;
      if (rowOfColumn[column] === -1) end = column;
      else row = rowOfColumn[column]!;
      steps += openCount;
      if (steps > stepsPerTurn) {
        steps = 0;
        await otherWork();
        throwIfAborted(signal, "matching latents with features");
      }
    }
    rowDual[free]! += reached;
    for (let i = openCount; i < columns; i++) {
      const column = open[i]!;
      const slack = reached - distance[column]!;
      columnDual[column]! -= slack;
      const matched = rowOfColumn[column]!;
      if (matched !== -1) rowDual[matched]! += slack;
    }
    for (let column = end; ; ) {
      const previous = before[column]!;
      rowOfColumn[column] = previous;
      const next = columnOfRow[previous]!;
      columnOfRow[previous] = column;
      if (previous === free) break;
      column = next;
    }
  }
  return { columnOfRow, rowOfColumn };
}
