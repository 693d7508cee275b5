/**
 * What probes are fitted to: a matrix of examples by features, stored dense (activations at a hook point) or sparse (the
 * latents of an SAE). Fitting needs products only, so that a sparse matrix is never made dense.
 */
import { kindOf } from "../checkArguments.js";
import { MonosemError } from "../errors.js";

/** Shape [rows, columns]. A row for each example. */
export interface FeatureMatrix {
  readonly rows: number;
  readonly columns: number;
  /**
   * X v, [rows].
   *
   * @throws MonosemError ERR_SHAPE_MISMATCH for a vector of another length, as all products
   */
  times(vector: Float64Array): Float64Array;
  /** Xᵀ u, [columns]. */
  transposedTimes(vector: Float64Array): Float64Array;
  /** Σ_r u_r x_rc², [columns]. */
  weightedSquares(weights: Float64Array): Float64Array;
  /** X less these numbers, a column each; undefined where that would fill in what is not stored. */
  less(offsets: Float64Array): FeatureMatrix | undefined;
  /** Of every column; the deviation is that of the population, as of scikit-learn's StandardScaler. */
  moments(): ColumnMoments;
  /**
   * The rows of those numbers, in their order.
   *
   * @throws MonosemError ERR_INVALID_ARGUMENT for rows (`selectColumns`: columns) that there are not
   */
  selectRows(rows: ArrayLike<number>): FeatureMatrix;
  /** The columns of those numbers, in their order; none twice. */
  selectColumns(columns: ArrayLike<number>): FeatureMatrix;
}

export interface ColumnMoments {
  readonly mean: Float64Array;
  readonly standardDeviation: Float64Array;
}

/** Every number of the matrix, row after row. */
export class DenseFeatures implements FeatureMatrix {
  readonly rows: number;
  readonly columns: number;
  readonly #data: Float32Array | Float64Array;

  /** @throws MonosemError ERR_SHAPE_MISMATCH where `data` is not rows x columns; ERR_NON_FINITE */
  constructor(data: Float32Array | Float64Array, rows: number, columns: number) {
    if (data.length !== rows * columns) {
      throw new MonosemError(
        "ERR_SHAPE_MISMATCH",
        `features: expected ${rows} rows of ${columns} numbers, found ${data.length} numbers`,
      );
    }
    const bad = data.findIndex((value) => !Number.isFinite(value));
    if (bad !== -1) refuseValue(data[bad]!, Math.floor(bad / columns), bad % columns);
    this.rows = rows;
    this.columns = columns;
    this.#data = data;
  }

  // Four rows at a time, whose sums do not wait for one another: fits spend their time here.
  times(vector: Float64Array): Float64Array {
    checkLength(vector, this.columns);
    const { rows, columns } = this;
    const data = this.#data;
    const result = new Float64Array(rows);
    let row = 0;
    for (; row + 4 <= rows; row += 4) {
      let [a, b, c, d] = [0, 0, 0, 0];
      for (let column = 0, i = row * columns; column < columns; column++, i++) {
        const factor = vector[column]!;
        a += data[i]! * factor;
        b += data[i + columns]! * factor;
        c += data[i + 2 * columns]! * factor;
        d += data[i + 3 * columns]! * factor;
      }
      result.set([a, b, c, d], row);
    }
    for (; row < rows; row++) {
      let sum = 0;
      for (let column = 0, i = row * columns; column < columns; column++, i++) sum += data[i]! * vector[column]!;
      result[row] = sum;
    }
    return result;
  }

  transposedTimes(vector: Float64Array): Float64Array {
    checkLength(vector, this.rows);
    const { rows, columns } = this;
    const data = this.#data;
    const result = new Float64Array(columns);
    let row = 0;
    for (; row + 4 <= rows; row += 4) {
      const [a, b, c, d] = [vector[row]!, vector[row + 1]!, vector[row + 2]!, vector[row + 3]!];
      for (let column = 0, i = row * columns; column < columns; column++, i++) {
        result[column]! +=
          a * data[i]! + b * data[i + columns]! + (c * data[i + 2 * columns]! + d * data[i + 3 * columns]!);
      }
    }
    for (; row < rows; row++) {
      const factor = vector[row]!;
      for (let column = 0, i = row * columns; column < columns; column++, i++) result[column]! += factor * data[i]!;
    }
    return result;
  }

  weightedSquares(weights: Float64Array): Float64Array {
    checkLength(weights, this.rows);
    const result = new Float64Array(this.columns);
    for (let row = 0, i = 0; row < this.rows; row++) {
      for (let column = 0; column < this.columns; column++, i++) result[column]! += weights[row]! * this.#data[i]! ** 2;
    }
    return result;
  }

  moments(): ColumnMoments {
    const mean = this.transposedTimes(new Float64Array(this.rows).fill(1 / this.rows));
    const standardDeviation = new Float64Array(this.columns);
    for (let row = 0, i = 0; row < this.rows; row++) {
      for (let column = 0; column < this.columns; column++, i++) {
        standardDeviation[column]! += (this.#data[i]! - mean[column]!) ** 2;
      }
    }
    return { mean, standardDeviation: standardDeviation.map((sum) => Math.sqrt(sum / this.rows)) };
  }

  less(offsets: Float64Array): DenseFeatures {
    const data = Float64Array.from(this.#data);
    for (let row = 0, i = 0; row < this.rows; row++) {
      for (let column = 0; column < this.columns; column++) data[i++]! -= offsets[column]!;
    }
    return new DenseFeatures(data, this.rows, this.columns);
  }

  selectRows(rows: ArrayLike<number>): DenseFeatures {
    checkChoice("rows", rows, this.rows);
    const data = new Float64Array(rows.length * this.columns);
    for (let i = 0; i < rows.length; i++) {
      const start = rows[i]! * this.columns;
      data.set(this.#data.subarray(start, start + this.columns), i * this.columns);
    }
    return new DenseFeatures(data, rows.length, this.columns);
  }

  selectColumns(columns: ArrayLike<number>): DenseFeatures {
    checkChoice("columns", columns, this.columns);
    const data = new Float64Array(this.rows * columns.length);
    for (let row = 0, i = 0; row < this.rows; row++) {
      for (let column = 0; column < columns.length; column++) {
        data[i++] = this.#data[row * this.columns + columns[column]!]!;
      }
    }
    return new DenseFeatures(data, this.rows, columns.length);
  }
}

/** The entries of a matrix that is mostly 0. */
export interface SparseEntries {
  /** Length rows + 1. Row r has the entries from rowOffsets[r] to rowOffsets[r + 1]. */
  readonly rowOffsets: ArrayLike<number>;
  /** The column of each entry; none twice in a row. */
  readonly indices: ArrayLike<number>;
  readonly values: ArrayLike<number>;
}

/** The entries alone; what has none is 0. */
export class SparseFeatures implements FeatureMatrix {
  readonly rows: number;
  readonly columns: number;
  readonly #entries: SparseEntries;

  /**
   * @throws MonosemError ERR_SHAPE_MISMATCH for offsets that do not fit the entries; ERR_INVALID_ARGUMENT for an entry in
   *   a column that is not there; ERR_NON_FINITE
   */
  constructor(entries: SparseEntries, columns: number) {
    const { rowOffsets, indices, values } = entries;
    if (rowOffsets[rowOffsets.length - 1] !== indices.length || indices.length !== values.length) {
      throw new MonosemError(
        "ERR_SHAPE_MISMATCH",
        `features: the row offsets end at ${rowOffsets[rowOffsets.length - 1]}, but there are ${indices.length} columns ` +
          `and ${values.length} values`,
      );
    }
    for (let row = 0; row < rowOffsets.length; row++) {
      if (
        Number.isInteger(rowOffsets[row]) &&
        (row === 0 ? rowOffsets[0] === 0 : rowOffsets[row]! >= rowOffsets[row - 1]!)
      ) {
        continue;
      }
      throw new MonosemError(
        "ERR_SHAPE_MISMATCH",
        `features: the row offsets are integers that begin at 0 and never fall, found ${rowOffsets[row]} as number ${row}`,
      );
    }
    this.rows = rowOffsets.length - 1;
    this.columns = columns;
    this.#entries = entries;
    for (let row = 0; row < this.rows; row++) {
      for (let entry = rowOffsets[row]!; entry < rowOffsets[row + 1]!; entry++) {
        const column = indices[entry]!;
        if (!(Number.isInteger(column) && column >= 0 && column < columns)) {
          throw new MonosemError(
            "ERR_INVALID_ARGUMENT",
            `features: row ${row} has an entry in column ${column}; columns are numbered 0 to ${columns - 1}`,
          );
        }
        if (!Number.isFinite(values[entry])) refuseValue(values[entry]!, row, column);
      }
    }
  }

  times(vector: Float64Array): Float64Array {
    checkLength(vector, this.columns);
    const { rowOffsets, indices, values } = this.#entries;
    const result = new Float64Array(this.rows);
    for (let row = 0; row < this.rows; row++) {
      let sum = 0;
      for (let entry = rowOffsets[row]!; entry < rowOffsets[row + 1]!; entry++) {
        sum += values[entry]! * vector[indices[entry]!]!;
      }
      result[row] = sum;
    }
    return result;
  }

  transposedTimes(vector: Float64Array): Float64Array {
    checkLength(vector, this.rows);
    return this.#columnSums((value, row) => vector[row]! * value);
  }

  weightedSquares(weights: Float64Array): Float64Array {
    checkLength(weights, this.rows);
    return this.#columnSums((value, row) => weights[row]! * value ** 2);
  }

  moments(): ColumnMoments {
    const mean = this.transposedTimes(new Float64Array(this.rows).fill(1 / this.rows));
    const present = this.#columnSums(() => 1);
    const deviations = this.#columnSums((value, _row, column) => (value - mean[column]!) ** 2);
    return {
      mean,
      standardDeviation: deviations.map((sum, column) =>
        Math.sqrt((sum + (this.rows - present[column]!) * mean[column]! ** 2) / this.rows),
      ),
    };
  }

  less(): undefined {
    return undefined;
  }

  selectRows(rows: ArrayLike<number>): SparseFeatures {
    checkChoice("rows", rows, this.rows);
    return this.#select(Array.from(rows), (column) => column, this.columns);
  }

  selectColumns(columns: ArrayLike<number>): SparseFeatures {
    checkChoice("columns", columns, this.columns);
    const places = new Map(Array.from(columns, (column, place) => [column, place]));
    const all = Array.from({ length: this.rows }, (_, row) => row);
    return this.#select(all, (column) => places.get(column), columns.length);
  }

  #columnSums(term: (value: number, row: number, column: number) => number): Float64Array {
    const { rowOffsets, indices, values } = this.#entries;
    const result = new Float64Array(this.columns);
    for (let row = 0; row < this.rows; row++) {
      for (let entry = rowOffsets[row]!; entry < rowOffsets[row + 1]!; entry++) {
        result[indices[entry]!]! += term(values[entry]!, row, indices[entry]!);
      }
    }
    return result;
  }

  #select(rows: readonly number[], placeOf: (column: number) => number | undefined, columns: number): SparseFeatures {
    const { rowOffsets, indices, values } = this.#entries;
    const selected = { rowOffsets: [0], indices: [] as number[], values: [] as number[] };
    for (const row of rows) {
      for (let entry = rowOffsets[row]!; entry < rowOffsets[row + 1]!; entry++) {
        const place = placeOf(indices[entry]!);
        if (place === undefined) continue;
        selected.indices.push(place);
        selected.values.push(values[entry]!);
      }
      selected.rowOffsets.push(selected.indices.length);
    }
    return new SparseFeatures(selected, columns);
  }
}

/** Fits make products again and again: this looks at no number. */
function checkLength(vector: ArrayLike<number>, length: number): void {
  if (vector.length === length) return;
  throw new MonosemError("ERR_SHAPE_MISMATCH", `features: expected ${length} numbers, found ${vector.length}`);
}

function checkChoice(what: string, chosen: ArrayLike<number>, count: number): void {
  for (let i = 0; i < chosen.length; i++) {
    const index = chosen[i]!;
    if (Number.isInteger(index) && index >= 0 && index < count) continue;
    throw new MonosemError(
      "ERR_INVALID_ARGUMENT",
      `features: ${what} are numbered 0 to ${count - 1}, found ${kindOf(index)}`,
    );
  }
}

function refuseValue(value: number, row: number, column: number): never {
  throw new MonosemError("ERR_NON_FINITE", `features: row ${row} has ${value} in column ${column}`);
}
