/**
 * Gated SAE: one path decides which latents are active, another how active they are. With z = W_enc (x - b_dec):
 *
 *     π = z + b_gate                        gate pre-activations
 *     m = exp(r_mag) z + b_mag              magnitudes; the weights are shared with the gate, up to a scale per latent
 *     f = 1[π > 0] ReLU(m)                  x̂ = f W_dec + b_dec
 *
 *     loss = |x̂ - x|²  +  λ Σ ReLU(π_i) |W_dec,i|  +  |ReLU(π) sg(W_dec) + sg(b_dec) - x|²
 *
 * sg: taken as a constant. No gradient passes the step 1[π > 0], so the gate learns from the penalty and from the last
 * term, the "auxiliary" loss: reconstruct x with the gate's ReLU through a frozen copy of the decoder. The penalty does
 * not touch the magnitudes, which is why they do not shrink.
 *
 * Rajamanoharan et al. 2024, "Improving Dictionary Learning with Gated Sparse Autoencoders", arXiv:2404.16014, section
 * 3.2. In the paper decoder rows have norm 1, and so they should: with a free decoder the penalty is weighted by their
 * norms, as in SAELens, and then always gains by shrinking them, since exp(r_mag) makes up for it in f and the frozen copy
 * does not object. The gate's weights must grow without end in return, and training becomes unstable.
 *
 * SAELens' auxiliary loss does not freeze decoder and bias, and it computes the encoder product three times;
 * dictionary_learning agrees with the paper. Texts that describe f = sigmoid(π) ReLU(m) describe another SAE: see
 * softGated.ts.
 */
import type { Codes, EntryValues } from "../engine/codes.js";
import type { Tensor } from "../engine/tensor.js";
import { type Architecture, defineArchitecture, type Encoded, type Forward, nonNegative } from "./architecture.js";
import { decoderNorms, dotProduct, reconstruct, zeroSum } from "./lossTerms.js";

type GatedParameter = "gateBias" | "magnitudeScale" | "magnitudeBias";

/** Everything that is needed of a batch stands at the places where the gate is open, π > 0. */
interface GatedLatents extends Encoded {
  /** ReLU(π) */
  readonly gate: Codes;
  /** z */
  readonly product: EntryValues;
  /** exp(r_mag), [dSae] */
  readonly scale: Tensor;
}

/** λ (`l1Coefficient`) multiplies the sum over latents, averaged over tokens. */
export const gated: Architecture<"gated", object, { readonly l1Coefficient: number }> = defineArchitecture<
  "gated",
  object,
  { readonly l1Coefficient: number },
  GatedParameter,
  never,
  GatedLatents
>({
  name: "gated",
  options: {},
  trainingOptions: {
    l1Coefficient: nonNegative.describe(
      "Weight of the sparsity penalty on the gate; with normalised activations 1 to 10 is usual.",
    ),
  },
  parameters: {
    gateBias: { shape: "latents", initial: 0, savedAs: "b_gate" },
    magnitudeScale: { shape: "latents", initial: 0, savedAs: "r_mag", inPreActivationScale: false },
    magnitudeBias: { shape: "latents", initial: 0, savedAs: "b_mag" },
  },
  initialDecoderNorm: 0.1, // as SAELens: the penalty is weighted by the norms, so they should start small
  decoderUnitNorm: true,
  saved: { name: "gated" },

  encode(forward, input) {
    const { codes, gate, product, scale } = gatedLatents(forward, input);
    for (const handle of [gate, product, scale]) handle.dispose();
    return codes;
  },

  gatedPreActivations({ kernels, parameters: p }, input) {
    using gatePreActivations = kernels.linear(input, p.encoder, { bias: p.gateBias });
    using product = kernels.linear(input, p.encoder);
    using scale = kernels.activation(p.magnitudeScale, "exp");
    using scaled = kernels.scaleColumns(product, scale);
    return {
      preActivations: kernels.addRow(scaled, p.magnitudeBias),
      gate: kernels.activation(gatePreActivations, "heaviside"),
    };
  },

  encodeForTraining(step) {
    const latents = gatedLatents(step, step.input);
    for (const handle of Object.values(latents)) step.keep(handle);
    return latents;
  },

  gradients(step) {
    const { kernels, parameters: p, target, tokens, keep } = step;
    const { codes, gate, product, scale: magnitudeScale } = step.encoded;
    const lambda = step.options.l1Coefficient * step.sparsityScale;
    const norms = decoderNorms(step);
    const gateSums = keep(kernels.featureSums(gate));
    const auxiliaryError = zeroSum(step);
    const scale = 2 / tokens;

    // dLoss/dm = 2/N (x̂ - x) . W_dec,i where f > 0
    const { residual, squaredError } = reconstruct(step);
    const dMagnitude = keep(kernels.decodeGradient(codes, p.decoder, residual, { scale }));

    // dLoss/dπ = 2/N (ReLU(π) W_dec + b_dec - x) . W_dec,i + λ/N |W_dec,i| where π > 0
    const gateResidual = keep(
      kernels.decode(gate, p.decoder, { bias: p.decoderBias, target, squaredError: auxiliaryError }),
    );
    const dGate = keep(
      kernels.decodeGradient(gate, p.decoder, gateResidual, {
        scale,
        perFeature: norms,
        featureScale: lambda / tokens,
      }),
    );

    // dLoss/dz = dLoss/dπ + exp(r_mag) dLoss/dm, and dLoss/dr_mag = Σ_t dLoss/dm exp(r_mag) z
    const dProduct = keep(kernels.entryProduct(gate, { a: dMagnitude, perFeature: magnitudeScale, plus: dGate }));
    const dExponent = keep(kernels.entryProduct(gate, { a: dMagnitude, b: product, perFeature: magnitudeScale }));

    return {
      losses: {
        reconstruction: { sum: squaredError, scale: 1 / tokens },
        sparsity: { sum: dotProduct(step, gateSums, norms), scale: lambda / tokens },
        auxiliary: { sum: auxiliaryError, scale: 1 / tokens },
      },
      residual,
      decoderPaths: [{ codes, dOutput: residual, scale, throughDecoderBias: true }],
      encoderPaths: [{ codes: gate, dPreActivations: dProduct }],
      vectors: {
        gateBias: keep(kernels.featureSums(gate, { coefficients: dGate })),
        magnitudeScale: keep(kernels.featureSums(gate, { coefficients: dExponent })),
        magnitudeBias: keep(kernels.featureSums(gate, { coefficients: dMagnitude })),
      },
      ...(step.decoderUnitNorm ? {} : { decoderNormPenalty: { coefficients: gateSums, scale: lambda / tokens } }),
    };
  },
});

/** One encoder product, selected where the gate is open; z and m follow from π = z + b_gate entry by entry. */
function gatedLatents({ kernels, parameters: p }: Forward<GatedParameter>, input: Tensor): GatedLatents {
  const gate = kernels.encode(input, p.encoder, p.gateBias, { select: "positive" });
  using gateBias = kernels.entryProduct(gate, { perFeature: p.gateBias, scale: -1 });
  using open = kernels.entries(gate, "preActivations");
  const product = kernels.entryProduct(gate, { a: open, plus: gateBias });

  const scale = kernels.activation(p.magnitudeScale, "exp");
  using magnitudeBias = kernels.entryProduct(gate, { perFeature: p.magnitudeBias });
  using magnitudes = kernels.entryProduct(gate, { a: product, perFeature: scale, plus: magnitudeBias });
  const codes = kernels.withValues(gate, { preActivations: magnitudes }); // values: ReLU(m)
  return { codes, gate, product, scale };
}
