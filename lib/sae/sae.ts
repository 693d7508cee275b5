import type { Json } from "../activations/source.js";
import type { Codes } from "../engine/codes.js";
import type { Device } from "../engine/device.js";
import type { Tensor } from "../engine/tensor.js";
import { MonosemError } from "../errors.js";
import { type ConfiguredEncoder, parameterNames, type SaeParameters } from "./architecture.js";
import { architectureNamed, encoderOf, parseSaeConfig, type SaeConfig } from "./config.js";
import { initialParameters, pseudoInverse } from "./initialise.js";
import { readSaeLensFolder, writeSaeLensFolder } from "./saeLensFolder.js";

/** Where an SAE comes from and how it should be used, as far as known; kept in the saved folder. */
export interface SaeMetadata {
  readonly modelName?: string | undefined;
  /** TransformerLens name of the hook point, for example "blocks.2.hook_resid_post". */
  readonly hookName?: string | undefined;
  readonly contextSize?: number | undefined;
  readonly prependBos?: boolean | undefined;
  /** Anything else that the folder's metadata holds. */
  readonly [key: string]: Json | undefined;
}

export interface SaeCreateOptions {
  /** Norm of the decoder rows; by default the architecture's: 0.1 for relu, 1 for topk. */
  readonly decoderNorm?: number;
  readonly metadata?: SaeMetadata;
}

/**
 * A sparse autoencoder on a device: f = select((x - b_dec) W_enc + b_enc), x̂ = f W_dec + b_dec, b_dec subtracted only
 * with `config.applyBDecToInput`. Activations are f32 [rows, dIn] in the model's own scale.
 */
export class Sae {
  readonly config: SaeConfig;
  readonly metadata: SaeMetadata;
  readonly device: Device;
  readonly parameters: SaeParameters;
  readonly #encoder: ConfiguredEncoder;

  /**
   * An SAE of these parameters, which it takes over.
   *
   * @throws MonosemError ERR_CONFIG for a bad configuration, ERR_SHAPE_MISMATCH for parameters of other shapes.
   */
  constructor(config: SaeConfig, parameters: SaeParameters, device: Device, metadata: SaeMetadata = {}) {
    this.config = parseSaeConfig(config);
    this.parameters = parameters;
    this.device = device;
    this.metadata = metadata;
    this.#encoder = encoderOf(this.config);
    const { dIn, dSae } = this.config;
    const expected = { encoder: [dSae, dIn], encoderBias: [dSae], decoder: [dSae, dIn], decoderBias: [dIn] };
    for (const name of parameterNames) {
      const found = parameters[name].shape;
      if (found.join() !== expected[name].join()) {
        throw new MonosemError(
          "ERR_SHAPE_MISMATCH",
          `SAE parameter ${name} has shape [${found.join(", ")}], expected [${expected[name].join(", ")}]`,
        );
      }
    }
  }

  /**
   * A new SAE: random decoder directions, the encoder its transpose, zero biases. The same seed gives the same SAE.
   *
   * @throws MonosemError ERR_CONFIG for a bad configuration.
   */
  static create(config: SaeConfig, device: Device, seed: number, options: SaeCreateOptions = {}): Sae {
    const parsed = parseSaeConfig(config);
    const decoderNorm = options.decoderNorm ?? architectureNamed(parsed.architecture).initialDecoderNorm;
    const parameters = initialParameters({ dIn: parsed.dIn, dSae: parsed.dSae, decoderNorm, seed }, device);
    return new Sae(parsed, parameters, device, options.metadata);
  }

  /**
   * Reads a SAELens folder: `cfg.json` and `sae_weights.safetensors`.
   *
   * @throws MonosemError ERR_NOT_FOUND for a missing folder, file or tensor; ERR_FORMAT for a malformed or truncated
   *   file, a superfluous or transposed tensor, a wrong dtype; ERR_NON_FINITE for NaN or infinity among the weights;
   *   ERR_UNSUPPORTED for an architecture or an option of SAELens that would otherwise be silently ignored.
   */
  static async load(directory: string, device: Device): Promise<Sae> {
    const { config, weights, metadata } = await readSaeLensFolder(directory);
    const { dIn, dSae } = config;
    using encoderColumns = device.tensor(weights.W_enc, [dIn, dSae]);
    const parameters = {
      encoder: device.kernels.transpose(encoderColumns),
      encoderBias: device.tensor(weights.b_enc, [dSae]),
      decoder: device.tensor(weights.W_dec, [dSae, dIn]),
      decoderBias: device.tensor(weights.b_dec, [dIn]),
    };
    if (weights.rescaledByDecoderNorm) foldDecoderNorms(parameters, device);
    return new Sae(config, parameters, device, metadata);
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

  /** The selected latents of every row of `x` [rows, dIn]; the caller's to dispose. */
  encode(x: Tensor): Codes {
    const forward = { kernels: this.device.kernels, parameters: this.parameters };
    if (!this.config.applyBDecToInput) return this.#encoder.encode(forward, x);
    using input = this.device.kernels.addRow(x, this.parameters.decoderBias, { scale: -1 });
    return this.#encoder.encode(forward, input);
  }

  /** x̂ = f W_dec + b_dec, f32 [rows, dIn]; the caller's to dispose. */
  decode(codes: Codes): Tensor {
    return this.device.kernels.decode(codes, this.parameters.decoder, { bias: this.parameters.decoderBias });
  }

  reconstruct(x: Tensor): Tensor {
    using codes = this.encode(x);
    return this.decode(codes);
  }

  /**
   * From here on takes activations x / scale, where it took x before, and reconstructs those: W_enc *= scale,
   * W_dec /= scale, b_dec /= scale. Latents, encoder bias and selection stay as they were.
   */
  foldInputScale(scale: number): void {
    const { kernels } = this.device;
    const { encoder, decoder, decoderBias } = this.parameters;
    kernels.scale(encoder, scale, { out: encoder });
    kernels.scale(decoder, 1 / scale, { out: decoder });
    kernels.scale(decoderBias, 1 / scale, { out: decoderBias });
  }

  /**
   * Writes a SAELens folder, which SAELens 6 loads unchanged. Each file appears whole or not at all, the weights first.
   *
   * @throws MonosemError ERR_NON_FINITE when a parameter holds NaN or infinity; ERR_IO when the file system refuses.
   */
  async save(directory: string): Promise<void> {
    const { encoder, encoderBias, decoder, decoderBias } = this.parameters;
    using encoderColumns = this.device.kernels.transpose(encoder);
    const [W_enc, b_enc, W_dec, b_dec] = await Promise.all([
      encoderColumns.readFloat32(),
      encoderBias.readFloat32(),
      decoder.readFloat32(),
      decoderBias.readFloat32(),
    ]);
    await writeSaeLensFolder(directory, {
      config: this.config,
      weights: { W_enc, b_enc, W_dec, b_dec },
      metadata: this.metadata,
    });
  }

  dispose(): void {
    for (const name of parameterNames) this.parameters[name].dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

/**
 * SAELens' `rescale_acts_by_decoder_norm`: latents are z_i |W_dec,i| and are decoded by W_dec,i / |W_dec,i|. With the
 * norms n_i folded (W_enc,i *= n_i, b_enc,i *= n_i, W_dec,i /= n_i) the plain formulas give the same numbers.
 */
function foldDecoderNorms({ encoder, encoderBias, decoder }: SaeParameters, { kernels }: Device): void {
  using norms = kernels.rowNorms(decoder);
  kernels.scaleRows(encoder, norms, { out: encoder });
  const biasColumn = encoderBias.reshape([encoderBias.size, 1]);
  kernels.scaleRows(biasColumn, norms, { out: biasColumn });
  kernels.normaliseRows(decoder, 1, { out: decoder });
}
