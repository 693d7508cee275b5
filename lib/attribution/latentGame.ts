import { requirePair } from "../analysis/checkPair.js";
import { activationsByLatent, addingHooks, checkLatents, outputScales } from "../analysis/latentWriting.js";
import type { PairingOptions } from "../analysis/pairing.js";
import { type HookChoice, hooksForSae } from "../analysis/saeHook.js";
import { refuseArgument } from "../checkArguments.js";
import { MonosemError, throwIfAborted } from "../errors.js";
import type { HookedTransformer } from "../models/hookedTransformer.js";
import type { Sae } from "../sae/sae.js";
import type { Game } from "./coalitions.js";
import { batchScores, checkMeasure, measureKinds, type NextTokenMeasure, sequencesAtOnce } from "./nextToken.js";

export interface LatentGameOptions extends PairingOptions {
  /** The hook point (of a crosscoder all of them) that the SAE reads; by default that of its metadata. */
  readonly hook?: HookChoice;
  /** The latents that play; by default the `strongest`. */
  readonly latents?: readonly number[];
  /** As many as that: those with the largest sum over the prompt of |activation| times the norm of the decoder's row. */
  readonly strongest?: number;
}

/** Latents as players. */
export interface LatentGame {
  readonly game: Game;
  /** Which latents play, [players]. */
  readonly latents: readonly number[];
  /** What each does on the prompt: its activation at every position, [players][positions]; 0 at special tokens. */
  readonly activations: readonly Float64Array[];
}

/**
 * The latents of an SAE on a prompt as players: a latent that is switched off takes what it writes away from the
 * activations of the untouched model, at every position but those of special tokens. All else stays, the SAE's error
 * too, so that with all players the model is as it was.
 *
 * @param tokens - of the prompt, BOS included where there is one
 * @throws MonosemError as `hooksForSae`; ERR_INVALID_ARGUMENT for a measure of no kind that is known, for a latent that the SAE does not have, for one named
 *   twice, and where no latent fires
 */
export async function latentGame(
  model: HookedTransformer,
  sae: Sae,
  tokens: readonly number[],
  measure: NextTokenMeasure,
  options: LatentGameOptions = {},
): Promise<LatentGame> {
  requirePair(model, sae);
  checkMeasure("measure", measure, measureKinds);
  if (!Array.isArray(tokens)) refuseArgument("tokens", "a list of token ids", tokens);
  const { device } = model;
  const { kernels } = device;
  const { input, output } = hooksForSae(model, sae, options.hook, options);
  using x = await model.activations([tokens], input);
  const firing = await activationsByLatent(sae, x, tokens, model.tokenizer.specialTokenIds);
  const latents = options.latents ?? (await strongestLatents(sae, firing, options.strongest ?? 20));
  checkLatents(latents, sae.config.dSae);
  const silent = new Float64Array(tokens.length);
  const activations = latents.map((latent) => firing.get(latent) ?? silent);
  const scales = await outputScales(sae, x);

  const positions = tokens.length;
  const game: Game = async ({ rows, players, present }, signal) => {
    using chosen = device.tensor(Int32Array.from(latents), [latents.length]);
    using directions = kernels.gatherRows(sae.parameters.decoder, chosen);
    using weights = kernels.transpose(directions); // [dOut, players]
    const scores = new Float64Array(rows);
    for (let first = 0; first < rows; first += sequencesAtOnce(positions)) {
      throwIfAborted(signal, "the attribution");
      const count = Math.min(rows - first, sequencesAtOnce(positions));
      // Minus the activations of those that are absent, [coalitions * positions, players].
      const absent = new Float32Array(count * positions * players);
      for (let row = 0; row < count; row++) {
        for (let player = 0; player < players; player++) {
          if (present[(first + row) * players + player] === 1) continue;
          for (let position = 0; position < positions; position++) {
            const value = activations[player]![position]! * scales[position]!;
            absent[(row * positions + position) * players + player] = -value;
          }
        }
      }
      using absentOnDevice = device.tensor(absent, [count * positions, players]);
      using change = kernels.linear(absentOnDevice, weights); // [coalitions * positions, dOut]
      const batch = Array.from({ length: count }, () => tokens);
      scores.set(
        await batchScores(model, batch, measure, { hooks: addingHooks(model, output, change), signal }),
        first,
      );
    }
    return scores;
  };
  return { game, latents, activations };
}

async function strongestLatents(
  sae: Sae,
  firing: ReadonlyMap<number, Float64Array>,
  count: number,
): Promise<readonly number[]> {
  if (!Number.isSafeInteger(count) || count < 1) {
    throw new MonosemError("ERR_INVALID_ARGUMENT", `strongest must be a positive integer, found ${count}`);
  }
  if (firing.size === 0) throw new MonosemError("ERR_INVALID_ARGUMENT", "no latent of the SAE fires on the prompt");
  using norms = sae.device.kernels.rowNorms(sae.parameters.decoder);
  const norm = await norms.readFloat32();
  return Array.from(firing, ([latent, activations]) => ({
    latent,
    strength: norm[latent]! * activations.reduce((sum, value) => sum + Math.abs(value), 0),
  }))
    .sort((a, b) => b.strength - a.strength || a.latent - b.latent)
    .slice(0, count)
    .map(({ latent }) => latent);
}
