import type { NativeRowGradient } from "./addon.js";
import { type NativeTensor, native } from "./addon.js";
import { Codes, EntryValues, everyPlace, FeatureSet } from "./codes.js";
import { EntryKernels } from "./entryKernels.js";
import { KeptGradient } from "./keptGradient.js";
import type { Operands } from "./operands.js";
import { nativeSelection, type Selection } from "./selection.js";
import type { Tensor } from "./tensor.js";

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
 * runs; where it is NaN or infinite, nothing is written and the next read rejects with ERR_NON_FINITE.
 */
export interface Clip {
  readonly squaredNorm: Tensor;
  /** > 0; Infinity: only the check. */
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
 * `projectOutRow` less its component along weights[f]. With `blockWidths` the penalty acts on each block of columns by
 * itself: weights[f, block] / |weights[f, block]|.
 */
export interface RowGradient {
  readonly terms: readonly EntryTerm[];
  /** [dSae] */
  readonly rowCoefficients?: Tensor | undefined;
  /** Default: 1. */
  readonly rowScale?: number | undefined;
  /** Of consecutive blocks of columns, together `width`. Default: one block of all columns. */
  readonly blockWidths?: readonly number[] | undefined;
  readonly projectOutRow?: boolean | undefined;
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
export class Kernels extends EntryKernels {
  /**
   * Codes of x [..., dIn] under encoder [dSae, dIn] and bias [dSae]: pre-activation x · encoder[f] + bias[f], selection
   * in the same pass; no [rows, dSae] matrix is written unless all of it is selected. NaN or infinity in any operand is
   * ERR_NON_FINITE at the next read.
   */
  encode(x: Tensor, encoder: Tensor, bias: Tensor, selection: Selection): Codes {
    const call = this.call("encode");
    const xHandle = call.tensor("x", x, ["...rows", "dIn"]);
    const encoderHandle = call.tensor("encoder", encoder, ["dSae", "dIn"]);
    const biasHandle = call.tensor("bias", bias, ["dSae"]);
    const features = call.featureSet("selection.features", selection.features);
    const operands = nativeSelection(call, selection);
    const [rows, dSae] = [call.size("rows"), call.size("dSae")];
    const handle = native.newCodes(call.native, rows, dSae);
    native.encode(call.native, xHandle, encoderHandle, biasHandle, ...operands, features, handle);
    const places = selection.select === "all" && features === null ? everyPlace(rows, dSae) : undefined;
    return new Codes(this.device, rows, dSae, handle, places);
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
    const call = this.call("decode");
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
   * scale * dOutput[row] · decoder[feature] + featureScale * perFeature[feature], but 0 where the entry is not active
   * (its value is 0), unless `every` is true. `perFeature` is [dSae]; both scales are 1 by default.
   */
  decodeGradient(
    codes: Codes,
    decoder: Tensor,
    dOutput: Tensor,
    options: {
      readonly scale?: number | undefined;
      readonly perFeature?: Tensor | undefined;
      readonly featureScale?: number | undefined;
      readonly every?: boolean | undefined;
    } = {},
  ): EntryValues {
    const call = this.call("decodeGradient");
    const codesHandle = call.codes("codes", codes);
    const decoderHandle = call.tensor("decoder", decoder, ["dSae", "dOut"]);
    const dOutputHandle = call.tensor("dOutput", dOutput, ["...rows", "dOut"]);
    const scale = call.number("scale", options.scale ?? 1);
    const perFeature = call.optionalTensor("perFeature", options.perFeature, ["dSae"]);
    const featureScale = call.number("featureScale", options.featureScale ?? 1);
    const out = native.newEntryValues(codesHandle);
    native.decodeGradient(
      call.native,
      codesHandle,
      decoderHandle,
      dOutputHandle,
      scale,
      perFeature,
      featureScale,
      options.every ?? false,
      out,
    );
    return new EntryValues(codes, out);
  }

  /** Tensor [dSae]: scale times the sum of the coefficients (default: the values) of each feature's entries. */
  featureSums(
    codes: Codes,
    options: { readonly coefficients?: EntryValues | undefined; readonly scale?: number | undefined } = {},
  ): Tensor {
    const call = this.call("featureSums");
    const codesHandle = call.codes("codes", codes);
    const coefficients = call.optionalEntryValues("coefficients", options.coefficients, codes);
    const scale = call.number("scale", options.scale ?? 1);
    const out = call.output([codes.dSae]);
    native.featureSums(call.native, codesHandle, coefficients, scale, out.handle);
    return out.tensor;
  }

  /** Tensor [dSae]: how many active entries (value other than 0) each feature has. */
  featureCounts(codes: Codes): Tensor {
    const call = this.call("featureCounts");
    const codesHandle = call.codes("codes", codes);
    const out = call.output([codes.dSae]);
    native.featureCounts(call.native, codesHandle, out.handle);
    return out.tensor;
  }

  /** Tensor [rows, dSae]: the values as a dense matrix. */
  densify(codes: Codes): Tensor {
    const call = this.call("densify");
    const codesHandle = call.codes("codes", codes);
    const out = call.output([codes.rows, codes.dSae]);
    native.densify(call.native, codesHandle, out.handle);
    return out.tensor;
  }

  /**
   * The k entries of each row with the largest pre-activations (ties: the lower feature), all where there are fewer;
   * pre-activations and values stay. NaN or infinity among the pre-activations is ERR_NON_FINITE at the next read.
   */
  selectTop(codes: Codes, k: number): Codes {
    const call = this.call("selectTop");
    const codesHandle = call.codes("codes", codes);
    const handle = native.newCodes(call.native, codes.rows, codes.dSae);
    native.selectTop(call.native, codesHandle, call.integer("k", k), handle);
    return new Codes(this.device, codes.rows, codes.dSae, handle);
  }

  /**
   * Takes the smallest active value m of the codes into a running mean with bias correction (BatchTopK's threshold for
   * inference): state (f64 [2], zeros at first) becomes decay * state + (1 - decay) * [m, 1], then every element of
   * `out` state[0] / state[1]. Where no entry is active, nothing happens. `decay` is in [0, 1).
   */
  updateRunningMinimum(codes: Codes, decay: number, state: Tensor, out: Tensor): void {
    const call = this.call("updateRunningMinimum");
    const codesHandle = call.codes("codes", codes);
    const stateHandle = call.tensor("state", state, [2], "f64");
    const outHandle = call.tensor("out", out, ["...elements"]);
    if (!(call.number("decay", decay, 0) < 1)) {
      call.fail("ERR_INVALID_ARGUMENT", `decay must be in [0, 1), found ${decay}`);
    }
    native.updateRunningMinimum(call.native, codesHandle, decay, stateHandle, outHandle);
  }

  /**
   * Adds the squared Frobenius norm of the gradient of `weights` [dSae, width] to `squaredNorm` (f64 [1]). The result is
   * for {@link stepRows} and the caller's to dispose.
   */
  rowGradientSquaredNorm(gradient: RowGradient, weights: Tensor, squaredNorm: Tensor): KeptGradient {
    const call = this.call("rowGradientSquaredNorm");
    const weightsHandle = call.tensor("weights", weights, ["dSae", "width"]);
    const operands = this.#rowGradient(call, gradient);
    const squaredNormHandle = call.tensor("squaredNorm", squaredNorm, [1], "f64");
    const kept = native.newKeptGradient(call.native);
    native.rowGradientSquaredNorm(call.native, ...operands, weightsHandle, squaredNormHandle, kept);
    return new KeptGradient(gradient, weights, kept);
  }

  /** The gradient of `weights` [dSae, width] as a matrix; training uses {@link stepRows}, which never writes it. */
  rowGradient(gradient: RowGradient, weights: Tensor): Tensor {
    const call = this.call("rowGradient");
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
    const call = this.call("stepRows");
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
    const call = this.call("stepVector");
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

  /** tokensSinceFired (f64 [dSae]) of a feature becomes 0 where it has an active entry, else grows by `tokens`. */
  updateTokensSinceFired(codes: Codes, tokens: number, tokensSinceFired: Tensor): void {
    const call = this.call("updateTokensSinceFired");
    const codesHandle = call.codes("codes", codes);
    const handle = call.tensor("tokensSinceFired", tokensSinceFired, ["dSae"], "f64");
    native.updateTokensSinceFired(call.native, codesHandle, call.integer("tokens", tokens), handle);
  }

  /** The features whose tokensSinceFired (f64 [dSae]) is at least `threshold`. */
  featuresNotFiredFor(tokensSinceFired: Tensor, threshold: number): FeatureSet {
    const call = this.call("featuresNotFiredFor");
    const handle = call.tensor("tokensSinceFired", tokensSinceFired, ["dSae"], "f64");
    call.number("threshold", threshold);
    const dSae = call.size("dSae");
    const out = native.newFeatureSet(call.native, dSae);
    native.featuresNotFiredFor(call.native, handle, threshold, out);
    return new FeatureSet(this.device, dSae, out);
  }

  // ---- Operands that several kernels share -----------------------------------------------------------------------

  #rowGradient(call: Operands, gradient: RowGradient): NativeRowGradient {
    const operands: NativeRowGradient[number][] = [gradient.terms.length];
    for (const [i, term] of gradient.terms.entries()) {
      operands.push(
        call.codes(`terms[${i}].codes`, term.codes, `rows of terms[${i}]`),
        call.optionalEntryValues(`terms[${i}].coefficients`, term.coefficients, term.codes),
        call.tensor(`terms[${i}].dense`, term.dense, [`...rows of terms[${i}]`, "width"]),
        call.number(`terms[${i}].scale`, term.scale ?? 1),
      );
    }
    operands.push(
      call.optionalTensor("rowCoefficients", gradient.rowCoefficients, ["dSae"]),
      call.number("rowScale", gradient.rowScale ?? 1),
      ...call.blockWidths("blockWidths", gradient.blockWidths, "width"),
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
}
