import type { Tensor } from "../engine/tensor.js";
import { throwIfAborted } from "../errors.js";
import { keyedNumber, keyedShuffle } from "../interpretation/keyedNumber.js";
import { paddedBehind } from "../models/tokens.js";
import { type AuditSection, counted, figureText, median, named } from "./auditReport.js";
import { type Audited, type EncodedTokens, latentsOfRow, rowCount } from "./encodedTokens.js";

/** Latents that are tried, and texts in which each is. */
const LATENTS = 32;
const TEXTS = 6;
/** A latent that fires on fewer tokens is not tried. */
const FEWEST_FIRINGS = 5;
const CASES = 5;

/** Means over the tokens of a text from the first change on. */
interface Effect {
  /** KL(untouched || changed) of the next-token distributions, in nats. */
  readonly divergence: number;
  /** Change of the loss, in nats. */
  readonly loss: number;
}

interface LatentEffect {
  readonly latent: number;
  /** On which it was taken out. */
  readonly tokens: number;
  readonly effect: Effect;
  /** Of vectors of the same norm on the same tokens: along another active latent, and in a random direction. */
  readonly otherLatent: Effect;
  readonly randomDirection: Effect;
}

/**
 * Takes latents out of the activations where they fire, and sees whether the model's predictions change more than with
 * other active latents taken out by as much.
 */
export async function auditEffects(tokens: EncodedTokens, audited: Audited, seed: number): Promise<AuditSection> {
  const section = {
    topic: "effects" as const,
    title: "Effects on the model",
    definition: `Of ${LATENTS} latents that fire, chosen at random, each is taken out where it fires, in up to ${TEXTS} texts: its activation times its decoder row is subtracted from the activation, everything else stays as it is. The effect is the divergence KL(untouched || changed) of the model's predictions of the next token, and the change of its loss, averaged over the tokens of these texts from the first change on. Two controls subtract a vector of the same norm on the same tokens: in a random direction, and along the decoder row of another latent that is active there, drawn for each token. The model uses a latent's direction if it has more effect than random ones; against other latents, typical ones come out even.`,
    cases: [],
  };
  const unsuitable = unsuitableFor(audited);
  if (unsuitable !== undefined) return { ...section, figures: [], notMeasured: unsuitable, data: {} };
  const effects: LatentEffect[] = [];
  const directions = await directionsOf(audited, seed);
  for (const [latent, rows] of chosenLatents(tokens, seed)) {
    throwIfAborted(audited.signal, "the audit");
    const effect = await effectOf(latent, rows, { tokens, directions, seed }, audited);
    if (effect.tokens > 0) effects.push(effect);
  }
  const sample = { count: effects.length, of: named(effects.length, "latent", "latents") };
  const middle = (of: (effect: LatentEffect) => number): number | null =>
    median(effects.map(of).filter(Number.isFinite));
  const figures = CONTROLS.flatMap(([control, name]) => {
    const stronger = effects.filter((one) => one.effect.divergence > one[control].divergence).length;
    return [
      {
        name: `latents with more effect than ${name}`,
        value: effects.length === 0 ? null : stronger / effects.length,
        unit: "share" as const,
        baseline: { name: evenChance(effects.length), value: 0.5 },
        sample,
      },
      {
        name: `divergence in nats, against ${name}, median`,
        value: middle(({ effect }) => effect.divergence),
        unit: "number" as const,
        baseline: { name, value: middle((one) => one[control].divergence) },
        sample,
      },
      {
        name: `change of the loss in nats, against ${name}, median`,
        value: middle(({ effect }) => effect.loss),
        unit: "number" as const,
        baseline: { name, value: middle((one) => one[control].loss) },
        sample,
      },
    ];
  });
  const ratio = ({ effect, randomDirection }: LatentEffect): number => effect.divergence / randomDirection.divergence;
  const least = effects.filter((one) => Number.isFinite(ratio(one))).sort((x, y) => ratio(x) - ratio(y));
  return {
    ...section,
    figures,
    cases: least
      .slice(0, CASES)
      .map(
        (one) =>
          `latent ${one.latent} has ${figureText(ratio(one), "number")} times the effect of a random direction (${figureText(one.effect.divergence, "number")} nats, on ${counted(one.tokens, "token")})`,
      ),
    ...(effects.length === 0 ? { notMeasured: `no latent fires on ${FEWEST_FIRINGS} tokens` } : {}),
    data: {
      latents: effects.map(({ effect, otherLatent, randomDirection, ...rest }) => ({
        ...rest,
        effect: { ...effect },
        otherLatent: { ...otherLatent },
        randomDirection: { ...randomDirection },
      })),
    },
  };
}

/** What a share of `count` even chances is, and within which 95 of 100 such shares lie. */
function evenChance(count: number): string {
  const spread = 0.98 / Math.sqrt(count); // 1.96 standard deviations
  const [low, high] = [0.5 - spread, 0.5 + spread].map((share) => Math.round(100 * Math.min(1, Math.max(0, share))));
  return count === 0 ? "no difference" : `no difference; by chance ${low} to ${high}%`;
}

const CONTROLS = [
  ["randomDirection", "a random direction"],
  ["otherLatent", "another latent"],
] as const;

function unsuitableFor({ sae, hooks }: Audited): string | undefined {
  if (hooks.output.length > 1) return "a crosscoder writes at several hook points";
  if (sae.config.normalizeActivations !== "none") {
    return "the SAE scales its reconstructions token by token, so that a decoder row has no fixed size";
  }
  return undefined;
}

/** Latents, each with the rows in the texts where it is tried. */
function chosenLatents(tokens: EncodedTokens, seed: number): (readonly [number, readonly number[]])[] {
  const rowsOf = new Map<number, number[]>();
  for (let row = 0; row < rowCount(tokens); row++) {
    for (const latent of latentsOfRow(tokens, row).keys()) {
      const rows = rowsOf.get(latent);
      if (rows === undefined) rowsOf.set(latent, [row]);
      else rows.push(row);
    }
  }
  const often = [...rowsOf].filter(([, rows]) => rows.length >= FEWEST_FIRINGS).sort(([a], [b]) => a - b);
  return keyedShuffle(often, seed)
    .slice(0, LATENTS)
    .map(([latent, rows]) => {
      const texts = keyedShuffle([...new Set(rows.map((row) => tokens.sequenceOf[row]!))], seed, latent).slice(
        0,
        TEXTS,
      );
      return [latent, rows.filter((row) => texts.includes(tokens.sequenceOf[row]!))] as const;
    });
}

/** What is subtracted, and what is in place of it. */
interface Directions {
  /** [dSae, dOut], and the norms of its rows. */
  readonly decoder: Float32Array;
  readonly norms: Float64Array;
  /** Some random ones, of norm 1. */
  readonly random: readonly Float64Array[];
}

const RANDOM_DIRECTIONS = 64;

async function directionsOf({ sae }: Audited, seed: number): Promise<Directions> {
  const { dSae, dOut } = sae.config;
  const decoder = await sae.parameters.decoder.readFloat32();
  const norm = (vector: Float32Array | Float64Array): number =>
    Math.sqrt((vector as Float64Array).reduce((sum, value) => sum + value ** 2, 0));
  return {
    decoder,
    norms: Float64Array.from({ length: dSae }, (_, row) => norm(decoder.subarray(row * dOut, (row + 1) * dOut))),
    random: Array.from({ length: RANDOM_DIRECTIONS }, (_, index) => {
      // Box and Muller: normal numbers in all dimensions have no preferred direction.
      const normal = Float64Array.from({ length: dOut }, (_, i) => {
        const radius = Math.sqrt(-2 * Math.log(1 - keyedNumber(seed, index, i, 0)));
        return radius * Math.cos(2 * Math.PI * keyedNumber(seed, index, i, 1));
      });
      const size = norm(normal);
      return normal.map((value) => value / size);
    }),
  };
}

async function effectOf(
  latent: number,
  rows: readonly number[],
  {
    tokens,
    directions: { decoder, norms, random },
    seed,
  }: { readonly tokens: EncodedTokens; readonly directions: Directions; readonly seed: number },
  { sae, model, hooks, signal }: Audited,
): Promise<LatentEffect> {
  const { kernels } = sae.device;
  const width = sae.config.dOut;
  const texts = [...new Set(rows.map((row) => tokens.sequenceOf[row]!))];
  const sequences = texts.map((text) => tokens.sequences[text]!);
  const padded = paddedBehind(sequences);
  const positions = padded[0]!.length;
  const change = new Float32Array(texts.length * positions * width);
  const other = new Float32Array(change.length);
  const atRandom = new Float32Array(change.length);
  /** Of each text, the first position that is changed. */
  const first = new Array<number>(texts.length).fill(positions);
  let changed = 0;
  for (const row of rows) {
    const text = texts.indexOf(tokens.sequenceOf[row]!);
    const position = tokens.positionOf[row]!;
    const active = latentsOfRow(tokens, row);
    const value = active.get(latent)!;
    const others = [...active.keys()].filter((one) => one !== latent && norms[one]! > 0);
    const drawn = others[Math.floor(keyedNumber(seed, latent, row) * others.length)];
    if (drawn === undefined) continue; // there is nothing to compare with
    changed += 1;
    first[text] = Math.min(first[text]!, position);
    const at = (text * positions + position) * width;
    const size = value * norms[latent]!;
    const direction = random[Math.floor(keyedNumber(seed, latent, row, 1) * random.length)]!;
    for (let i = 0; i < width; i++) {
      change[at + i] = -value * decoder[latent * width + i]!;
      other[at + i] = (-size / norms[drawn]!) * decoder[drawn * width + i]!;
      atRandom[at + i] = size * direction[i]!;
    }
  }
  const count = texts.length * positions;
  const next = new Int32Array(count).fill(-1);
  sequences.forEach((ids, text) => {
    next.set(Array.from(ids).slice(1), text * positions);
  });
  using targets = sae.device.tensor(next, [count]);
  const logitsWith = async (added?: Float32Array): Promise<Tensor> => {
    const hook = (activation: Tensor): Tensor => {
      using delta = sae.device.tensor(added!, [count, width]);
      using flat = activation.reshape([count, width]);
      using sum = kernels.add(flat, delta);
      return sum.reshape(activation.shape);
    };
    using logits = await model.forward(padded, {
      hooks: added === undefined ? [] : [{ name: hooks.output[0]!, hook }],
      ...(signal === undefined ? {} : { signal }),
    });
    return logits.reshape([count, model.config.vocabularySize]);
  };
  const counted = Array.from({ length: count }, (_, row) => row).filter((row) => {
    const text = Math.floor(row / positions);
    return row % positions >= first[text]! && row % positions < sequences[text]!.length;
  });
  const predicting = counted.filter((row) => next[row]! >= 0);
  const meanOver = (values: Float32Array, over: readonly number[]): number =>
    over.length === 0 ? 0 : over.reduce((sum, row) => sum + values[row]!, 0) / over.length;
  using clean = await logitsWith();
  using cleanLoss = kernels.crossEntropy(clean, targets);
  const losses = await cleanLoss.readFloat32();
  const effectOfAdding = async (added: Float32Array): Promise<Effect> => {
    using logits = await logitsWith(added);
    using divergence = kernels.klDivergence(clean, logits);
    using loss = kernels.crossEntropy(logits, targets);
    const [divergences, after] = await Promise.all([divergence.readFloat32(), loss.readFloat32()]);
    return {
      divergence: meanOver(divergences, counted),
      loss: meanOver(after, predicting) - meanOver(losses, predicting),
    };
  };
  return {
    latent,
    tokens: changed,
    effect: await effectOfAdding(change),
    otherLatent: await effectOfAdding(other),
    randomDirection: await effectOfAdding(atRandom),
  };
}
