import { checkOptions, kindOf, type OptionNames, refuseArgument } from "../checkArguments.js";
import { Codes } from "../engine/codes.js";
import { Device } from "../engine/device.js";
import type { Kernels } from "../engine/kernels.js";
import { Tensor } from "../engine/tensor.js";
import { MonosemError } from "../errors.js";
import type { DownloadOptions } from "../hub/download.js";
import { downloadSae } from "../pretrained/downloadSae.js";
import { readPublishedSae } from "../pretrained/formats.js";
import { metadataOf, publishedSae } from "../pretrained/registry.js";
import type { ConfiguredEncoder, SaeParameters } from "./architecture.js";
import { architectureNamed } from "./architectures.js";
import { type CheckedSaeConfig, encoderOf, type NewSaeConfig, parseSaeConfig, type SaeConfig } from "./config.js";
import { initialParameters, pseudoInverse } from "./initialise.js";
import type { SaeMetadata } from "./metadata.js";
import { parameterLayout } from "./parameterLayout.js";
import { writeSaeLensFolder } from "./saeLensFolder.js";
import type { SaeLoadOptions } from "./storedSae.js";

export type { SaeMetadata } from "./metadata.js";

/** A published SAE. */
export interface PretrainedOptions extends DownloadOptions {
  /** For example "gpt2-small-res-jb"; or a repository on the hub, "owner/name". */
  readonly release: string;
  /** For example "blocks.8.hook_resid_pre"; of a repository the folder. */
  readonly saeId?: string;
}

const loadOptions: OptionNames<SaeLoadOptions> = { inputScale: true };
const pretrainedOptions: OptionNames<PretrainedOptions> = {
  release: true,
  saeId: true,
  revision: true,
  signal: "signal",
  onProgress: "function",
  onWithoutHub: "function",
  onWaiting: "function",
};

export interface SaeCreateOptions {
  /** Norm of the decoder rows; by default the architecture's: 0.1 for relu, 1 for topk. */
  readonly decoderNorm?: number;
  readonly metadata?: SaeMetadata;
}

const optionNames: OptionNames<SaeCreateOptions> = {
  decoderNorm: true,
  metadata: true,
};

/**
 * A sparse autoencoder on a device: f = select((x - b_dec) W_enc + b_enc), x̂ = f W_dec + b_dec, b_dec subtracted only
 * with `config.applyBDecToInput`. Activations are f32 [rows, dIn] in the model's own scale; reconstructions [rows, dOut].
 *
 * A transcoder reconstructs other activations than it encodes, a skip transcoder with x W_skipᵀ added.
 */
export class Sae {
  readonly config: CheckedSaeConfig;
  readonly metadata: SaeMetadata;
  readonly device: Device;
  readonly parameters: SaeParameters;
  readonly #encoder: ConfiguredEncoder;

  /**
   * An SAE of these parameters, which it takes over.
   *
   * @throws MonosemError ERR_CONFIG for a bad configuration, ERR_SHAPE_MISMATCH for missing or superfluous parameters
   *   or such of other shapes.
   */
  constructor(config: SaeConfig, parameters: SaeParameters, device: Device, metadata: SaeMetadata = {}) {
    requireDevice("Sae", device);
    if (typeof parameters !== "object" || parameters === null)
      refuseArgument("Sae: parameters", "an object", parameters);
    this.config = parseSaeConfig(config);
    this.parameters = parameters;
    this.device = device;
    this.metadata = metadata;
    this.#encoder = encoderOf(this.config);
    const expected = new Map(parameterLayout(this.config).map(({ name, shape }) => [name, shape]));
    for (const name of new Set([...expected.keys(), ...Object.keys(parameters)])) {
      const [found, wanted] = [parameters[name]?.shape, expected.get(name)].map(
        (shape) => shape && `[${shape.join(", ")}]`,
      );
      if (found !== wanted) {
        throw new MonosemError(
          "ERR_SHAPE_MISMATCH",
          `SAE parameter ${name}: expected ${wanted ?? "none of this name"}, found ${found ?? "none"}`,
        );
      }
    }
  }

  /**
   * A new SAE: random decoder directions, the encoder its transpose, zero biases. The same seed gives the same SAE.
   *
   * @param config may be a training configuration, on which the architecture's initial values can depend
   * @throws MonosemError ERR_CONFIG for a bad configuration, ERR_INVALID_ARGUMENT for another bad argument.
   */
  static create(config: NewSaeConfig, device: Device, seed: number, options: SaeCreateOptions = {}): Sae {
    checkOptions("Sae.create", options, optionNames);
    requireDevice("Sae.create", device);
    if (typeof config !== "object" || config === null) refuseArgument("Sae.create: config", "an object", config);
    const { applyBDecToInput = config.transcoder !== true } = config;
    const parsed = parseSaeConfig({ ...config, applyBDecToInput });
    const { initialDecoderNorm } = architectureNamed(parsed.architecture);
    const { decoderNorm = initialDecoderNorm, metadata } = options;
    const parameters = initialParameters({ ...config, ...parsed }, { decoderNorm, seed }, device);
    return new Sae(parsed, parameters, device, metadata);
  }

  /**
   * Reads an SAE of any format that is known: folders of SAELens, or the folder or file of another system
   * (lib/pretrained/formats.ts). Scales that a format keeps beside its weights are folded into them.
   *
   * @throws MonosemError ERR_NOT_FOUND for a missing folder, file or tensor, or when nothing there is an SAE; ERR_FORMAT for
   *   a malformed or truncated file, a superfluous or transposed tensor, a wrong dtype; ERR_NON_FINITE for NaN or infinity
   *   among the weights; ERR_UNSUPPORTED for an architecture or an option that would otherwise be silently ignored;
   *   ERR_INVALID_ARGUMENT for an `inputScale` where the weights are not for scaled activations.
   */
  static async load(path: string, device: Device, options: SaeLoadOptions = {}): Promise<Sae> {
    if (typeof path !== "string") refuseArgument("Sae.load: path", "a folder or a file", path);
    requireDevice("Sae.load", device);
    checkOptions("Sae.load", options, loadOptions);
    const { config, weights, metadata, latentsInDecoderNorm, scale } = await readPublishedSae(path, options);
    const parameters = parameterLayout(config).map(({ name, shape }) => {
      const { values, transposed } = weights[name]!;
      if (!transposed) return [name, device.tensor(values, shape)];
      using columns = device.tensor(values, [...shape].reverse());
      return [name, device.kernels.transpose(columns)];
    });
    const sae = new Sae(config, Object.fromEntries(parameters) as SaeParameters, device, metadata);
    if (scale !== undefined) sae.foldInputScale(scale.input, scale.output);
    // SAELens' `rescale_acts_by_decoder_norm`: latents are z_i |W_dec,i| and are decoded by W_dec,i / |W_dec,i|
    if (latentsInDecoderNorm) sae.foldDecoderNorm();
    return sae;
  }

  /**
   * Loads a published SAE by its names, as SAELens and Neuronpedia have them; it is downloaded into the cache unless it is
   * there. What the registry says and the SAE's own files do not is added to its metadata.
   *
   * @throws MonosemError ERR_NOT_FOUND for unknown names, with those that come nearest; what `downloadFiles` and `load`
   *   throw
   */
  static async fromPretrained(published: PretrainedOptions, device: Device): Promise<Sae> {
    checkOptions("Sae.fromPretrained", published, pretrainedOptions);
    requireDevice("Sae.fromPretrained", device);
    const { release, saeId, ...options } = published;
    const { sae: known, path } = await downloadSae(publishedSae(release, saeId), options);
    const { inputScale } = known;
    const loaded = await Sae.load(path, device, inputScale === undefined ? {} : { inputScale });
    const metadata = { ...metadataOf(known), ...loaded.metadata, ...known.metadata };
    return new Sae(loaded.config, loaded.parameters, device, metadata);
  }

  /**
   * Replaces the encoder by the pseudo-inverse of the decoder, the other way to start from a random decoder: latents
   * then begin as the least-squares coefficients of x.
   *
   * @throws MonosemError ERR_INVALID_ARGUMENT when the decoder's rank is too low for an inverse in float32.
   */
  async setEncoderToPseudoInverse(): Promise<void> {
    using encoder = await pseudoInverse(this.parameters.decoder, this.device);
    this.device.kernels.scale(encoder, 1, { out: this.parameters.encoder });
  }

  /**
   * The selected latents of every row of `x` [..., dIn], whose leading dimensions together are the rows of the codes; the
   * caller's to dispose.
   *
   * @throws MonosemError ERR_SHAPE_MISMATCH for activations of another width.
   */
  encode(x: Tensor): Codes {
    using rows = this.#rowsOf("encode", x);
    return this.#encodeRows(rows);
  }

  #encodeRows(x: Tensor): Codes {
    using input = this.#encoderInput(x);
    return this.#encoder.encode({ kernels: this.device.kernels, parameters: this.parameters }, input);
  }

  /** What the encoder multiplies: x [rows, dIn], normalised and less b_dec as the configuration says. */
  #encoderInput(x: Tensor): Tensor {
    const input = this.#normalised(x);
    if (!this.config.applyBDecToInput) return input;
    using uncentred = input;
    return this.device.kernels.addRow(uncentred, this.parameters.decoderBias, { scale: -1 });
  }

  #normalised(x: Tensor): Tensor {
    const { normalizeActivations } = this.config;
    if (normalizeActivations === "none") return x.reshape(x.shape);
    if (normalizeActivations === "layer-norm") return normalisedRows(x, this.device);
    const { kernels } = this.device;
    using scales = this.outputScales(x)!;
    using one = this.device.empty(scales.shape);
    kernels.fill(one, 1);
    using factors = kernels.divide(one, scales);
    return kernels.scaleRows(x, factors);
  }

  /**
   * What each row of f W_dec + b_dec is multiplied by in the reconstruction of x [rows, dIn]: f32 [rows], the caller's to
   * dispose; undefined where it is 1, because activations are not normalised.
   */
  outputScales(x: Tensor): Tensor | undefined {
    const { kernels } = this.device;
    const { dIn, normalizeActivations } = this.config;
    if (normalizeActivations === "none") return undefined;
    if (normalizeActivations === "constant-norm") {
      const norms = kernels.rowNorms(x);
      return kernels.scale(norms, 1 / Math.sqrt(dIn), { out: norms });
    }
    const { normalized, mean, standardDeviation } = kernels.standardiseRows(x, { epsilon: layerNormEpsilon });
    normalized.dispose();
    mean.dispose();
    return standardDeviation;
  }

  /**
   * The pre-activations of all latents, selected or not: x W_enc + b_enc (b_dec subtracted from x as in `encode`), of a
   * gated SAE those of its magnitudes; f32 [rows, dSae], the caller's to dispose.
   *
   * @throws MonosemError ERR_SHAPE_MISMATCH for activations of another width.
   */
  preActivations(x: Tensor): Tensor {
    using rows = this.#rowsOf("preActivations", x);
    using input = this.#encoderInput(rows);
    const { device, parameters } = this;
    const gated = this.#encoder.gatedPreActivations({ kernels: device.kernels, parameters }, input);
    gated?.gate.dispose();
    return gated?.preActivations ?? device.kernels.linear(input, parameters.encoder, { bias: parameters.encoderBias });
  }

  /**
   * The latents that are selected if the pre-activations are these and no others, f32 [rows, dSae]; the caller's to
   * dispose. A gate that a gated SAE has beside them is that of `x`, [..., dIn].
   *
   * @throws MonosemError ERR_SHAPE_MISMATCH for another width or another number of rows than that of x
   */
  encodePreActivations(preActivations: Tensor, x: Tensor): Codes {
    if (!(preActivations instanceof Tensor)) {
      refuseArgument("encodePreActivations: the pre-activations", "a Tensor [rows, dSae]", preActivations);
    }
    const { kernels } = this.device;
    const { dSae } = this.config;
    using rows = this.#rowsOf("encodePreActivations", x);
    const [count] = rows.shape as [number];
    if (preActivations.shape.join() !== `${count},${dSae}`) {
      throw new MonosemError(
        "ERR_SHAPE_MISMATCH",
        `encodePreActivations: expected pre-activations [${count}, ${dSae}], found [${preActivations.shape.join(", ")}]`,
      );
    }
    using input = this.#encoderInput(rows);
    const gated = this.#encoder.gatedPreActivations({ kernels, parameters: this.parameters }, input);
    gated?.preActivations.dispose();
    using gate = gated?.gate;
    using magnitudes = gate && kernels.activation(preActivations, "relu");
    using latents = magnitudes && kernels.multiply(magnitudes, gate!);
    // Under an encoder whose columns are the pre-activations, row t of the identity has exactly those of row t; where the
    // device rounds what it multiplies, that of parts which this leaves as they are, and of as many identities.
    using parts =
      this.device.precision === "float32" ? undefined : inShortParts(latents ?? preActivations, this.device);
    const columns = parts?.shape[0] ?? count;
    const ones = new Float32Array(count * columns);
    for (let row = 0; row < count; row++) {
      for (let column = row; column < columns; column += count) ones[row * columns + column] = 1;
    }
    using identity = this.device.tensor(ones, [count, columns]);
    using encoder = kernels.transpose(parts ?? latents ?? preActivations);
    using encoderBias = this.device.zeros([dSae]);
    if (latents !== undefined) return kernels.encode(identity, encoder, encoderBias, { select: "positive" });
    return this.#encoder.encode({ kernels, parameters: { ...this.parameters, encoder, encoderBias } }, identity);
  }

  /**
   * x̂ = f W_dec + b_dec, f32 [rows, dOut]; the caller's to dispose.
   *
   * @param x what was encoded, [..., dIn]: the output of a skip transcoder contains x W_skipᵀ, that of an SAE with
   *   layer norm has the mean and standard deviation of x, one with constant norm is in the scale of |x|. Others do not look
   *   at it.
   * @throws MonosemError ERR_INVALID_ARGUMENT when x is needed and missing, ERR_SHAPE_MISMATCH for an x of another width
   *   or of another number of rows.
   */
  decode(codes: Codes, x?: Tensor): Tensor {
    const { decoder, decoderBias } = this.parameters;
    if (!(codes instanceof Codes)) refuseArgument("decode: the codes", "Codes (sae.encode(x))", codes);
    return this.#decoded("decode: the codes", codes.rows, x, (kernels) =>
      kernels.decode(codes, decoder, { bias: decoderBias }),
    );
  }

  /**
   * `decode` of latents that stand in a matrix, zeros and all: f32 [rows, dSae], for example codes that were made dense
   * and changed.
   *
   * @throws MonosemError as `decode`; ERR_SHAPE_MISMATCH for latents of another width
   */
  decodeDense(latents: Tensor, x?: Tensor): Tensor {
    const { decoder, decoderBias } = this.parameters;
    if (!(latents instanceof Tensor)) refuseArgument("decodeDense: the latents", "a Tensor [rows, dSae]", latents);
    return this.#decoded("decodeDense: the latents", latents.shape[0]!, x, (kernels) => {
      using columns = kernels.transpose(decoder);
      return kernels.linear(latents, columns, { bias: decoderBias, exact: true });
    });
  }

  /** Adds to f W_dec + b_dec what depends on x. */
  #decoded(what: string, count: number, x: Tensor | undefined, product: (kernels: Kernels) => Tensor): Tensor {
    const { kernels } = this.device;
    const { skip } = this.parameters;
    const { normalizeActivations } = this.config;
    const dependsOnX = skip !== undefined || normalizeActivations !== "none";
    if (x === undefined && dependsOnX) {
      throw new MonosemError(
        "ERR_INVALID_ARGUMENT",
        `decoding needs x as well: this SAE's output depends on it (${skip === undefined ? normalizeActivations : "skip"})`,
      );
    }
    using rows = dependsOnX ? this.#rowsOf("decode", x!) : undefined;
    if (rows !== undefined && rows.shape[0] !== count) {
      throw new MonosemError("ERR_SHAPE_MISMATCH", `${what} have ${count} rows, but x ${rows.shape[0]}`);
    }
    const output = product(kernels);
    if (skip !== undefined) {
      using skipped = kernels.linear(rows!, skip);
      kernels.add(output, skipped, { out: output });
    }
    if (normalizeActivations === "layer-norm") {
      const { normalized, mean, standardDeviation } = kernels.standardiseRows(rows!, { epsilon: layerNormEpsilon });
      kernels.affineRows(output, standardDeviation, mean, { out: output });
      for (const part of [normalized, mean, standardDeviation]) part.dispose();
    }
    if (normalizeActivations === "constant-norm") {
      using scales = this.outputScales(rows!)!;
      kernels.scaleRows(output, scales, { out: output });
    }
    return output;
  }

  /** x̂ of x [..., dIn], f32 [rows, dOut]; the caller's to dispose. */
  reconstruct(x: Tensor): Tensor {
    using codes = this.encode(x);
    return this.decode(codes, x);
  }

  /** x [..., dIn] as [rows, dIn]. */
  #rowsOf(what: string, x: Tensor): Tensor {
    const { dIn } = this.config;
    if (!(x instanceof Tensor)) {
      refuseArgument(`${what}: the activations`, "a Tensor (device.tensor(values, [rows, dIn]))", x);
    }
    if (x.shape.at(-1) !== dIn) {
      throw new MonosemError(
        "ERR_SHAPE_MISMATCH",
        `${what}: expected activations [..., dIn] with dIn ${dIn}, found [${x.shape.join(", ")}]: they are of another ` +
          "model or hook than the SAE",
      );
    }
    return x.reshape([x.size / dIn, dIn]);
  }

  /**
   * From here on takes activations x / input, where it took x before, and reconstructs those (a transcoder: y / output):
   * W_enc *= input, W_dec /= output, b_dec /= output, W_skip *= input / output. Latents, encoder bias and selection stay
   * as they were.
   *
   * @param input one scale, or a crosscoder's one per hook
   * @param output the same for the output; by default the input's
   * @throws MonosemError ERR_INVALID_ARGUMENT for a scale that is no finite number above 0
   */
  foldInputScale(input: number | readonly number[], output: number | readonly number[] = input): void {
    const { kernels } = this.device;
    const { dIn, dOut } = this.config;
    const { decoder, decoderBias, skip } = this.parameters;
    using inputFactors = this.#perColumn(input, dIn);
    using outputScales = this.#perColumn(output, dOut);
    using one = this.device.empty([dOut]);
    kernels.fill(one, 1);
    using outputFactors = kernels.divide(one, outputScales);
    for (const { name, savedTransposed } of parameterLayout(this.config)) {
      const parameter = this.parameters[name]!;
      if (savedTransposed || name === "skip") kernels.scaleColumns(parameter, inputFactors, { out: parameter });
    }
    kernels.scaleColumns(decoder, outputFactors, { out: decoder });
    kernels.multiply(decoderBias, outputFactors, { out: decoderBias });
    if (skip !== undefined) kernels.scaleRows(skip, outputFactors, { out: skip });
  }

  #perColumn(scale: number | readonly number[], width: number): Tensor {
    const { hookWidths = [width] } = this.config;
    const scales = typeof scale === "number" ? hookWidths.map(() => scale) : scale;
    const isScale = (value: unknown): boolean => Number.isFinite(value) && (value as number) > 0;
    if (!Array.isArray(scales) || scales.length !== hookWidths.length || !scales.every(isScale)) {
      const several = hookWidths.length > 1 ? `, or a list of ${hookWidths.length} of them` : "";
      throw new MonosemError(
        "ERR_INVALID_ARGUMENT",
        `foldInputScale: a scale must be a finite number above 0${several}, found ${Array.isArray(scale) ? `[${scale.map(kindOf).join(", ")}]` : kindOf(scale)}`,
      );
    }
    const columns = hookWidths.flatMap((columns, hook) => new Array<number>(columns).fill(scales[hook]!));
    return this.device.tensor(Float32Array.from(columns), [width]);
  }

  /**
   * Makes every decoder row one of norm 1 (in a crosscoder: of summed norm 1), with latents and everything in their
   * scale multiplied by the former norm. Reconstructions stay the same. Rows of norm 0 keep their latents.
   *
   * @throws MonosemError ERR_UNSUPPORTED for an architecture whose latents do not scale with their pre-activations.
   */
  foldDecoderNorm(): void {
    const { kernels } = this.device;
    const { encoder, decoder } = this.parameters;
    const { dSae, hookWidths, architecture } = this.config;
    if (!architectureNamed(architecture).homogeneous) {
      throw new MonosemError(
        "ERR_UNSUPPORTED",
        `the latents of architecture "${architecture}" do not scale with their pre-activations: decoder norms cannot be folded`,
      );
    }
    using norms = kernels.rowNorms(decoder, hookWidths === undefined ? {} : { blockWidths: hookWidths });
    // 1 in place of 0: norms + (norms == 0)
    using positive = kernels.activation(norms, "heaviside");
    using one = this.device.empty([dSae]);
    kernels.fill(one, 1);
    using zero = kernels.add(one, positive, { scale: -1 });
    kernels.add(norms, zero, { out: norms });
    using inverse = kernels.divide(one, norms);
    kernels.scaleRows(decoder, inverse, { out: decoder });
    kernels.scaleRows(encoder, norms, { out: encoder });
    for (const [name, specification] of Object.entries(architectureNamed(architecture).parameters)) {
      const { shape, inPreActivationScale = true } = specification;
      const parameter = this.parameters[name]!;
      if (!inPreActivationScale) continue;
      if (shape === "latents") kernels.multiply(parameter, norms, { out: parameter });
      else kernels.scaleRows(parameter, norms, { out: parameter });
    }
  }

  /**
   * Writes a SAELens folder, which SAELens 6 loads unchanged where it knows the architecture. Where the folder holds an SAE
   * already, a kill at any moment leaves that one, the new one, or a folder without cfg.json, which does not load.
   *
   * @throws MonosemError ERR_NON_FINITE when a parameter holds NaN or infinity; ERR_IO when the file system refuses.
   */
  async save(directory: string): Promise<void> {
    const weights = await Promise.all(
      parameterLayout(this.config).map(async ({ name, savedTransposed }) => {
        const parameter = this.parameters[name]!;
        if (!savedTransposed) return [name, await parameter.readFloat32()] as const;
        using columns = this.device.kernels.transpose(parameter);
        return [name, await columns.readFloat32()] as const;
      }),
    );
    await writeSaeLensFolder(directory, {
      config: this.config,
      weights: Object.fromEntries(weights),
      metadata: this.metadata,
    });
  }

  dispose(): void {
    for (const parameter of Object.values(this.parameters)) parameter?.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

function requireDevice(what: string, device: Device): void {
  if (!(device instanceof Device)) refuseArgument(`${what}: device`, "a Device (await Device.open())", device);
}

/** What SAELens' "layer_norm" adds to the standard deviation. */
export const layerNormEpsilon = 1e-5;

/** (x - mean) / (std + 1e-5) of every row, as SAEs with layer norm see activations; the caller's to dispose. */
export function normalisedRows(x: Tensor, { kernels }: Device): Tensor {
  const { normalized, mean, standardDeviation } = kernels.standardiseRows(x, { epsilon: layerNormEpsilon });
  mean.dispose();
  standardDeviation.dispose();
  return normalized;
}

/**
 * Numbers of 8 significant bits, as many as bfloat16 has, that add up to those of a matrix: [rows, columns] become
 * [3 * rows, columns], the leading parts first. (Veltkamp's splitting, in Dekker 1971, Numerische Mathematik 18.)
 */
function inShortParts(matrix: Tensor, device: Device): Tensor {
  const { kernels } = device;
  const [rows, columns] = matrix.shape as [number, number];
  const parts = device.empty([3 * rows, columns]);
  const leadingOf = (numbers: Tensor): Tensor => {
    using scaled = kernels.scale(numbers, 2 ** 16 + 1);
    using difference = kernels.add(scaled, numbers, { scale: -1 });
    return kernels.add(scaled, difference, { scale: -1 });
  };
  using first = leadingOf(matrix);
  using rest = kernels.add(matrix, first, { scale: -1 });
  using second = leadingOf(rest);
  using third = kernels.add(rest, second, { scale: -1 });
  for (const [i, part] of [first, second, third].entries()) kernels.copyRows(part, parts, i * rows);
  return parts;
}
