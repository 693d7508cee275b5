import type { HookChoice } from "../analysis/saeHook.js";
import { checkOptions, type OptionNames } from "../checkArguments.js";
import { MonosemError } from "../errors.js";
import type { HookedTransformer } from "../models/hookedTransformer.js";
import { paddedBehind } from "../models/tokens.js";
import type { Sae } from "../sae/sae.js";
import { type AbsorptionOfLetters, absorptionOfLetters, type LetterOptions } from "./absorptionOfLetters.js";
import { type FirstLetterTask, firstLetterTask, letterAnswer } from "./firstLetterTask.js";
import { promptVectors } from "./promptVectors.js";

export interface AbsorptionOptions extends LetterOptions {
  readonly sae: Sae;
  readonly model: HookedTransformer;
  /** The hook point that the SAE reads. Default: the one in the SAE's metadata. */
  readonly hook?: HookChoice | undefined;
  readonly allowMismatch?: boolean | undefined;
  /** Most tokens of a prompt. */
  readonly contextSize: number;
  readonly prependBos: boolean;
  /** Most words of the vocabulary; a random choice if it has more. Default 10,000. */
  readonly words?: number;
}

export interface AbsorptionEvaluation extends AbsorptionOfLetters {
  /** Share of test words after whose prompts the model's most probable token is the right answer. */
  readonly spellingAccuracy: number;
  readonly trainWords: number;
  readonly testWords: number;
  /** Words of the vocabulary that a prompt does not hold as one token. */
  readonly leftOut: number;
  /** Examples in each prompt. */
  readonly examples: number;
}

const optionNames: OptionNames<AbsorptionOptions> = {
  sae: true,
  model: true,
  hook: true,
  allowMismatch: "boolean",
  contextSize: true,
  prependBos: "boolean",
  words: true,
  leastProbeF1: true,
  leastLetters: true,
  mostLatents: true,
  f1Jump: true,
  l1Penalty: true,
  seed: true,
  signal: "signal",
  onProgress: "function",
};

/**
 * Absorption of first letters, as SAEBench has it: on words of the vocabulary in prompts that ask for their first letter,
 * a probe says which letter the model knows a word to begin with; a few latents stand for each letter (k-sparse probes);
 * and on words where these are silent or weak, other latents may carry the letter in their place.
 *
 * It needs a model that knows how its words are spelled, which small ones do not: `letters` is undefined where probes find
 * fewer than `leastLetters`, and `probeF1` and `spellingAccuracy` say why.
 *
 * @throws MonosemError ERR_UNSUPPORTED for a transcoder, whose latents write elsewhere than the probe reads; as
 *   `firstLetterTask`, `promptVectors` and the probes
 */
export async function evaluateAbsorption(options: AbsorptionOptions): Promise<AbsorptionEvaluation> {
  checkOptions("evaluateAbsorption", options, optionNames);
  const { sae, model, contextSize, prependBos, words = 10_000, seed = 42, signal, onProgress } = options;
  if (sae.config.transcoder) {
    throw new MonosemError(
      "ERR_UNSUPPORTED",
      "absorption compares decoder rows with a probe of what the SAE reads: a transcoder's rows are of another hook point",
    );
  }
  const task = firstLetterTask(model, { contextSize, prependBos, words, seed });
  const prompts = [...task.train, ...task.test];
  const vectors = await promptVectors(prompts, {
    model,
    sae,
    hook: options.hook,
    allowMismatch: options.allowMismatch,
    signal,
    onProgress: ({ prompts: done }) => onProgress?.({ stage: "prompts", done, of: prompts.length }),
  });
  const spelling = await spellingAccuracy(model, task, signal);
  const measured = await absorptionOfLetters(
    {
      vectors,
      trainLetters: task.train.map(({ letter }) => letter),
      testLetters: task.test.map(({ letter }) => letter),
      decoder: await sae.parameters.decoder.readFloat32(),
    },
    options,
  );
  return {
    ...measured,
    spellingAccuracy: spelling,
    trainWords: task.train.length,
    testWords: task.test.length,
    leftOut: task.leftOut,
    examples: task.examples,
  };
}

const PROMPTS_PER_BATCH = 16;

/** On how many of the test words the model's most probable next token is the answer's first. */
async function spellingAccuracy(
  model: HookedTransformer,
  { test }: FirstLetterTask,
  signal: AbortSignal | undefined,
): Promise<number> {
  const { kernels } = model.device;
  const vocabulary = model.config.vocabularySize;
  let right = 0;
  for (let first = 0; first < test.length; first += PROMPTS_PER_BATCH) {
    const batch = test.slice(first, first + PROMPTS_PER_BATCH);
    const padded = paddedBehind(batch.map(({ ids }) => ids));
    const positions = padded[0]!.length;
    using logits = await model.forward(padded, signal === undefined ? {} : { signal });
    using rows = logits.reshape([batch.length * positions, vocabulary]);
    using places = model.device.tensor(
      Int32Array.from(batch, ({ ids }, index) => index * positions + ids.length - 1),
      [batch.length],
    );
    using last = kernels.gatherRows(rows, places);
    const values = await last.readFloat32();
    for (const [index, { word }] of batch.entries()) {
      const row = values.subarray(index * vocabulary, (index + 1) * vocabulary);
      const best = row.reduce((most, value, token) => (value > row[most]! ? token : most), 0);
      if (best === model.tokenizer.encode(letterAnswer(word))[0]) right += 1;
    }
  }
  return right / test.length;
}
