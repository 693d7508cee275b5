import type { ModelConfig } from "../models/modelConfig.js";
import type { Json } from "./source.js";

/** Where activations come from. */
export interface ActivationOrigin {
  /** Name of the model. */
  readonly model: string;
  readonly hooks: readonly string[];
  readonly contextSize: number;
  readonly prependBos: boolean;
  readonly excludeSpecialTokens: boolean;
  /** Of the model's weights; undefined where it is not known. */
  readonly processing: ModelConfig["processing"] | undefined;
}

/**
 * An origin as an SAE's metadata say it, so that the SAE can be compared with the model and the text that it meets later on.
 * What has no name there has SAELens': `model_from_pretrained_kwargs` are TransformerLens' names of the processing.
 */
export function originMetadata(origin: ActivationOrigin): Readonly<Record<string, Json>> {
  const { model, hooks, contextSize, prependBos, excludeSpecialTokens, processing } = origin;
  return {
    modelName: model,
    ...(hooks.length === 1 ? { hookName: hooks[0]! } : {}),
    contextSize,
    prependBos,
    exclude_special_tokens: excludeSpecialTokens,
    ...(processing === undefined
      ? {}
      : {
          model_from_pretrained_kwargs: {
            fold_ln: processing.foldLn,
            center_writing_weights: processing.centerWritingWeights,
            center_unembed: processing.centerUnembed,
            fold_value_biases: processing.foldValueBiases,
          },
        }),
  };
}
