import { type Command, Option } from "commander";
import { contexts } from "../activations/contexts.js";
import type { Corpus } from "../activations/corpus.js";
import { type Contexts, limitTokens } from "../analysis/contextBatches.js";
import type { HookedTransformer } from "../models/hookedTransformer.js";
import type { Sae } from "../sae/sae.js";
import { positiveInteger } from "./options.js";

/** Flags of the commands that run text through a model. */
export interface CorpusFlags {
  readonly contextSize?: number;
  readonly tokens: number;
}

const DEFAULT_CONTEXT_SIZE = 128;

export function addCorpusOptions(command: Command, defaultTokens: number): Command {
  return command
    .addOption(new Option("--context-size <n>", "tokens per context (default: the SAE's)").argParser(positiveInteger))
    .option("--tokens <n>", "stop after this many tokens of the corpus", positiveInteger, defaultTokens);
}

/** The corpus cut as it was for the SAE's training, where its metadata tell. */
export function contextsForSae(corpus: Corpus, model: HookedTransformer, sae: Sae, flags: CorpusFlags): Contexts {
  const contextSize =
    flags.contextSize ?? sae.metadata.contextSize ?? Math.min(DEFAULT_CONTEXT_SIZE, model.config.contextSize);
  const prependBos = sae.metadata.prependBos ?? model.config.bosTokenId !== undefined;
  return limitTokens(contexts(corpus, model.tokenizer, { contextSize, prependBos }), flags.tokens);
}
