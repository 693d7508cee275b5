import { native } from "./addon.js";
import { Codes, EntryValues } from "./codes.js";
import type { Tensor } from "./tensor.js";
import { TransformerKernels } from "./transformerKernels.js";

/** What {@link Kernels.entryFunction} computes of every value; "heaviside" is 1 where the value is > 0, else 0. */
export type EntryFunction = "tanh" | "exp" | "sigmoid" | "heaviside" | "power";

const ENTRY_FUNCTIONS: readonly string[] = ["tanh", "exp", "sigmoid", "heaviside", "power"] satisfies EntryFunction[];

/** The factors and the summand of {@link Kernels.entryProduct}: absent factors are 1, an absent summand is 0. */
export interface EntryProduct {
  readonly a?: EntryValues | undefined;
  readonly b?: EntryValues | undefined;
  /** [dSae] */
  readonly perFeature?: Tensor | undefined;
  /** Default: 1. */
  readonly scale?: number | undefined;
  readonly plus?: EntryValues | undefined;
}

/** The part of {@link Kernels} that computes with the entries of codes, each at its place. */
export abstract class EntryKernels extends TransformerKernels {
  /** The values or the pre-activations of codes, as they are (nothing is copied). */
  entries(codes: Codes, which: "values" | "preActivations"): EntryValues {
    const call = this.call("entries");
    const codesHandle = call.codes("codes", codes);
    if (which !== "values" && which !== "preActivations") {
      call.fail("ERR_INVALID_ARGUMENT", `expected "values" or "preActivations", found ${String(which)}`);
    }
    const out = native.newEntryValues(codesHandle);
    native.entries(call.native, codesHandle, which, out);
    return new EntryValues(codes, out);
  }

  /** For each entry e of feature f: scale * perFeature[f] * a[e] * b[e] + plus[e]. */
  entryProduct(codes: Codes, product: EntryProduct): EntryValues {
    const call = this.call("entryProduct");
    const codesHandle = call.codes("codes", codes);
    const a = call.optionalEntryValues("a", product.a, codes);
    const b = call.optionalEntryValues("b", product.b, codes);
    const perFeature = call.optionalTensor("perFeature", product.perFeature, ["dSae"]);
    const scale = call.number("scale", product.scale ?? 1);
    const plus = call.optionalEntryValues("plus", product.plus, codes);
    const out = native.newEntryValues(codesHandle);
    native.entryProduct(call.native, codesHandle, a, b, perFeature, scale, plus, out);
    return new EntryValues(codes, out);
  }

  /**
   * A function of each value. "power" raises it to `exponent`, which only this one takes; where the value is <= 0 the
   * result is 0. NaN stays NaN.
   */
  entryFunction(
    values: EntryValues,
    name: EntryFunction,
    options: { readonly exponent?: number | undefined } = {},
  ): EntryValues {
    const call = this.call("entryFunction");
    const handle = call.entryValues("values", values);
    if (!ENTRY_FUNCTIONS.includes(name)) {
      call.fail(
        "ERR_INVALID_ARGUMENT",
        `the function must be one of ${ENTRY_FUNCTIONS.join(", ")}, found ${String(name)}`,
      );
    }
    if ((name === "power") !== (options.exponent !== undefined)) {
      call.fail(
        "ERR_INVALID_ARGUMENT",
        `${name} ${name === "power" ? "needs an exponent" : `takes no exponent, found ${String(options.exponent)}`}`,
      );
    }
    const out = native.newEntryValuesLike(handle);
    if (name === "power") native.entryPower(call.native, handle, call.number("exponent", options.exponent!), out);
    else native.entryActivation(call.native, handle, name, out);
    return new EntryValues(values.codes, out);
  }

  /**
   * Codes with their entries at the same places and other numbers. Default of `preActivations`: those of the codes; of
   * `values`: max(pre-activation, 0). Places and given numbers are shared, not copied.
   */
  withValues(
    codes: Codes,
    numbers: { readonly preActivations?: EntryValues | undefined; readonly values?: EntryValues | undefined },
  ): Codes {
    const call = this.call("withValues");
    const codesHandle = call.codes("codes", codes);
    const preActivations = call.optionalEntryValues("preActivations", numbers.preActivations, codes);
    const values = call.optionalEntryValues("values", numbers.values, codes);
    const out = native.newCodes(call.native, codes.rows, codes.dSae);
    native.withValues(call.native, codesHandle, preActivations, values, out);
    return new Codes(this.device, codes.rows, codes.dSae, out, codes.places);
  }

  /** The entries of the features from `from` to `to` - 1; dSae stays as it is. */
  featureRange(codes: Codes, from: number, to: number): Codes {
    const call = this.call("featureRange");
    const codesHandle = call.codes("codes", codes);
    call.integer("from", from);
    call.integer("to", to, from);
    if (to > codes.dSae) call.fail("ERR_SHAPE_MISMATCH", `to must be <= dSae = ${codes.dSae}, found ${to}`);
    const out = native.newCodes(call.native, codes.rows, codes.dSae);
    native.featureRange(call.native, codesHandle, from, to, out);
    return new Codes(this.device, codes.rows, codes.dSae, out);
  }

  /**
   * Tensor [dSae]: scale times the sum over each feature's entries within the window around its threshold,
   * |pre-activation - thresholds[feature]| < bandwidth / 2, of the coefficients (default: 1). `thresholds` is [dSae].
   * The rectangle kernel of JumpReLU's straight-through estimators (Rajamanoharan et al. 2024, arXiv:2407.14435).
   */
  windowSums(
    codes: Codes,
    thresholds: Tensor,
    bandwidth: number,
    options: { readonly coefficients?: EntryValues | undefined; readonly scale?: number | undefined } = {},
  ): Tensor {
    const call = this.call("windowSums");
    const codesHandle = call.codes("codes", codes);
    const thresholdsHandle = call.tensor("thresholds", thresholds, ["dSae"]);
    call.number("bandwidth", bandwidth, 0);
    const coefficients = call.optionalEntryValues("coefficients", options.coefficients, codes);
    const scale = call.number("scale", options.scale ?? 1);
    const out = call.output([codes.dSae]);
    native.windowSums(call.native, codesHandle, thresholdsHandle, bandwidth, coefficients, scale, out.handle);
    return out.tensor;
  }
}
