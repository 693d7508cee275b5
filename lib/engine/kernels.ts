import type { NativeRowGradient } from "./addon.js";
import { type NativeTensor, native } from "./addon.js";
import { Codes, EntryValues, FeatureSet } from "./codes.js";
import type { Device } from "./device.js";
import { KeptGradient } from "./keptGradient.js";
import { Operands } from "./operands.js";
import { Tensor } from "./tensor.js";

/**
 * Which pre-activations {@link Kernels.encode} keeps: all positive ones, or the k largest of each row (exact; ties go to
 * the lower feature). `features` restricts either to a subset; a row then has at most as many entries as the subset.
 */
export type Selection =
  | { readonly select: "positive"; readonly features?: FeatureSet | undefined }
  | { readonly select: "topk"; readonly k: number; readonly features?: FeatureSet | undefined };

/** "gelu_new" is the tanh approximation of GPT-2, "gelu" the exact one. */
export type Activation = "none" | "gelu_new" | "gelu" | "relu";

const ACTIVATIONS: readonly string[] = ["none", "gelu_new", "gelu", "relu"] satisfies Activation[];

/** One update of torch.optim.Adam. */
export interface AdamStep {
  readonly learningRate: number;
  readonly beta1: number;
  readonly beta2: number;
  readonly epsilon: number;
  /** Counted from 1: it corrects the bias of the moments. */
  readonly step: number;
}

/** Adam's running means of the gradient and of its square, of the shape of the weights; zeros at first. */
export interface Moments {
  readonly m: Tensor;
  readonly v: Tensor;
}

/**
 * Clipping by global norm as torch.nn.utils.clip_grad_norm_: gradients are multiplied by
 * min(1, maxNorm / (sqrt(squaredNorm) + 1e-6)). The squared norm (f64 [1], over all parameters) is read when the kernel
 * runs.
 */
export interface Clip {
  readonly squaredNorm: Tensor;
  readonly maxNorm: number;
}

/**
 * Part of the gradient of a [dSae, width] matrix. Row f is the sum over the entries e of feature f of
 * scale * coefficients[e] * dense[row of e].
 */
export interface EntryTerm {
  readonly codes: Codes;
  /** Default: the values of the codes. */
  readonly coefficients?: EntryValues | undefined;
  /** [rows of the codes, width] */
  readonly dense: Tensor;
  /** Default: 1. */
  readonly scale?: number | undefined;
}

/**
 * The gradient of a [dSae, width] matrix, never written out: the sum of the terms, plus
 * rowCoefficients[f] * rowScale * weights[f] / |weights[f]| (the decoder-norm weighted sparsity penalty), and with
 * `projectOutRow` less its component along weights[f].
 */
export interface RowGradient {
  readonly terms: readonly EntryTerm[];
  /** [dSae] */
  readonly rowCoefficients?: Tensor | undefined;
  /** Default: 1. */
  readonly rowScale?: number | undefined;
  readonly projectOutRow?: boolean | undefined;
}

/**
 * Queries [batch, queryPositions, heads, dHead], the last of `keyPositions` positions; keys and values
 * [batch, capacity, heads, dHead], of which the first `keyPositions` (default: all) are filled.
 */
export interface AttentionOperands {
  readonly queries: Tensor;
  readonly keys: Tensor;
  readonly values: Tensor;
  readonly keyPositions?: number | undefined;
  /** Of the scores. Default: 1 / sqrt(dHead). */
  readonly scale?: number | undefined;
}

/** How {@link Kernels.sample} draws from softmax(logits / temperature). */
export interface Sampling {
  /** 0: the largest logit, the lowest index among equals. Default: 1. */
  readonly temperature?: number | undefined;
  /** Draw among the k largest logits. Default 0: among all. */
  readonly topK?: number | undefined;
  /** Draw among the most probable tokens that come to this probability together. Default 1: among all. */
  readonly topP?: number | undefined;
  readonly seed: number;
  /** Of the counter-based generator; row r draws number offset + r. */
  readonly offset: number;
}

/**
 * The kernels of a device. Every call checks its operands, enqueues and returns at once; new tensors, codes and sets are
 * the caller's to dispose.
 *
 * Every call throws a {@link MonosemError}: ERR_SHAPE_MISMATCH, ERR_DTYPE_MISMATCH, ERR_DEVICE_MISMATCH,
 * ERR_DISPOSED or ERR_INVALID_ARGUMENT, when operands or numbers do not fit. What only the data can show (NaN, an index
 * out of range, too little memory) rejects the next read or synchronisation.
 *
 * Unless dtypes are given, tensors are f32. Where a shape is written [..., columns], any leading dimensions are taken
 * together as rows. Weights of sparse autoencoders are feature-major, [dSae, dIn], encoder and decoder alike. `out` may
 * be one of the operands of the same shape.
 */
export class Kernels {
  readonly #device: Device;

  /** @internal */
  constructor(device: Device) {
    this.#device = device;
  }

  #call(kernel: string): Operands {
    return new Operands(this.#device, kernel);
  }

  // ---- Sparse autoencoders --------------------------------------------------------------------------------------

  /**
   * Codes of x [..., dIn] under encoder [dSae, dIn] and bias [dSae]: pre-activation x · encoder[f] + bias[f], selection
   * in the same pass; no [rows, dSae] matrix is written. A value is max(pre-activation, 0). NaN or infinity in any
   * operand is ERR_NON_FINITE at the next read.
   */
  encode(x: Tensor, encoder: Tensor, bias: Tensor, selection: Selection): Codes {
    const call = this.#call("encode");
    const xHandle = call.tensor("x", x, ["...rows", "dIn"]);
    const encoderHandle = call.tensor("encoder", encoder, ["dSae", "dIn"]);
    const biasHandle = call.tensor("bias", bias, ["dSae"]);
    const features = call.featureSet("selection.features", selection.features);
    const rows = call.size("rows");
    const dSae = call.size("dSae");
    if (selection.select === "topk") {
      const k = call.integer("selection.k", selection.k, 1);
      const handle = native.newCodes(call.native, rows, dSae);
      native.encode(call.native, xHandle, encoderHandle, biasHandle, "topk", k, features, handle);
      return new Codes(this.#device, rows, dSae, handle);
    }
    if (selection.select !== "positive") {
      const { select } = selection as { select: unknown };
      call.fail("ERR_INVALID_ARGUMENT", `selection.select must be "positive" or "topk", found ${String(select)}`);
    }
    const handle = native.newCodes(call.native, rows, dSae);
    native.encode(call.native, xHandle, encoderHandle, biasHandle, "positive", features, handle);
    return new Codes(this.#device, rows, dSae, handle);
  }

  /**
   * Reconstruction [rows, dOut] of codes under decoder [dSae, dOut]: row t is bias + the sum of value * decoder[feature]
   * over its entries, minus target[t]. `bias` is [dOut], `target` [..., dOut]; to `squaredError` (f64 [1]) the sum of
   * the squared results is added.
   */
  decode(
    codes: Codes,
    decoder: Tensor,
    options: {
      readonly bias?: Tensor | undefined;
      readonly target?: Tensor | undefined;
      readonly squaredError?: Tensor | undefined;
    } = {},
  ): Tensor {
    const call = this.#call("decode");
    const codesHandle = call.codes("codes", codes);
    const decoderHandle = call.tensor("decoder", decoder, ["dSae", "dOut"]);
    const bias = call.optionalTensor("bias", options.bias, ["dOut"]);
    const target = call.optionalTensor("target", options.target, ["...rows", "dOut"]);
    const squaredError = call.optionalTensor("squaredError", options.squaredError, [1], "f64");
    const out = call.output([codes.rows, call.size("dOut")]);
    native.decode(call.native, codesHandle, decoderHandle, bias, target, squaredError, out.handle);
    return out.tensor;
  }

  /**
   * The gradient of each entry's value, from dOutput [..., dOut], the gradient of the reconstruction:
   * scale * dOutput[row] · decoder[feature] + featureScale * perFeature[feature] where value > 0, else 0.
   * `perFeature` is [dSae]; both scales are 1 by default.
   */
  decodeGradient(
    codes: Codes,
    decoder: Tensor,
    dOutput: Tensor,
    options: {
      readonly scale?: number | undefined;
      readonly perFeature?: Tensor | undefined;
      readonly featureScale?: number | undefined;
    } = {},
  ): EntryValues {
    const call = this.#call("decodeGradient");
    const codesHandle = call.codes("codes", codes);
    const decoderHandle = call.tensor("decoder", decoder, ["dSae", "dOut"]);
    const dOutputHandle = call.tensor("dOutput", dOutput, ["...rows", "dOut"]);
    const scale = call.number("scale", options.scale ?? 1);
    const perFeature = call.optionalTensor("perFeature", options.perFeature, ["dSae"]);
    const featureScale = call.number("featureScale", options.featureScale ?? 1);
    const out = native.newEntryValues(codesHandle);
    native.decodeGradient(call.native, codesHandle, decoderHandle, dOutputHandle, scale, perFeature, featureScale, out);
    return new EntryValues(codes, out);
  }

  /** Tensor [dSae]: scale times the sum of the coefficients (default: the values) of each feature's entries. */
  featureSums(
    codes: Codes,
    options: { readonly coefficients?: EntryValues | undefined; readonly scale?: number | undefined } = {},
  ): Tensor {
    const call = this.#call("featureSums");
    const codesHandle = call.codes("codes", codes);
    const coefficients = call.entryValues("coefficients", options.coefficients, codes);
    const scale = call.number("scale", options.scale ?? 1);
    const out = call.output([codes.dSae]);
    native.featureSums(call.native, codesHandle, coefficients, scale, out.handle);
    return out.tensor;
  }

  /** Tensor [dSae]: how many entries of each feature have a value > 0. */
  featureCounts(codes: Codes): Tensor {
    const call = this.#call("featureCounts");
    const codesHandle = call.codes("codes", codes);
    const out = call.output([codes.dSae]);
    native.featureCounts(call.native, codesHandle, out.handle);
    return out.tensor;
  }

  /** Tensor [rows, dSae]: the values as a dense matrix. */
  densify(codes: Codes): Tensor {
    const call = this.#call("densify");
    const codesHandle = call.codes("codes", codes);
    const out = call.output([codes.rows, codes.dSae]);
    native.densify(call.native, codesHandle, out.handle);
    return out.tensor;
  }

  /**
   * Adds the squared Frobenius norm of the gradient of `weights` [dSae, width] to `squaredNorm` (f64 [1]). The result is
   * for {@link stepRows} and the caller's to dispose.
   */
  rowGradientSquaredNorm(gradient: RowGradient, weights: Tensor, squaredNorm: Tensor): KeptGradient {
    const call = this.#call("rowGradientSquaredNorm");
    const weightsHandle = call.tensor("weights", weights, ["dSae", "width"]);
    const operands = this.#rowGradient(call, gradient);
    const squaredNormHandle = call.tensor("squaredNorm", squaredNorm, [1], "f64");
    const kept = native.newKeptGradient(call.native);
    native.rowGradientSquaredNorm(call.native, ...operands, weightsHandle, squaredNormHandle, kept);
    return new KeptGradient(gradient, weights, kept);
  }

  /** The gradient of `weights` [dSae, width] as a matrix; training uses {@link stepRows}, which never writes it. */
  rowGradient(gradient: RowGradient, weights: Tensor): Tensor {
    const call = this.#call("rowGradient");
    const weightsHandle = call.tensor("weights", weights, ["dSae", "width"]);
    const operands = this.#rowGradient(call, gradient);
    const out = call.output([call.size("dSae"), call.size("width")]);
    native.rowGradient(call.native, ...operands, weightsHandle, out.handle);
    return out.tensor;
  }

  /**
   * One Adam step of `weights` [dSae, width], row by row: gradient, clipping, update, and with `unitNorm` division of
   * each row by its norm (rows of norm 0 stay). `kept`, from {@link rowGradientSquaredNorm} of the same gradient and
   * weights with nothing written to their tensors since, saves making the gradient again.
   */
  stepRows(
    gradient: RowGradient,
    weights: Tensor,
    moments: Moments,
    adam: AdamStep,
    options: {
      readonly clip?: Clip | undefined;
      readonly unitNorm?: boolean | undefined;
      readonly kept?: KeptGradient | undefined;
    } = {},
  ): void {
    const call = this.#call("stepRows");
    const weightsHandle = call.tensor("weights", weights, ["dSae", "width"]);
    const operands = this.#rowGradient(call, gradient);
    const [m, v] = this.#moments(call, weights, moments, ["dSae", "width"]);
    for (const [i, term] of gradient.terms.entries()) {
      for (const written of [weights, moments.m, moments.v]) {
        call.requireDistinct(`terms[${i}].dense`, term.dense, "the weights or moments", written);
      }
    }
    native.stepRows(
      call.native,
      ...operands,
      weightsHandle,
      m,
      v,
      ...this.#adam(call, adam),
      ...this.#clip(call, options.clip),
      options.unitNorm ?? false,
      call.keptGradient("kept", options.kept, gradient, weights),
    );
  }

  /** One Adam step of `weights` of any shape from a gradient of the same shape. */
  stepVector(
    gradient: Tensor,
    weights: Tensor,
    moments: Moments,
    adam: AdamStep,
    options: { readonly clip?: Clip | undefined } = {},
  ): void {
    const call = this.#call("stepVector");
    const weightsHandle = call.tensor("weights", weights, ["...elements"]);
    const gradientHandle = call.tensor("gradient", gradient, weights.shape);
    const [m, v] = this.#moments(call, weights, moments, weights.shape);
    for (const written of [weights, moments.m, moments.v]) {
      call.requireDistinct("gradient", gradient, "the weights or moments", written);
    }
    native.stepVector(
      call.native,
      gradientHandle,
      weightsHandle,
      m,
      v,
      ...this.#adam(call, adam),
      ...this.#clip(call, options.clip),
    );
  }

  /** tokensSinceFired (f64 [dSae]) of a feature becomes 0 where an entry has a value > 0, else grows by `tokens`. */
  updateTokensSinceFired(codes: Codes, tokens: number, tokensSinceFired: Tensor): void {
    const call = this.#call("updateTokensSinceFired");
    const codesHandle = call.codes("codes", codes);
    const handle = call.tensor("tokensSinceFired", tokensSinceFired, ["dSae"], "f64");
    native.updateTokensSinceFired(call.native, codesHandle, call.integer("tokens", tokens), handle);
  }

  /** The features whose tokensSinceFired (f64 [dSae]) is at least `threshold`. */
  featuresNotFiredFor(tokensSinceFired: Tensor, threshold: number): FeatureSet {
    const call = this.#call("featuresNotFiredFor");
    const handle = call.tensor("tokensSinceFired", tokensSinceFired, ["dSae"], "f64");
    call.number("threshold", threshold);
    const dSae = call.size("dSae");
    const out = native.newFeatureSet(call.native, dSae);
    native.featuresNotFiredFor(call.native, handle, threshold, out);
    return new FeatureSet(this.#device, dSae, out);
  }

  // ---- Dense vectors and matrices --------------------------------------------------------------------------------

  /** Sets every element of `out`. */
  fill(out: Tensor, value: number): void {
    const call = this.#call("fill");
    native.fill(call.native, call.tensor("out", out, ["...elements"]), call.number("value", value));
  }

  /** a + scale * b, of equal shapes. */
  add(
    a: Tensor,
    b: Tensor,
    options: { readonly scale?: number | undefined; readonly out?: Tensor | undefined } = {},
  ): Tensor {
    const call = this.#call("add");
    const aHandle = call.tensor("a", a, ["...elements"]);
    const bHandle = call.tensor("b", b, a.shape);
    const scale = call.number("scale", options.scale ?? 1);
    const out = call.outputOr(options.out, a.shape);
    native.add(call.native, aHandle, bHandle, scale, out.handle);
    return out.tensor;
  }

  /** factor * a. */
  scale(a: Tensor, factor: number, options: { readonly out?: Tensor | undefined } = {}): Tensor {
    const call = this.#call("scale");
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
    const call = this.#call("addRow");
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
    const call = this.#call("scaleRows");
    const aHandle = call.tensor("a", a, ["...rows", "columns"]);
    const factorsHandle = call.tensor("factors", factors, ["rows"]);
    const out = call.outputOr(options.out, a.shape);
    call.requireDistinct("out", out.tensor, "factors", factors);
    native.scaleRows(call.native, aHandle, factorsHandle, out.handle);
    return out.tensor;
  }

  /** Tensor [rows]: the Euclidean norm of each row of a [..., columns]. */
  rowNorms(a: Tensor): Tensor {
    const call = this.#call("rowNorms");
    const aHandle = call.tensor("a", a, ["...rows", "columns"]);
    const out = call.output([call.size("rows")]);
    native.rowNorms(call.native, aHandle, out.handle);
    return out.tensor;
  }

  /** Rows of a [..., columns] scaled to Euclidean norm `norm` (default 1); rows of norm 0 stay. */
  normaliseRows(a: Tensor, norm = 1, options: { readonly out?: Tensor | undefined } = {}): Tensor {
    const call = this.#call("normaliseRows");
    const aHandle = call.tensor("a", a, ["...rows", "columns"]);
    call.number("norm", norm);
    const out = call.outputOr(options.out, a.shape);
    native.normaliseRows(call.native, aHandle, norm, out.handle);
    return out.tensor;
  }

  /** Tensor [columns]: scale times the sum of the rows of a [..., columns]. */
  columnSums(a: Tensor, options: { readonly scale?: number | undefined } = {}): Tensor {
    const call = this.#call("columnSums");
    const aHandle = call.tensor("a", a, ["...rows", "columns"]);
    const scale = call.number("scale", options.scale ?? 1);
    const out = call.output([call.size("columns")]);
    native.columnSums(call.native, aHandle, scale, out.handle);
    return out.tensor;
  }

  /** Tensor [columns]: scale times the sum over rows r of weights[r] * a[r]; weights is [rows], a [..., columns]. */
  weightedRowSum(weights: Tensor, a: Tensor, options: { readonly scale?: number | undefined } = {}): Tensor {
    const call = this.#call("weightedRowSum");
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
    const call = this.#call("gatherRows");
    const aHandle = call.tensor("a", a, ["table", "columns"]);
    const rowsHandle = call.tensor("rows", rows, ["...elements"], "i32");
    const out = call.output([...rows.shape, call.size("columns")]);
    native.gatherRows(call.native, aHandle, rowsHandle, out.handle);
    return out.tensor;
  }

  /** Copies a [..., columns] into the rows of `out` [..., columns] from `firstRow` on. What else `out` holds stays. */
  copyRows(a: Tensor, out: Tensor, firstRow: number): void {
    const call = this.#call("copyRows");
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
    const call = this.#call("sliceRows");
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
    const call = this.#call("transpose");
    const aHandle = call.tensor("a", a, ["rows", "columns"]);
    const out = call.output([call.size("columns"), call.size("rows")]);
    native.transpose(call.native, aHandle, out.handle);
    return out.tensor;
  }

  /** Adds the dot product of a and b, of equal shapes, to `sum` (f64 [1]); summed in double precision. */
  dot(a: Tensor, b: Tensor, sum: Tensor): void {
    const call = this.#call("dot");
    const aHandle = call.tensor("a", a, ["...elements"]);
    const bHandle = call.tensor("b", b, a.shape);
    native.dot(call.native, aHandle, bHandle, call.tensor("sum", sum, [1], "f64"));
  }

  /** Adds the sum of the elements of a to `sum` (f64 [1]); summed in double precision. */
  sum(a: Tensor, sum: Tensor): void {
    const call = this.#call("sum");
    const aHandle = call.tensor("a", a, ["...elements"]);
    native.sum(call.native, aHandle, call.tensor("sum", sum, [1], "f64"));
  }

  /** Adds the column sums of a [..., columns] to `sums` (f64 [columns]). */
  accumulateColumnSums(a: Tensor, sums: Tensor): void {
    const call = this.#call("accumulateColumnSums");
    const aHandle = call.tensor("a", a, ["...rows", "columns"]);
    native.accumulateColumnSums(call.native, aHandle, call.tensor("sums", sums, ["columns"], "f64"));
  }

  /** Adds the sum over rows of cos(a[r], b[r]) to `sum` (f64 [1]); a and b are [..., columns], rows of norm 0 add 0. */
  sumOfRowCosines(a: Tensor, b: Tensor, sum: Tensor): void {
    const call = this.#call("sumOfRowCosines");
    const aHandle = call.tensor("a", a, ["...rows", "columns"]);
    const bHandle = call.tensor("b", b, ["...rows", "columns"]);
    native.sumOfRowCosines(call.native, aHandle, bHandle, call.tensor("sum", sum, [1], "f64"));
  }

  /** An f16 or bf16 tensor as f32; exact. */
  toFloat32(a: Tensor): Tensor {
    const call = this.#call("toFloat32");
    if (a instanceof Tensor && a.dtype !== "f16" && a.dtype !== "bf16") {
      call.fail("ERR_DTYPE_MISMATCH", `a must be f16 or bf16, found ${a.dtype}`);
    }
    const aHandle = call.tensor("a", a, ["...elements"], a?.dtype);
    const out = call.output(a.shape);
    native.toFloat32(call.native, aHandle, out.handle);
    return out.tensor;
  }

  // ---- Transformers ----------------------------------------------------------------------------------------------

  /** activation(x · weightsᵀ + bias) + residual: x [..., in], weights [out, in], bias [out], residual and result [..., out]. */
  linear(
    x: Tensor,
    weights: Tensor,
    options: {
      readonly bias?: Tensor | undefined;
      readonly activation?: Activation | undefined;
      readonly residual?: Tensor | undefined;
    } = {},
  ): Tensor {
    const call = this.#call("linear");
    const xHandle = call.tensor("x", x, ["...tokens", "in"]);
    const weightsHandle = call.tensor("weights", weights, ["out", "in"]);
    const bias = call.optionalTensor("bias", options.bias, ["out"]);
    const activation = this.#activation(call, options.activation ?? "none");
    const residual = call.optionalTensor("residual", options.residual, ["...tokens", "out"]);
    const out = call.output([...x.shape.slice(0, -1), call.size("out")]);
    native.linear(call.native, xHandle, weightsHandle, bias, activation, residual, out.handle);
    return out.tensor;
  }

  /** activation(x), element by element. */
  activation(x: Tensor, activation: Activation): Tensor {
    const call = this.#call("activation");
    const xHandle = call.tensor("x", x, ["...elements"]);
    const out = call.output(x.shape);
    native.activation(call.native, xHandle, this.#activation(call, activation), out.handle);
    return out.tensor;
  }

  /** (x - mean) / sqrt(variance + epsilon) * weight + bias over the last dimension; weight and bias are [width]. */
  layerNorm(
    x: Tensor,
    options: { readonly weight?: Tensor | undefined; readonly bias?: Tensor | undefined; readonly epsilon: number },
  ): Tensor {
    const call = this.#call("layerNorm");
    const xHandle = call.tensor("x", x, ["...tokens", "width"]);
    const weight = call.optionalTensor("weight", options.weight, ["width"]);
    const bias = call.optionalTensor("bias", options.bias, ["width"]);
    const epsilon = call.number("epsilon", options.epsilon, 0);
    const out = call.output(x.shape);
    native.layerNorm(call.native, xHandle, weight, bias, epsilon, out.handle);
    return out.tensor;
  }

  /** The parts of a LayerNorm for hooks: scale = sqrt(variance + epsilon) [tokens], normalized = (x - mean) / scale. */
  layerNormParts(
    x: Tensor,
    options: { readonly epsilon: number },
  ): { readonly normalized: Tensor; readonly scale: Tensor } {
    const call = this.#call("layerNormParts");
    const xHandle = call.tensor("x", x, ["...tokens", "width"]);
    const epsilon = call.number("epsilon", options.epsilon, 0);
    const normalized = call.output(x.shape);
    const scale = call.output([call.size("tokens")]);
    native.layerNormParts(call.native, xHandle, epsilon, normalized.handle, scale.handle);
    return { normalized: normalized.tensor, scale: scale.tensor };
  }

  /** Causal attention, [batch, queryPositions, heads, dHead]; nothing of size positions² is written. */
  attention(operands: AttentionOperands): Tensor {
    const call = this.#call("attention");
    const attention = this.#attention(call, operands);
    const out = call.output(operands.queries.shape);
    native.attention(call.native, ...attention, out.handle);
    return out.tensor;
  }

  /** The scaled scores, [batch, heads, queryPositions, keyPositions]; masked places are -Infinity. */
  attentionScores(operands: AttentionOperands): Tensor {
    const call = this.#call("attentionScores");
    const attention = this.#attention(call, operands);
    const out = call.output(this.#scoresShape(call, attention[3]));
    native.attentionScores(call.native, ...attention, out.handle);
    return out.tensor;
  }

  /** Softmax over the last dimension; a row of only -Infinity gives zeros. */
  softmaxRows(scores: Tensor): Tensor {
    const call = this.#call("softmaxRows");
    const scoresHandle = call.tensor("scores", scores, ["...rows", "columns"]);
    const out = call.output(scores.shape);
    native.softmaxRows(call.native, scoresHandle, out.handle);
    return out.tensor;
  }

  /** Values mixed by a pattern [batch, heads, queryPositions, keyPositions]: [batch, queryPositions, heads, dHead]. */
  attentionMix(pattern: Tensor, operands: AttentionOperands): Tensor {
    const call = this.#call("attentionMix");
    const attention = this.#attention(call, operands);
    const patternHandle = call.tensor("pattern", pattern, this.#scoresShape(call, attention[3]));
    const out = call.output(operands.queries.shape);
    native.attentionMix(call.native, ...attention, patternHandle, out.handle);
    return out.tensor;
  }

  /** Copies rows [batch, positions, width] into cache [batch, capacity, width] from position `first` on. */
  appendPositions(rows: Tensor, cache: Tensor, first: number): void {
    const call = this.#call("appendPositions");
    const rowsHandle = call.tensor("rows", rows, ["batch", "positions", "width"]);
    const cacheHandle = call.tensor("cache", cache, ["batch", "capacity", "width"]);
    call.integer("first", first);
    call.requireDistinct("rows", rows, "cache", cache);
    if (first + call.size("positions") > call.size("capacity")) {
      call.fail(
        "ERR_SHAPE_MISMATCH",
        `${call.size("positions")} positions from ${first} on do not fit into the cache, which has ${call.size("capacity")}`,
      );
    }
    native.appendPositions(call.native, rowsHandle, cacheHandle, first);
  }

  /** Log-softmax over the last dimension. */
  logSoftmax(logits: Tensor): Tensor {
    const call = this.#call("logSoftmax");
    const logitsHandle = call.tensor("logits", logits, ["...rows", "vocabulary"]);
    const out = call.output(logits.shape);
    native.logSoftmax(call.native, logitsHandle, out.handle);
    return out.tensor;
  }

  /**
   * Tensor [rows]: -log softmax(logits[r])[targets[r]] in nats; logits [..., vocabulary], targets i32 [..., rows in all]. A
   * negative target gives 0; one beyond the vocabulary is ERR_INVALID_ARGUMENT at the next read.
   */
  crossEntropy(logits: Tensor, targets: Tensor): Tensor {
    const call = this.#call("crossEntropy");
    const logitsHandle = call.tensor("logits", logits, ["...rows", "vocabulary"]);
    const targetsHandle = call.tensor("targets", targets, ["...rows"], "i32");
    const out = call.output([call.size("rows")]);
    native.crossEntropy(call.native, logitsHandle, targetsHandle, out.handle);
    return out.tensor;
  }

  /** Tensor [rows]: KL(softmax(p[r]) || softmax(q[r])) in nats, of logits p and q [..., vocabulary]. */
  klDivergence(p: Tensor, q: Tensor): Tensor {
    const call = this.#call("klDivergence");
    const pHandle = call.tensor("p", p, ["...rows", "vocabulary"]);
    const qHandle = call.tensor("q", q, ["...rows", "vocabulary"]);
    const out = call.output([call.size("rows")]);
    native.klDivergence(call.native, pHandle, qHandle, out.handle);
    return out.tensor;
  }

  /** Tensor i32 [rows]: one token drawn for each row of logits [..., vocabulary]. */
  sample(logits: Tensor, sampling: Sampling): Tensor {
    const call = this.#call("sample");
    const logitsHandle = call.tensor("logits", logits, ["...rows", "vocabulary"]);
    const temperature = call.number("temperature", sampling.temperature ?? 1, 0);
    const topK = call.integer("topK", sampling.topK ?? 0);
    const topP = call.number("topP", sampling.topP ?? 1, 0);
    if (!(topP > 0 && topP <= 1)) call.fail("ERR_INVALID_ARGUMENT", `topP must be in (0, 1], found ${topP}`);
    const seed = call.integer("seed", sampling.seed);
    const offset = call.integer("offset", sampling.offset);
    const out = call.output([call.size("rows")], "i32");
    native.sample(call.native, logitsHandle, temperature, topK, topP, seed, offset, out.handle);
    return out.tensor;
  }

  // ---- Operands that several kernels share -----------------------------------------------------------------------

  #rowGradient(call: Operands, gradient: RowGradient): NativeRowGradient {
    const operands: NativeRowGradient[number][] = [gradient.terms.length];
    for (const [i, term] of gradient.terms.entries()) {
      operands.push(
        call.codes(`terms[${i}].codes`, term.codes, `rows of terms[${i}]`),
        call.entryValues(`terms[${i}].coefficients`, term.coefficients, term.codes),
        call.tensor(`terms[${i}].dense`, term.dense, [`...rows of terms[${i}]`, "width"]),
        call.number(`terms[${i}].scale`, term.scale ?? 1),
      );
    }
    operands.push(
      call.optionalTensor("rowCoefficients", gradient.rowCoefficients, ["dSae"]),
      call.number("rowScale", gradient.rowScale ?? 1),
      gradient.projectOutRow ?? false,
    );
    return operands;
  }

  #moments(
    call: Operands,
    weights: Tensor,
    moments: Moments,
    dimensions: readonly (number | string)[],
  ): [m: NativeTensor, v: NativeTensor] {
    const m = call.tensor("m", moments.m, dimensions);
    const v = call.tensor("v", moments.v, dimensions);
    call.requireDistinct("m", moments.m, "the weights", weights);
    call.requireDistinct("v", moments.v, "the weights", weights);
    call.requireDistinct("m", moments.m, "v", moments.v);
    return [m, v];
  }

  #adam(call: Operands, adam: AdamStep): [number, number, number, number, number] {
    for (const name of ["beta1", "beta2"] as const) {
      if (!(adam[name] >= 0 && adam[name] < 1)) {
        call.fail("ERR_INVALID_ARGUMENT", `${name} must be in [0, 1), found ${String(adam[name])}`);
      }
    }
    return [
      call.number("learningRate", adam.learningRate, 0),
      adam.beta1,
      adam.beta2,
      call.number("epsilon", adam.epsilon, 0),
      call.integer("step", adam.step, 1),
    ];
  }

  #clip(call: Operands, clip: Clip | undefined): [NativeTensor | null, number] {
    if (clip === undefined) return [null, 0];
    if (!(clip.maxNorm > 0)) {
      call.fail("ERR_INVALID_ARGUMENT", `clip.maxNorm must be > 0, found ${String(clip.maxNorm)}`);
    }
    return [call.tensor("clip.squaredNorm", clip.squaredNorm, [1], "f64"), clip.maxNorm];
  }

  #activation(call: Operands, activation: Activation): Activation {
    if (!ACTIVATIONS.includes(activation)) {
      call.fail(
        "ERR_INVALID_ARGUMENT",
        `activation must be one of ${ACTIVATIONS.join(", ")}, found ${String(activation)}`,
      );
    }
    return activation;
  }

  #attention(
    call: Operands,
    operands: AttentionOperands,
  ): [queries: NativeTensor, keys: NativeTensor, values: NativeTensor, keyPositions: number, scale: number] {
    const queries = call.tensor("queries", operands.queries, ["batch", "queryPositions", "heads", "dHead"]);
    const keys = call.tensor("keys", operands.keys, ["batch", "capacity", "heads", "dHead"]);
    const values = call.tensor("values", operands.values, ["batch", "capacity", "heads", "dHead"]);
    const capacity = call.size("capacity");
    const keyPositions = call.integer("keyPositions", operands.keyPositions ?? capacity);
    if (keyPositions > capacity || call.size("queryPositions") > keyPositions) {
      call.fail(
        "ERR_SHAPE_MISMATCH",
        `expected queryPositions <= keyPositions <= capacity, found ${call.size("queryPositions")}, ${keyPositions}, ${capacity}`,
      );
    }
    const scale = call.number("scale", operands.scale ?? 1 / Math.sqrt(call.size("dHead")));
    return [queries, keys, values, keyPositions, scale];
  }

  #scoresShape(call: Operands, keyPositions: number): number[] {
    return [call.size("batch"), call.size("heads"), call.size("queryPositions"), keyPositions];
  }
}
