/**
 * SAEs that are two linear layers with a ReLU between them: f = ReLU(W_enc x + b_enc), x̂ = W_dec f + b_dec. Goodfire's
 * (`Llama-3.1-8B-Instruct-SAE-l19.pth`) and qresearch's (`DeepSeek-R1-Distill-Llama-8B-SAE-l19.pt`), which differ in the
 * layers' names. The file's name says the model and the layer, after which they read the residual stream.
 */
import type { StoredSae } from "../sae/storedSae.js";
import type { Location } from "./location.js";
import { checkedConfig, matrixShape, readWeights } from "./publishedFormat.js";
import type { TorchFileFormat } from "./torchFiles.js";

const fileName = /\/([^/]+)-SAE-l(\d+)\.pth?$/;

function linearLayers(name: string, encoder: string, decoder: string, hasFileName: boolean): TorchFileFormat {
  return {
    name,
    tensors: [`${encoder}.weight`, `${encoder}.bias`, `${decoder}.weight`, `${decoder}.bias`],
    // layers of such plain names could be those of any SAE
    ...(hasFileName
      ? { fileName: "MODEL-SAE-lLAYER.pt", fits: (location) => location.inPath(fileName) !== undefined }
      : {}),

    async read(location, file) {
      const [dSae, dIn] = matrixShape(file, `${encoder}.weight`);
      const config = checkedConfig(file.path, { architecture: "relu", dIn, dSae, applyBDecToInput: false });
      const weights = await readWeights(file, config, {
        encoder: { tensor: `${encoder}.weight` },
        encoderBias: { tensor: `${encoder}.bias` },
        decoder: { tensor: `${decoder}.weight`, transposed: true },
        decoderBias: { tensor: `${decoder}.bias` },
      });
      return { config, weights, metadata: metadataOf(location) };
    },
  };
}

function metadataOf(location: Location): StoredSae["metadata"] {
  const [modelName, layer] = location.inPath(fileName) ?? [];
  return modelName === undefined ? {} : { modelName, hookName: `blocks.${layer}.hook_resid_post`, prependBos: true };
}

export const goodfire: TorchFileFormat = linearLayers("Goodfire", "encoder_linear", "decoder_linear", false);
export const qresearch: TorchFileFormat = linearLayers("qresearch", "encoder", "decoder", true);
