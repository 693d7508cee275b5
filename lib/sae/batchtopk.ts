/**
 * BatchTopK SAE: keep the k N largest latents of a batch of N tokens, so that a token may use more than k and another
 * fewer; loss = |x̂ - x|² + α |e - ê|².
 *
 * Bussmann, Leask and Nanda 2024, "BatchTopK Sparse Autoencoders", arXiv:2412.06410. How latents are selected in
 * training and afterwards is in batchSelection.ts; AuxK (Gao et al. 2024, appendix A.2) in lossTerms.ts.
 */
import { type Architecture, defineArchitecture } from "./architecture.js";
import {
  type BatchSelectionOptions,
  batchSelectionOptions,
  batchSelectionParameters,
  batchSelectionState,
  checkBatchSelection,
  encodeAboveThreshold,
  selectOverBatch,
  updateThreshold,
} from "./batchSelection.js";
import { deadLatentTerm, reconstruct } from "./lossTerms.js";

export const batchtopk: Architecture<"batchtopk", object, BatchSelectionOptions> = defineArchitecture({
  name: "batchtopk",
  options: {},
  trainingOptions: batchSelectionOptions,
  parameters: batchSelectionParameters,
  state: batchSelectionState,
  initialDecoderNorm: 1,
  decoderUnitNorm: true,
  saved: { as: "jumprelu" },
  check: checkBatchSelection,

  encode: encodeAboveThreshold,
  encodeForTraining: selectOverBatch,

  gradients(step) {
    const { kernels, parameters: p, codes, tokens } = step;
    const { residual, squaredError } = reconstruct(step);
    const scale = 2 / tokens;
    const dPreActivations = step.keep(kernels.decodeGradient(codes, p.decoder, residual, { scale }));
    const aux = deadLatentTerm(step, residual, step.options);
    return {
      losses: { reconstruction: { sum: squaredError, scale: 1 / tokens }, ...aux.losses },
      residual,
      decoderPaths: [{ codes, dOutput: residual, scale, throughDecoderBias: true }, ...aux.decoderPaths],
      encoderPaths: [{ codes, dPreActivations, bias: "encoderBias" }, ...aux.encoderPaths],
    };
  },

  afterStep: updateThreshold,
});
