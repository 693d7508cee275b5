/**
 * Five ways of asking why a model predicts what it predicts, on one prompt, each with what it costs: activation patching,
 * a linear probe, LIME, SHAP, and the latents of an SAE. They ask different questions; side by side one sees which.
 */

import type { PairingOptions } from "../analysis/pairing.js";
import { hooksForSae } from "../analysis/saeHook.js";
import { textFeatures } from "../analysis/textFeatures.js";
import { latentGame } from "../attribution/latentGame.js";
import { lime } from "../attribution/lime.js";
import type { NextTokenMeasure } from "../attribution/nextToken.js";
import { exactShapley, permutationShapley } from "../attribution/shapley.js";
import { tokenGame } from "../attribution/tokenGame.js";
import { checkOptions, type OptionNames } from "../checkArguments.js";
import { throwIfAborted } from "../errors.js";
import type { HookedTransformer } from "../models/hookedTransformer.js";
import { activationPatching } from "../patching/activationPatching.js";
import { DenseFeatures } from "../probing/featureMatrix.js";
import { binaryLabels, type LabelledText } from "../probing/labelledTexts.js";
import { probeScores } from "../probing/linearProbe.js";
import { pooledFeatures } from "../probing/pooledFeatures.js";
import { probe } from "../probing/probe.js";
import type { Sae } from "../sae/sae.js";

export interface ComparisonOptions extends PairingOptions {
  readonly model: HookedTransformer;
  readonly prompt: string;
  /** What patching, LIME and SHAP explain. */
  readonly measure: NextTokenMeasure;
  /** Where patching and the probe look; by default where the SAE reads, else behind the middle block. */
  readonly hook?: string | undefined;
  /** Without it, latents are left out. */
  readonly sae?: Sae | undefined;
  /** A prompt of as many tokens after which the model predicts something else; without it, patching is left out. */
  readonly corrupted?: string | undefined;
  /** Texts with two labels, or several and the `positive` one; without them, the probe is left out. */
  readonly labelled?: { readonly texts: readonly LabelledText[]; readonly positive?: string | undefined } | undefined;
  /** Random removals that LIME fits to. By default 500. */
  readonly limeSamples?: number | undefined;
  readonly seed?: number | undefined;
  readonly signal?: AbortSignal | undefined;
  /** Called with the name of each method before it begins. */
  readonly onProgress?: ((method: string) => void) | undefined;
}

/** What a method says of the prompt, or why it was left out, and what it cost. */
export interface MethodOutcome {
  readonly method: "patching" | "probing" | "LIME" | "SHAP" | "SAE features";
  /** What it asks, and what its numbers mean. */
  readonly question: string;
  /** Why it was left out; then it has no numbers and no cost. */
  readonly leftOut?: string;
  /** A number for each token of the prompt; undefined for special tokens. Of SAE features there are none. */
  readonly values?: readonly (number | undefined)[];
  /** The numbers as a whole. */
  readonly facts: readonly (readonly [name: string, value: string])[];
  /** Sequences that went through the model. */
  readonly forwardPasses: number;
  readonly seconds: number;
}

export interface Comparison {
  readonly hook: string;
  readonly tokens: readonly string[];
  readonly methods: readonly MethodOutcome[];
  /** The strongest latents on each token of the prompt; undefined without an SAE. */
  readonly latents: readonly (readonly { readonly latent: number; readonly value: number }[])[] | undefined;
  /** Of the 24 strongest latents, by how much the measure falls when one is switched off, the largest; undefined without an SAE. */
  readonly latentEffects: readonly { readonly latent: number; readonly effect: number }[] | undefined;
}

const MOST_EXACT_PLAYERS = 10;
const LATENTS_PER_TOKEN = 3;
const ABLATED_LATENTS = 24;
const SHOWN_EFFECTS = 8;

const optionNames: OptionNames<ComparisonOptions> = {
  model: true,
  prompt: true,
  measure: true,
  hook: true,
  sae: true,
  corrupted: true,
  labelled: true,
  limeSamples: true,
  seed: true,
  signal: "signal",
  onProgress: "function",
  allowMismatch: "boolean",
};

/**
 * @throws MonosemError as the methods themselves: what a method needs and does not get leaves it out, what it gets and
 *   cannot use is an error
 */
export async function compareMethods(options: ComparisonOptions): Promise<Comparison> {
  checkOptions("compareMethods", options, optionNames);
  const { model, sae, allowMismatch, signal } = options;
  const tokens = model.promptTokens(options.prompt)[0]!;
  const saeHooks = sae === undefined ? undefined : hooksForSae(model, sae, undefined, { allowMismatch });
  const hook =
    options.hook ?? saeHooks?.input.at(-1) ?? `blocks.${Math.floor(model.config.nLayers / 2)}.hook_resid_post`;
  // What cannot be used is refused before anything is run.
  model.hookWidth(hook);
  if (options.labelled !== undefined) binaryLabels(options.labelled.texts, options.labelled.positive);
  const prompt: PromptAt = { tokens, hook };
  const methods: MethodOutcome[] = [];
  for (const [method, question, run] of [
    ["patching", QUESTIONS.patching, patching],
    ["probing", QUESTIONS.probing, probing],
    ["LIME", QUESTIONS.lime, limeOfTokens],
    ["SHAP", QUESTIONS.shap, shapOfTokens],
  ] as const) {
    methods.push(await measuredCost(options, { method, question }, () => run(prompt, options)));
  }
  let features: LatentsOfPrompt | undefined;
  methods.push(
    await measuredCost(options, { method: "SAE features", question: QUESTIONS.features }, async () => {
      if (sae === undefined) return { leftOut: "no SAE was given" };
      features = await latentsOfPrompt(prompt, sae, options);
      return { facts: features.facts };
    }),
  );
  throwIfAborted(signal, "the comparison");
  return {
    hook,
    tokens: tokens.map((token) => model.tokenizer.tokenText(token)),
    methods,
    latents: features?.latents,
    latentEffects: features?.effects,
  };
}

const QUESTIONS = {
  patching:
    "Where does the model carry what tells the two prompts apart? Share of the difference that the clean activations of a position restore.",
  probing:
    "Can the label be read off the activations? Log-odds that the probe gives each token; their mean is that of the text.",
  lime: "Which tokens does a simple model of the score need? Weights of a linear model of the score when tokens are left out.",
  shap: "How is the score shared out among the tokens? Shapley values of leaving them out; they add up to the score less that without any token.",
  features:
    "What does the SAE find in each token, and what does the score owe to it? Activations; by how much the score falls when a latent is switched off.",
} as const;

interface PromptAt {
  readonly tokens: readonly number[];
  readonly hook: string;
}

type Found = Pick<MethodOutcome, "values" | "facts"> | { readonly leftOut: string };

async function measuredCost(
  { model, signal, onProgress }: ComparisonOptions,
  named: Pick<MethodOutcome, "method" | "question">,
  run: () => Promise<Found>,
): Promise<MethodOutcome> {
  throwIfAborted(signal, "the comparison");
  onProgress?.(named.method);
  const before = model.forwardPasses.sequences;
  const started = performance.now();
  const found = await run();
  const forwardPasses = model.forwardPasses.sequences - before;
  const seconds = (performance.now() - started) / 1000;
  if ("leftOut" in found) return { ...named, ...found, facts: [], forwardPasses: 0, seconds: 0 };
  return { ...named, ...found, forwardPasses, seconds };
}

async function patching(
  { tokens, hook }: PromptAt,
  { model, corrupted, measure, signal }: ComparisonOptions,
): Promise<Found> {
  if (corrupted === undefined) return { leftOut: "no corrupted prompt was given" };
  const pair = { clean: tokens, corrupted: model.promptTokens(corrupted)[0]! };
  if (pair.corrupted.length !== tokens.length) {
    return {
      leftOut: `the corrupted prompt has ${pair.corrupted.length} tokens, the prompt ${tokens.length}: choose prompts of one length`,
    };
  }
  const found = await activationPatching(
    tokens.map((_, position) => ({ hook, positions: [position] })),
    { model, pair, metric: measure, signal },
  );
  return {
    values: withoutSpecial(model, tokens, (position) => found.effects[position]!),
    facts: [
      ["corrupted prompt", corrupted],
      ["score", `${found.clean.toFixed(4)} clean, ${found.corrupted.toFixed(4)} corrupted`],
    ],
  };
}

async function probing(
  { tokens, hook }: PromptAt,
  { model, labelled, seed = 0, signal }: ComparisonOptions,
): Promise<Found> {
  if (labelled === undefined) return { leftOut: "no labelled texts were given" };
  const { labels, positive } = binaryLabels(labelled.texts, labelled.positive);
  const texts = labelled.texts.map(({ text }) => text);
  const { features } = await pooledFeatures(texts, { model, hook, signal });
  const { probe: fitted, test, control } = await probe(features, labels, { seed, signal });
  using x = await model.activations([tokens], hook);
  const rows = new DenseFeatures(Float64Array.from(await x.readFloat32()), tokens.length, model.hookWidth(hook));
  const scores = probeScores(fitted, rows);
  return {
    values: withoutSpecial(model, tokens, (position) => scores[position]!),
    facts: [
      ["label", `${JSON.stringify(positive)}, ${texts.length} texts`],
      ["accuracy", `${(100 * test.accuracy).toFixed(1)}% on ${test.rows} held out, AUROC ${test.auroc.toFixed(3)}`],
      ["selectivity", control === undefined ? "-" : `${(100 * control.selectivity).toFixed(1)} points`],
    ],
  };
}

async function limeOfTokens(
  { tokens }: PromptAt,
  { model, measure, limeSamples = 500, seed = 0, signal }: ComparisonOptions,
): Promise<Found> {
  const { game, positions } = tokenGame(model, tokens, measure);
  const found = await lime(game, positions.length, { samples: limeSamples, features: positions.length, seed, signal });
  return {
    values: byPosition(tokens, positions, found.weights),
    facts: [
      ["fit", `R² ${found.rSquared.toFixed(4)}`],
      ["score", `${found.full.toFixed(4)}; the linear model says ${found.localPrediction.toFixed(4)}`],
    ],
  };
}

async function shapOfTokens(
  { tokens }: PromptAt,
  { model, measure, seed = 0, signal }: ComparisonOptions,
): Promise<Found> {
  const { game, positions } = tokenGame(model, tokens, measure);
  const exact = positions.length <= MOST_EXACT_PLAYERS;
  const found = exact
    ? await exactShapley(game, positions.length, { signal })
    : await permutationShapley(game, positions.length, { seed, signal });
  return {
    values: byPosition(tokens, positions, found.values),
    facts: [
      ["estimate", exact ? "exact" : "10 orders and their reverses"],
      ["score", `${found.full.toFixed(4)} with all, ${found.empty.toFixed(4)} with none`],
    ],
  };
}

interface LatentsOfPrompt {
  readonly latents: NonNullable<Comparison["latents"]>;
  readonly effects: NonNullable<Comparison["latentEffects"]>;
  readonly facts: MethodOutcome["facts"];
}

async function latentsOfPrompt(
  { tokens }: PromptAt,
  sae: Sae,
  { model, prompt, measure, allowMismatch, signal }: ComparisonOptions,
): Promise<LatentsOfPrompt> {
  const found = await textFeatures({ sae, model, text: prompt, top: LATENTS_PER_TOKEN, allowMismatch });
  let next = 0;
  const special = model.tokenizer.specialTokenIds;
  const latents = tokens.map((token) => (special.has(token) ? [] : found[next++]!.latents));
  const { game, latents: ablated } = await latentGame(model, sae, tokens, measure, {
    strongest: ABLATED_LATENTS,
    allowMismatch,
  });
  // all of them, then each alone switched off
  const players = ablated.length;
  const present = new Uint8Array((players + 1) * players).fill(1);
  for (let player = 0; player < players; player++) present[(player + 1) * players + player] = 0;
  const scores = await game({ rows: players + 1, players, present }, signal);
  const effects = ablated
    .map((latent, player) => ({ latent, effect: scores[0]! - scores[player + 1]! }))
    .sort((a, b) => Math.abs(b.effect) - Math.abs(a.effect) || a.latent - b.latent)
    .slice(0, SHOWN_EFFECTS);
  const { input } = hooksForSae(model, sae, undefined, { allowMismatch });
  return { latents, effects, facts: [["SAE", `${sae.config.dSae} latents at ${input.join(" and ")}`]] };
}

function withoutSpecial(
  model: HookedTransformer,
  tokens: readonly number[],
  value: (position: number) => number,
): readonly (number | undefined)[] {
  return tokens.map((token, position) => (model.tokenizer.specialTokenIds.has(token) ? undefined : value(position)));
}

function byPosition(
  tokens: readonly number[],
  positions: readonly number[],
  values: ArrayLike<number>,
): readonly (number | undefined)[] {
  const found = new Map(positions.map((position, player) => [position, values[player]!]));
  return tokens.map((_, position) => found.get(position));
}
