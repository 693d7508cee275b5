/** How the parameters of a new SAE are drawn. */
import type { Device } from "../engine/device.js";
import { RandomGenerator } from "../engine/random.js";
import type { Tensor } from "../engine/tensor.js";
import { MonosemError } from "../errors.js";
import type { SaeParameters } from "./architecture.js";
import { architectureNamed } from "./architectures.js";
import type { SaeConfig } from "./config.js";

/**
 * Decoder rows in uniformly random directions, of norm `decoderNorm`. The encoder is the decoder's transpose, which in
 * feature-major memory is a copy; that of a transcoder, whose output is another space, has directions of its own and the
 * same norm. Biases and the skip matrix are zero; the architecture's parameters start as it says. The same seed gives
 * the same parameters.
 *
 * @param config checked; with the training options that the architecture's initial values depend on
 */
export function initialParameters(
  config: SaeConfig,
  { decoderNorm, seed }: { decoderNorm: number; seed: number },
  device: Device,
): SaeParameters {
  const { kernels } = device;
  const { dIn, dSae, dOut = dIn } = config;
  const generator = new RandomGenerator(seed);
  const randomRows = (width: number): Tensor => {
    const rows = device.empty([dSae, width]);
    generator.normal(rows);
    return kernels.normaliseRows(rows, decoderNorm, { out: rows });
  };
  const decoder = randomRows(dOut);
  const encoder = config.transcoder ? randomRows(dIn) : kernels.scale(decoder, 1);
  const own = Object.entries(architectureNamed(config.architecture).parameters).map(([name, { shape, initial }]) => {
    if (initial === "encoder") return [name, kernels.scale(encoder, 1)] as const;
    const tensor = device.empty(shape === "latents" ? [dSae] : [dSae, dIn]);
    kernels.fill(tensor, typeof initial === "number" ? initial : initial(config));
    return [name, tensor] as const;
  });
  return {
    encoder,
    ...Object.fromEntries(own),
    decoder,
    decoderBias: device.zeros([dOut]),
    ...(config.skip ? { skip: device.zeros([dOut, dIn]) } : {}),
  };
}

/**
 * The encoder that is the pseudo-inverse of the decoder: W_enc = W_dec⁺, feature-major D (DᵀD)⁻¹ for dSae >= dIn, else
 * (DDᵀ)⁻¹ D. The inverse is found by Newton-Schulz iteration X <- X (2I - GX) from X = I / |G|_F, which
 * converges quadratically and needs only matrix products, and mended by the same iteration of D⁺ itself.
 *
 * @param decoder f32 [dSae, dIn]
 * @returns f32 [dSae, dIn], the caller's to dispose
 * @throws MonosemError ERR_INVALID_ARGUMENT when the decoder's rank is too low for an inverse in float32.
 */
export async function pseudoInverse(decoder: Tensor, device: Device): Promise<Tensor> {
  const { kernels } = device;
  const [dSae, dIn] = decoder.shape as [number, number];
  using transposed = kernels.transpose(decoder);
  // rows . rows: multiply(a, b) is a bᵀ
  const wide = dSae >= dIn;
  const multiply = (a: Tensor, b: Tensor): Tensor => kernels.linear(a, b, { exact: true });
  using gram = wide ? multiply(transposed, transposed) : multiply(decoder, decoder);
  const size = Math.min(dSae, dIn);

  const identity = new Float32Array(size * size);
  for (let i = 0; i < size; i++) identity[i * size + i] = 1;
  using unit = device.tensor(identity, [size, size]);

  const squaredNorm = async (matrix: Tensor): Promise<number> => {
    using squared = device.zeros([1], "f64");
    kernels.dot(matrix, matrix, squared);
    return await squared.readScalar();
  };
  using inverse = kernels.scale(unit, 1 / Math.sqrt(await squaredNorm(gram)));
  let squaredError = Number.POSITIVE_INFINITY;
  for (let iteration = 0; iteration < 60 && squaredError >= 1e-8 * size; iteration++) {
    using product = multiply(inverse, gram); // XG, so that error is (I - GX)ᵀ, as the next product wants it
    using error = kernels.add(unit, product, { scale: -1 });
    const last = squaredError;
    squaredError = await squaredNorm(error);
    // Squared anew in each step once it is small, until rounding, which the square of D's condition multiplies, stops it.
    if (last < 0.25 && squaredError > last / 4) break;
    using correction = multiply(inverse, error);
    kernels.add(inverse, correction, { out: inverse });
    using mirrored = kernels.transpose(inverse);
    kernels.add(inverse, mirrored, { out: inverse });
    kernels.scale(inverse, 0.5, { out: inverse });
  }
  if (!(squaredError < 0.25)) refuse();

  // Y = (D⁺)ᵀ, which steps with D itself take on to where rounding is multiplied by D's condition alone.
  const found = wide ? multiply(decoder, inverse) : multiply(inverse, transposed);
  for (let step = 0; step < 4; step++) {
    using foundTransposed = kernels.transpose(found);
    using product = wide ? multiply(foundTransposed, transposed) : multiply(found, decoder); // D⁺D, or (DD⁺)ᵀ
    using error = kernels.add(unit, product, { scale: -1 });
    using correction = wide ? multiply(found, error) : multiply(error, foundTransposed);
    kernels.add(found, correction, { out: found });
    // 1e-4 per dimension before this step, its square after
    if ((await squaredNorm(error)) < 1e-8 * size) return found;
  }
  found.dispose();
  return refuse();

  function refuse(): never {
    throw new MonosemError(
      "ERR_INVALID_ARGUMENT",
      `the decoder [${dSae}, ${dIn}] has no pseudo-inverse in float32: its rows do not span ${size} dimensions well enough; ` +
        "initialise the encoder as the decoder's transpose instead",
    );
  }
}
