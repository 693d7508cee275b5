import { native } from "./addon.js";
import type { Device } from "./device.js";
import { Operands } from "./operands.js";
import { Tensor } from "./tensor.js";

/** The part of {@link Kernels} that works on dense vectors and matrices, and what its other parts stand on. */
export abstract class DenseKernels {
  protected readonly device: Device;

  /** @internal */
  constructor(device: Device) {
    this.device = device;
  }

  protected call(kernel: string): Operands {
    return new Operands(this.device, kernel);
  }

  /** Sets every element of `out`. */
  fill(out: Tensor, value: number): void {
    const call = this.call("fill");
    native.fill(call.native, call.tensor("out", out, ["...elements"]), call.number("value", value));
  }

  /** a + scale * b, of equal shapes. */
  add(
    a: Tensor,
    b: Tensor,
    options: { readonly scale?: number | undefined; readonly out?: Tensor | undefined } = {},
  ): Tensor {
    const call = this.call("add");
    const aHandle = call.tensor("a", a, ["...elements"]);
    const bHandle = call.tensor("b", b, a.shape);
    const scale = call.number("scale", options.scale ?? 1);
    const out = call.outputOr(options.out, a.shape);
    native.add(call.native, aHandle, bHandle, scale, out.handle);
    return out.tensor;
  }

  /** factor * a. */
  scale(a: Tensor, factor: number, options: { readonly out?: Tensor | undefined } = {}): Tensor {
    const call = this.call("scale");
    const aHandle = call.tensor("a", a, ["...elements"]);
    call.number("factor", factor);
    const out = call.outputOr(options.out, a.shape);
    native.scale(call.native, aHandle, factor, out.handle);
    return out.tensor;
  }

  /** Each row of a [..., columns] plus scale * row [columns]. */
  addRow(
    a: Tensor,
    row: Tensor,
    options: { readonly scale?: number | undefined; readonly out?: Tensor | undefined } = {},
  ): Tensor {
    const call = this.call("addRow");
    const aHandle = call.tensor("a", a, ["...rows", "columns"]);
    const rowHandle = call.tensor("row", row, ["columns"]);
    const scale = call.number("scale", options.scale ?? 1);
    const out = call.outputOr(options.out, a.shape);
    call.requireDistinct("out", out.tensor, "row", row);
    native.addRow(call.native, aHandle, rowHandle, scale, out.handle);
    return out.tensor;
  }

  /** Each row r of a [..., columns] times factors[r]; factors is [rows]. */
  scaleRows(a: Tensor, factors: Tensor, options: { readonly out?: Tensor | undefined } = {}): Tensor {
    const call = this.call("scaleRows");
    const aHandle = call.tensor("a", a, ["...rows", "columns"]);
    const factorsHandle = call.tensor("factors", factors, ["rows"]);
    const out = call.outputOr(options.out, a.shape);
    call.requireDistinct("out", out.tensor, "factors", factors);
    native.scaleRows(call.native, aHandle, factorsHandle, out.handle);
    return out.tensor;
  }

  /** a * b, element by element, of equal shapes. */
  multiply(a: Tensor, b: Tensor, options: { readonly out?: Tensor | undefined } = {}): Tensor {
    const call = this.call("multiply");
    const aHandle = call.tensor("a", a, ["...elements"]);
    const bHandle = call.tensor("b", b, a.shape);
    const out = call.outputOr(options.out, a.shape);
    native.multiply(call.native, aHandle, bHandle, out.handle);
    return out.tensor;
  }

  /** a / b, element by element, of equal shapes; x / 0 is ±Infinity, 0 / 0 NaN. */
  divide(a: Tensor, b: Tensor, options: { readonly out?: Tensor | undefined } = {}): Tensor {
    const call = this.call("divide");
    const aHandle = call.tensor("a", a, ["...elements"]);
    const bHandle = call.tensor("b", b, a.shape);
    const out = call.outputOr(options.out, a.shape);
    native.divide(call.native, aHandle, bHandle, out.handle);
    return out.tensor;
  }

  /** Each column c of a [..., columns] times factors[c]; factors is [columns]. */
  scaleColumns(a: Tensor, factors: Tensor, options: { readonly out?: Tensor | undefined } = {}): Tensor {
    const call = this.call("scaleColumns");
    const aHandle = call.tensor("a", a, ["...rows", "columns"]);
    const factorsHandle = call.tensor("factors", factors, ["columns"]);
    const out = call.outputOr(options.out, a.shape);
    if (a.shape.length > 1) call.requireDistinct("out", out.tensor, "factors", factors);
    native.scaleColumns(call.native, aHandle, factorsHandle, out.handle);
    return out.tensor;
  }

  /** Each row r of a [..., columns] times factors[r] plus shifts[r]; factors and shifts are [rows]. */
  affineRows(a: Tensor, factors: Tensor, shifts: Tensor, options: { readonly out?: Tensor | undefined } = {}): Tensor {
    const call = this.call("affineRows");
    const aHandle = call.tensor("a", a, ["...rows", "columns"]);
    const factorsHandle = call.tensor("factors", factors, ["rows"]);
    const shiftsHandle = call.tensor("shifts", shifts, ["rows"]);
    const out = call.outputOr(options.out, a.shape);
    call.requireDistinct("out", out.tensor, "factors", factors);
    call.requireDistinct("out", out.tensor, "shifts", shifts);
    native.affineRows(call.native, aHandle, factorsHandle, shiftsHandle, out.handle);
    return out.tensor;
  }

  /**
   * Each row of x [..., columns] less its mean [rows], divided by its standard deviation [rows] + epsilon. The variance
   * is the unbiased one (divided by columns - 1); a single column has standard deviation 0.
   */
  standardiseRows(
    x: Tensor,
    options: { readonly epsilon: number },
  ): { readonly normalized: Tensor; readonly mean: Tensor; readonly standardDeviation: Tensor } {
    const call = this.call("standardiseRows");
    const xHandle = call.tensor("x", x, ["...rows", "columns"]);
    const epsilon = call.number("epsilon", options.epsilon, 0);
    const normalized = call.output(x.shape);
    const mean = call.output([call.size("rows")]);
    const deviation = call.output([call.size("rows")]);
    native.standardiseRows(call.native, xHandle, epsilon, normalized.handle, mean.handle, deviation.handle);
    return { normalized: normalized.tensor, mean: mean.tensor, standardDeviation: deviation.tensor };
  }

  /**
   * Tensor [rows]: the Euclidean norm of each row of a [..., columns]; with `blockWidths`, of consecutive blocks of
   * columns (together all of them), the sum of the blocks' norms.
   */
  rowNorms(a: Tensor, options: { readonly blockWidths?: readonly number[] | undefined } = {}): Tensor {
    const call = this.call("rowNorms");
    const aHandle = call.tensor("a", a, ["...rows", "columns"]);
    const blockWidths = call.blockWidths("blockWidths", options.blockWidths, "columns");
    const out = call.output([call.size("rows")]);
    native.rowNorms(call.native, aHandle, ...blockWidths, out.handle);
    return out.tensor;
  }

  /** Rows of a [..., columns] scaled to Euclidean norm `norm` (default 1); rows of norm 0 stay. */
  normaliseRows(a: Tensor, norm = 1, options: { readonly out?: Tensor | undefined } = {}): Tensor {
    const call = this.call("normaliseRows");
    const aHandle = call.tensor("a", a, ["...rows", "columns"]);
    call.number("norm", norm);
    const out = call.outputOr(options.out, a.shape);
    native.normaliseRows(call.native, aHandle, norm, out.handle);
    return out.tensor;
  }

  /** Tensor [columns]: scale times the sum of the rows of a [..., columns]. */
  columnSums(a: Tensor, options: { readonly scale?: number | undefined } = {}): Tensor {
    const call = this.call("columnSums");
    const aHandle = call.tensor("a", a, ["...rows", "columns"]);
    const scale = call.number("scale", options.scale ?? 1);
    const out = call.output([call.size("columns")]);
    native.columnSums(call.native, aHandle, scale, out.handle);
    return out.tensor;
  }

  /** Tensor [columns]: scale times the sum over rows r of weights[r] * a[r]; weights is [rows], a [..., columns]. */
  weightedRowSum(weights: Tensor, a: Tensor, options: { readonly scale?: number | undefined } = {}): Tensor {
    const call = this.call("weightedRowSum");
    const aHandle = call.tensor("a", a, ["...rows", "columns"]);
    const weightsHandle = call.tensor("weights", weights, ["rows"]);
    const scale = call.number("scale", options.scale ?? 1);
    const out = call.output([call.size("columns")]);
    native.weightedRowSum(call.native, weightsHandle, aHandle, scale, out.handle);
    return out.tensor;
  }

  /**
   * The rows of a [table, columns] that `rows` (i32 [...]) names, [..., columns]. A row out of range is
   * ERR_INVALID_ARGUMENT at the next read.
   */
  gatherRows(a: Tensor, rows: Tensor): Tensor {
    const call = this.call("gatherRows");
    const aHandle = call.tensor("a", a, ["table", "columns"], a.dtype === "bf16" ? "bf16" : "f32");
    const rowsHandle = call.tensor("rows", rows, ["...elements"], "i32");
    const out = call.output([...rows.shape, call.size("columns")]);
    native.gatherRows(call.native, aHandle, rowsHandle, out.handle);
    return out.tensor;
  }

  /**
   * Copies the rows of a [..., columns] to the rows of `out` [..., columns] that `rows` (i32, one for each row of a)
   * names: out[rows[r]] = a[r]. Of rows with the same place the last one stays, and so does what else `out` holds. A
   * row out of range is ERR_INVALID_ARGUMENT at the next read.
   */
  scatterRows(a: Tensor, rows: Tensor, out: Tensor): void {
    const call = this.call("scatterRows");
    const aHandle = call.tensor("a", a, ["...rows", "columns"]);
    const rowsHandle = call.tensor("rows", rows, ["...rows"], "i32");
    const outHandle = call.tensor("out", out, ["...rows of out", "columns"]);
    call.requireDistinct("a", a, "out", out);
    native.scatterRows(call.native, aHandle, rowsHandle, outHandle);
  }

  /** A copy of `columns` columns of a [..., all columns] from `firstColumn` on, [..., columns]. */
  sliceColumns(a: Tensor, firstColumn: number, columns: number): Tensor {
    const call = this.call("sliceColumns");
    const aHandle = call.tensor("a", a, ["...rows", "columns"]);
    call.integer("firstColumn", firstColumn);
    call.integer("columns", columns);
    if (firstColumn + columns > call.size("columns")) {
      call.fail(
        "ERR_SHAPE_MISMATCH",
        `${columns} columns from column ${firstColumn} on: a has ${call.size("columns")}`,
      );
    }
    const out = call.output([...a.shape.slice(0, -1), columns]);
    native.sliceColumns(call.native, aHandle, firstColumn, out.handle);
    return out.tensor;
  }

  /**
   * Copies a [..., columns] into the columns of `out` [..., columns of out] from `firstColumn` on. What else `out` holds
   * stays.
   */
  copyColumns(a: Tensor, out: Tensor, firstColumn: number): void {
    const call = this.call("copyColumns");
    const aHandle = call.tensor("a", a, ["...rows", "columns"]);
    const outHandle = call.tensor("out", out, ["...rows", "columns of out"]);
    call.integer("firstColumn", firstColumn);
    call.requireDistinct("a", a, "out", out);
    if (firstColumn + call.size("columns") > call.size("columns of out")) {
      call.fail(
        "ERR_SHAPE_MISMATCH",
        `${call.size("columns")} columns from column ${firstColumn} on do not fit into out, which has ${call.size("columns of out")}`,
      );
    }
    native.copyColumns(call.native, aHandle, outHandle, firstColumn);
  }

  /** Matrices [..., columns] of the same rows side by side, [rows, sum of their columns]. */
  concatenateColumns(parts: readonly Tensor[]): Tensor {
    const widths = parts.map(({ shape }) => shape.at(-1) ?? 0);
    const rows = (parts[0]?.size ?? 0) / (widths[0] ?? 1);
    const out = this.device.empty([rows, widths.reduce((sum, width) => sum + width, 0)]);
    let column = 0;
    for (const [i, part] of parts.entries()) {
      this.copyColumns(part, out, column);
      column += widths[i]!;
    }
    return out;
  }

  /** Copies a [..., columns] into the rows of `out` [..., columns] from `firstRow` on. What else `out` holds stays. */
  copyRows(a: Tensor, out: Tensor, firstRow: number): void {
    const call = this.call("copyRows");
    const aHandle = call.tensor("a", a, ["...rows", "columns"]);
    const outHandle = call.tensor("out", out, ["...rows of out", "columns"]);
    call.integer("firstRow", firstRow);
    call.requireDistinct("a", a, "out", out);
    if (firstRow + call.size("rows") > call.size("rows of out")) {
      call.fail(
        "ERR_SHAPE_MISMATCH",
        `${call.size("rows")} rows from row ${firstRow} on do not fit into out, which has ${call.size("rows of out")}`,
      );
    }
    native.copyRows(call.native, aHandle, outHandle, firstRow);
  }

  /** A copy of `rows` rows of a [..., columns] from `firstRow` on, [rows, columns]. */
  sliceRows(a: Tensor, firstRow: number, rows: number): Tensor {
    const call = this.call("sliceRows");
    const aHandle = call.tensor("a", a, ["...rows", "columns"]);
    call.integer("firstRow", firstRow);
    call.integer("rows", rows);
    if (firstRow + rows > call.size("rows")) {
      call.fail("ERR_SHAPE_MISMATCH", `${rows} rows from row ${firstRow} on: a has ${call.size("rows")}`);
    }
    const out = call.output([rows, call.size("columns")]);
    native.sliceRows(call.native, aHandle, firstRow, out.handle);
    return out.tensor;
  }

  /** [columns, rows] of a [rows, columns]. */
  transpose(a: Tensor): Tensor {
    const call = this.call("transpose");
    const aHandle = call.tensor("a", a, ["rows", "columns"]);
    const out = call.output([call.size("columns"), call.size("rows")]);
    native.transpose(call.native, aHandle, out.handle);
    return out.tensor;
  }

  /** Adds the dot product of a and b, of equal shapes, to `sum` (f64 [1]); summed in double precision. */
  dot(a: Tensor, b: Tensor, sum: Tensor): void {
    const call = this.call("dot");
    const aHandle = call.tensor("a", a, ["...elements"]);
    const bHandle = call.tensor("b", b, a.shape);
    native.dot(call.native, aHandle, bHandle, call.tensor("sum", sum, [1], "f64"));
  }

  /** Adds the sum of the elements of a to `sum` (f64 [1]); summed in double precision. */
  sum(a: Tensor, sum: Tensor): void {
    const call = this.call("sum");
    const aHandle = call.tensor("a", a, ["...elements"]);
    native.sum(call.native, aHandle, call.tensor("sum", sum, [1], "f64"));
  }

  /** Adds the column sums of a [..., columns] to `sums` (f64 [columns]). */
  accumulateColumnSums(a: Tensor, sums: Tensor): void {
    const call = this.call("accumulateColumnSums");
    const aHandle = call.tensor("a", a, ["...rows", "columns"]);
    native.accumulateColumnSums(call.native, aHandle, call.tensor("sums", sums, ["columns"], "f64"));
  }

  /** Adds the sum over rows of cos(a[r], b[r]) to `sum` (f64 [1]); a and b are [..., columns], rows of norm 0 add 0. */
  sumOfRowCosines(a: Tensor, b: Tensor, sum: Tensor): void {
    const call = this.call("sumOfRowCosines");
    const aHandle = call.tensor("a", a, ["...rows", "columns"]);
    const bHandle = call.tensor("b", b, ["...rows", "columns"]);
    native.sumOfRowCosines(call.native, aHandle, bHandle, call.tensor("sum", sum, [1], "f64"));
  }

  /** An f16, bf16 (both exact) or f64 (rounded) tensor as f32. */
  toFloat32(a: Tensor): Tensor {
    const call = this.call("toFloat32");
    if (a instanceof Tensor && !["f16", "bf16", "f64"].includes(a.dtype)) {
      call.fail("ERR_DTYPE_MISMATCH", `a must be f16, bf16 or f64, found ${a.dtype}`);
    }
    const aHandle = call.tensor("a", a, ["...elements"], a?.dtype);
    const out = call.output(a.shape);
    native.toFloat32(call.native, aHandle, out.handle);
    return out.tensor;
  }
}
