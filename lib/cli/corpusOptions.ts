import { type Command, Option } from "commander";
import { contexts } from "../activations/contexts.js";
import type { Corpus } from "../activations/corpus.js";
import { type Contexts, limitTokens } from "../analysis/contextBatches.js";
import { MonosemError } from "../errors.js";
import type { HookedTransformer } from "../models/hookedTransformer.js";
import type { Sae } from "../sae/sae.js";
import { positiveInteger } from "./options.js";

/** Flags of the commands that run text through a model. */
export interface CorpusFlags {
  readonly contextSize?: number;
  readonly tokens: number;
  readonly allowMismatch?: boolean;
}

const DEFAULT_CONTEXT_SIZE = 128;

export function addCorpusOptions(command: Command, defaultTokens: number): Command {
  return command
    .addOption(new Option("--context-size <n>", "tokens per context (default: the SAE's)").argParser(positiveInteger))
    .option(
      "--tokens <n>",
      "stop after this many tokens of the corpus, rounded up to whole contexts",
      positiveInteger,
      defaultTokens,
    )
    .option(
      "--allow-mismatch",
      "use an SAE with another model, hook point, processing of weights, BOS policy or context size than it was trained with",
    );
}

/** How text is cut for a model. */
export interface ContextShape {
  readonly contextSize: number;
  readonly prependBos: boolean;
}

/**
 * As it was for the SAE's training, where its metadata tell.
 *
 * @throws MonosemError ERR_CONFIG for contexts longer than the model's.
 */
export function contextShapeForSae(model: HookedTransformer, sae: Sae, flags: CorpusFlags): ContextShape {
  const { contextSize, prependBos } = sae.metadata;
  const longest = model.config.contextSize;
  const chosen = flags.contextSize ?? contextSize ?? Math.min(DEFAULT_CONTEXT_SIZE, longest);
  if (chosen > longest) {
    const whose = flags.contextSize === undefined ? "the SAE was trained on" : "--context-size asks for";
    throw new MonosemError(
      "ERR_CONFIG",
      `${whose} contexts of ${chosen} tokens, but the model reads ${longest} at most`,
    );
  }
  return {
    contextSize: chosen,
    prependBos: prependBos ?? model.config.bosTokenId !== undefined,
  };
}

/** The corpus cut as it was for the SAE's training, where its metadata tell. */
export function contextsForSae(corpus: Corpus, model: HookedTransformer, sae: Sae, flags: CorpusFlags): Contexts {
  return limitTokens(contexts(corpus, model.tokenizer, contextShapeForSae(model, sae, flags)), flags.tokens);
}
