// An architecture from outside, whose latents may be negative: loaded before the command line by `--import`. As in
// examples/abs-topk.js, without the training.
import { defineArchitecture, registerArchitecture } from "monosem";
import { z } from "zod";

registerArchitecture(
  defineArchitecture({
    name: "abstopk",
    options: { k: z.int().positive() },
    trainingOptions: {},
    parameters: { encoderBias: { shape: "latents", initial: 0, savedAs: "b_enc" } },
    initialDecoderNorm: 1,
    decoderUnitNorm: true,
    saved: { name: "abstopk", keys: ({ k }) => ({ k, rescale_acts_by_decoder_norm: false }) },
    encode: ({ kernels, parameters: p, options }, input) =>
      kernels.encode(input, p.encoder, p.encoderBias, { select: "topk", k: options.k, by: "magnitude" }),
    gradients: () => {
      throw new Error("not trained here");
    },
  }),
);
