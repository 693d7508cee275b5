/**
 * What a change of latents does to what a model writes: the same prompt and seed, with and without it, at several
 * strengths, with numbers for the effect and for what it costs in coherence.
 */

import { requirePair } from "../analysis/checkPair.js";
import type { PairingOptions } from "../analysis/pairing.js";
import { hooksForSae } from "../analysis/saeHook.js";
import { measured, rowsOfLast, sequencesAtOnce } from "../attribution/nextToken.js";
import { checkOptions, type OptionNames, refuseArgument } from "../checkArguments.js";
import { MonosemError, throwIfAborted } from "../errors.js";
import type { HookedTransformer, NamedHook } from "../models/hookedTransformer.js";
import { paddedBehind } from "../models/tokens.js";
import type { Sae } from "../sae/sae.js";
import { type InterventionOptions, interventions } from "./interventions.js";
import { changedLatents, type LatentChange } from "./latentChange.js";

/** Changes that are tried together; none is the model as it is. */
export interface SteeringTrial {
  readonly label: string;
  readonly changes: readonly LatentChange[];
}

/** Where a generation is steered; BOS before the prompt never is, as SAEs are seldom trained on it. */
export type SteeredPart = "everywhere" | "prompt" | "generated";

export interface SteeringOptions extends PairingOptions, Pick<InterventionOptions, "hook" | "errorTerm"> {
  readonly model: HookedTransformer;
  readonly sae: Sae;
  readonly prompt: string;
  readonly trials: readonly SteeringTrial[];
  /** By default everywhere. */
  readonly part?: SteeredPart | undefined;
  /** A token whose probability after the prompt is told. */
  readonly target?: number | undefined;
  /** Texts of each trial; the numbers are over all of them. By default 1. */
  readonly samples?: number | undefined;
  readonly maxNewTokens: number;
  readonly temperature?: number | undefined;
  readonly topK?: number | undefined;
  readonly topP?: number | undefined;
  readonly seed?: number | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((progress: { readonly trials: number }) => void) | undefined;
}

export interface SteeredTexts extends SteeringTrial {
  /** What was written after the prompt, [samples]. */
  readonly texts: readonly string[];
  /** Tokens written, EOS included. */
  readonly newTokens: number;
  /** Coherence: of what was written, under the model as it is. exp of the mean negative log-likelihood of a token. */
  readonly perplexity: number;
  /** Effect: the mean activation of each latent that any trial changes, where the model as it is reads what was written. */
  readonly activations: readonly { readonly latent: number; readonly mean: number }[];
  /** Effect: of the target token after the prompt, with the changes. */
  readonly targetProbability: number | undefined;
}

const optionNames: OptionNames<SteeringOptions> = {
  model: true,
  sae: true,
  prompt: true,
  trials: true,
  part: { everywhere: true, prompt: true, generated: true },
  target: true,
  samples: true,
  maxNewTokens: true,
  temperature: true,
  topK: true,
  topP: true,
  seed: true,
  signal: "signal",
  onProgress: "function",
  allowMismatch: "boolean",
  hook: true,
  errorTerm: "boolean",
};

/**
 * @returns a result for each trial, in their order
 * @throws MonosemError as `interventions` and `HookedTransformer.generate`; ERR_INVALID_ARGUMENT for no trials, an
 *   impossible number of samples, and a prompt that leaves no room in the model's context
 */
export async function steer(options: SteeringOptions): Promise<readonly SteeredTexts[]> {
  checkOptions("steer", options, optionNames);
  const { model, trials, samples = 1, signal } = options;
  requirePair(model, options.sae);
  if (!Array.isArray(trials)) refuseArgument("steer: trials", "a list of trials", trials);
  if (trials.length === 0) throw new MonosemError("ERR_INVALID_ARGUMENT", "there is nothing to try: no trials");
  if (!Number.isSafeInteger(samples) || samples < 1) {
    throw new MonosemError("ERR_INVALID_ARGUMENT", `samples must be a positive integer, found ${samples}`);
  }
  const prompt = model.promptTokens(options.prompt)[0]!;
  if (prompt.length >= model.config.contextSize) {
    throw new MonosemError(
      "ERR_INVALID_ARGUMENT",
      `the prompt has ${prompt.length} tokens, the model reads ${model.config.contextSize}: there is no room to write`,
    );
  }
  // What cannot be changed is refused before anything is written.
  for (const trial of trials) hooksOf(trial, prompt, options);
  const latents = changedLatents(trials.flatMap(({ changes }) => changes));
  const results: SteeredTexts[] = [];
  for (const trial of trials) {
    throwIfAborted(signal, "the steering");
    const hooks = (): readonly NamedHook[] => hooksOf(trial, prompt, options);
    const { sequences, texts } = await written(
      Array.from({ length: samples }, () => prompt),
      hooks(),
      options,
    );
    results.push({
      ...trial,
      texts,
      ...(await readBack(sequences, prompt.length, latents, options)),
      targetProbability: await targetProbability(prompt, hooks(), options),
    });
    options.onProgress?.({ trials: results.length });
  }
  return results;
}

async function written(
  prompts: readonly (readonly number[])[],
  hooks: readonly NamedHook[],
  { model, maxNewTokens, temperature, topK, topP, seed, signal }: SteeringOptions,
): Promise<{ readonly sequences: readonly (readonly number[])[]; readonly texts: readonly string[] }> {
  const sequences = prompts.map((ids) => [...ids]);
  const texts = prompts.map(() => "");
  const steps = model.stream(prompts, {
    maxNewTokens,
    ...(temperature === undefined ? {} : { temperature }),
    ...(topK === undefined ? {} : { topK }),
    ...(topP === undefined ? {} : { topP }),
    ...(seed === undefined ? {} : { seed }),
    ...(signal === undefined ? {} : { signal }),
    hooks,
  });
  for await (const { tokens, text } of steps) {
    for (const [i, token] of tokens.entries()) {
      if (token !== undefined) sequences[i]!.push(token);
      texts[i] += text[i]!;
    }
  }
  return { sequences, texts };
}

function hooksOf(
  { changes }: SteeringTrial,
  prompt: readonly number[],
  { model, sae, hook, errorTerm, allowMismatch, part = "everywhere" }: SteeringOptions,
): readonly NamedHook[] {
  if (changes.length === 0) return [];
  const first = prompt[0] === model.config.bosTokenId ? 1 : 0;
  const parts: Readonly<Record<SteeredPart, (position: number) => boolean>> = {
    everywhere: (position) => position >= first,
    prompt: (position) => position >= first && position < prompt.length,
    generated: (position) => position >= prompt.length,
  };
  return interventions(model, sae, changes, { hook, errorTerm, allowMismatch, positions: parts[part] });
}

/** What the model as it is says of sequences: how likely it finds what follows their prompt, and what latents do there. */
async function readBack(
  sequences: readonly (readonly number[])[],
  promptLength: number,
  latents: readonly number[],
  { model, sae, hook, allowMismatch, signal }: SteeringOptions,
): Promise<Pick<SteeredTexts, "newTokens" | "perplexity" | "activations">> {
  const { input } = hooksForSae(model, sae, hook, { allowMismatch });
  const special = model.tokenizer.specialTokenIds;
  const length = Math.max(...sequences.map((ids) => ids.length));
  const sums = new Map(latents.map((latent) => [latent, 0]));
  let [newTokens, readTokens, loss] = [0, 0, 0];
  for (let first = 0; first < sequences.length; first += sequencesAtOnce(length)) {
    const batch = sequences.slice(first, first + sequencesAtOnce(length));
    const padded = paddedBehind(batch);
    const positions = padded[0]!.length;
    using losses = await model.loss(padded, signal === undefined ? {} : { signal });
    const lossOf = await losses.readFloat32();
    using x = await model.activations(padded, input);
    using codes = sae.encode(x);
    const { rowOffsets, features, values } = await codes.read();
    for (const [row, ids] of batch.entries()) {
      for (let at = promptLength; at < ids.length; at++) {
        newTokens += 1;
        loss += lossOf[row * positions + at - 1]!;
        if (special.has(ids[at]!)) continue;
        readTokens += 1;
        const place = row * positions + at;
        for (let entry = rowOffsets[place]!; entry < rowOffsets[place + 1]!; entry++) {
          const sum = sums.get(features[entry]!);
          if (sum !== undefined) sums.set(features[entry]!, sum + values[entry]!);
        }
      }
    }
  }
  return {
    newTokens,
    perplexity: Math.exp(loss / newTokens),
    activations: latents.map((latent) => ({ latent, mean: sums.get(latent)! / Math.max(1, readTokens) })),
  };
}

async function targetProbability(
  prompt: readonly number[],
  hooks: readonly NamedHook[],
  { model, target, signal }: SteeringOptions,
): Promise<number | undefined> {
  if (target === undefined) return undefined;
  const lastPositionOnly = true;
  using logits = await model.forward([prompt], {
    hooks,
    lastPositionOnly,
    ...(signal === undefined ? {} : { signal }),
  });
  using last = rowsOfLast(logits);
  const [probability] = await measured(last, { kind: "probability", token: target });
  return probability;
}
