import { checkContexts, type PairingOptions } from "../../analysis/pairing.js";
import { type HookChoice, hooksForSae } from "../../analysis/saeHook.js";
import { MonosemError } from "../../errors.js";
import type { HookedTransformer } from "../../models/hookedTransformer.js";
import type { Sae } from "../../sae/sae.js";
import { hashOf } from "../hash.js";
import type { LatentRecord } from "../latentRecord.js";

/** Examples tried per latent. */
const EXAMPLES = 6;
/** Substitutes tried of each sort. */
const SUBSTITUTES = 5;

/**
 * What is left of a latent's activation at the peaks of its strongest examples when words are replaced: 1 all, 0 nothing.
 * High for likely words and low for random ones: it follows what the place means. Low for both, high in other contexts:
 * it follows the word.
 */
export interface MeaningFigures {
  /** With the word at the peak replaced by those that the model itself holds likely there. */
  readonly likelyWord: number;
  /** With the word replaced by random tokens. */
  readonly randomWord: number;
  /** With the word kept, and all before it replaced by random tokens. */
  readonly otherContext: number;
  /** How many examples were tried: those in which it is active when the model reads the example alone. */
  readonly examples: number;
}

export const meaningDefinition: string =
  "meaning: of the activation at the peak of its strongest examples, what is left with the word replaced by others that the model holds likely there, by random ones, and with the word kept in a random context";

export interface MeaningOptions extends PairingOptions {
  readonly sae: Sae;
  readonly model: HookedTransformer;
  readonly hook?: HookChoice;
  /** With examples: of a store or of a pass. */
  readonly record: LatentRecord;
  /** Chooses the random tokens. Default 0. */
  readonly seed?: number;
}

/**
 * Undefined where there is nothing to try: no example with text before the peak, or none in which the latent is active when
 * the model reads it alone.
 *
 * @throws MonosemError ERR_CONFIG if model, hook and SAE do not belong together
 */
export async function meaningFigures(options: MeaningOptions): Promise<MeaningFigures | undefined> {
  const { model, sae, record, seed = 0 } = options;
  const { input } = hooksForSae(model, sae, options.hook, options);
  const { specialTokenIds } = model.tokenizer;
  const bos = (sae.metadata.prependBos ?? true) ? model.config.bosTokenId : undefined;
  const left = { likelyWord: 0, randomWord: 0, otherContext: 0 };
  let examples = 0;
  for (const [index, { tokens, peak }] of record.examples.slice(0, EXAMPLES).entries()) {
    const begins = tokens[0] === bos;
    const text = bos === undefined || begins ? Int32Array.from(tokens) : Int32Array.of(bos, ...tokens);
    const place = peak + (text.length - tokens.length);
    const firstWord = bos === undefined ? 0 : 1;
    if (place <= firstWord) continue;
    let draws = 0;
    const randomToken = (): number => {
      for (;;) {
        const token = hashOf(seed, record.latent, index, draws++) % model.tokenizer.vocabularySize;
        if (!specialTokenIds.has(token) && token !== text[place]) return token;
      }
    };
    const withWord = (word: number): Int32Array => text.map((token, position) => (position === place ? word : token));
    const likely = (await likelyTokens(model, text.subarray(0, place))).filter(
      (token) => token !== text[place] && !specialTokenIds.has(token),
    );
    const times = Array.from({ length: SUBSTITUTES });
    const sorts = {
      likelyWord: likely.slice(0, SUBSTITUTES).map(withWord),
      randomWord: times.map(() => withWord(randomToken())),
      otherContext: times.map(() =>
        text.map((token, position) => (position >= firstWord && position < place ? randomToken() : token)),
      ),
    };
    const variants = [text, ...Object.values(sorts).flat()];
    if (!options.allowMismatch) checkContexts(model, sae, variants);
    const [before, ...after] = await activationsAt({ model, sae, input, variants, place, latent: record.latent });
    if (!(Math.abs(before!) > 0)) continue;
    examples += 1;
    let first = 0;
    for (const [sort, { length }] of Object.entries(sorts)) {
      const kept = after.slice(first, first + length).map((value) => Math.max(0, value / before!));
      left[sort as keyof typeof left] += kept.reduce((sum, value) => sum + value, 0) / length;
      first += length;
    }
  }
  if (examples === 0) return undefined;
  return {
    likelyWord: left.likelyWord / examples,
    randomWord: left.randomWord / examples,
    otherContext: left.otherContext / examples,
    examples,
  };
}

/** The most likely next tokens, the likeliest first; a few more than are needed, as some will be left out. */
async function likelyTokens(model: HookedTransformer, before: Int32Array): Promise<number[]> {
  using logits = await model.forward([before], { lastPositionOnly: true });
  const values = await logits.readFloat32();
  const order = Uint32Array.from(values.keys()).sort((a, b) => values[b]! - values[a]! || a - b);
  return Array.from(order.subarray(0, SUBSTITUTES + 8)).filter((token) => token < model.tokenizer.vocabularySize);
}

/** Of a latent, at one position of texts of one length. */
async function activationsAt({
  model,
  sae,
  input,
  variants,
  place,
  latent,
}: {
  readonly model: HookedTransformer;
  readonly sae: Sae;
  readonly input: readonly string[];
  readonly variants: readonly Int32Array[];
  readonly place: number;
  readonly latent: number;
}): Promise<number[]> {
  const length = variants[0]!.length;
  using all = await model.activations(variants, input);
  using rows = sae.device.tensor(
    Int32Array.from(variants.keys(), (variant) => variant * length + place),
    [variants.length],
  );
  using x = sae.device.kernels.gatherRows(all, rows);
  using codes = sae.encode(x);
  const { rowOffsets, features, values } = await codes.read();
  return variants.map((_, row) => {
    const entry = features.subarray(rowOffsets[row], rowOffsets[row + 1]).indexOf(latent);
    const value = entry === -1 ? 0 : values[rowOffsets[row]! + entry]!;
    if (!Number.isFinite(value)) throw new MonosemError("ERR_NON_FINITE", `latent ${latent} has activation ${value}`);
    return value;
  });
}
