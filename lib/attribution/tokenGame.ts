import { requireModel } from "../analysis/checkPair.js";
import { checkOptions, type OptionNames, refuseArgument } from "../checkArguments.js";
import { MonosemError } from "../errors.js";
import type { HookedTransformer, NamedHook } from "../models/hookedTransformer.js";
import type { Game } from "./coalitions.js";
import { checkMeasure, measureKinds, type NextTokenMeasure, sequenceScores } from "./nextToken.js";

export interface TokenGameOptions {
  /** The token that stands in an absent one's place; by default absent tokens are left out, and the others close up. */
  readonly mask?: number;
  readonly hooks?: readonly NamedHook[];
}

/** A prompt's tokens as players; special tokens, such as BOS, always stay. */
export interface TokenGame {
  readonly game: Game;
  /** The positions that play, [players]. */
  readonly positions: readonly number[];
}

const optionNames: OptionNames<TokenGameOptions> = {
  mask: true,
  hooks: true,
};

/**
 * @param tokens - of the prompt, BOS included where there is one
 * @throws MonosemError ERR_INVALID_ARGUMENT for a measure of no kind that is known and a prompt of special tokens alone
 */
export function tokenGame(
  model: HookedTransformer,
  tokens: readonly number[],
  measure: NextTokenMeasure,
  options: TokenGameOptions = {},
): TokenGame {
  checkOptions("tokenGame", options, optionNames);
  const { mask, hooks = [] } = options;
  requireModel(model);
  checkMeasure("measure", measure, measureKinds);
  if (!Array.isArray(tokens)) refuseArgument("tokens", "a list of token ids", tokens);
  const special = model.tokenizer.specialTokenIds;
  const positions = Array.from(tokens.keys()).filter((position) => !special.has(tokens[position]!));
  if (positions.length === 0) {
    throw new MonosemError("ERR_INVALID_ARGUMENT", "the prompt has no tokens to attribute to");
  }
  const playerAt = new Map(positions.map((position, player) => [position, player]));
  const game: Game = ({ rows, players, present }, signal) => {
    const sequences = Array.from({ length: rows }, (_, row) =>
      tokens.flatMap((token, position) => {
        const player = playerAt.get(position);
        if (player === undefined || present[row * players + player] === 1) return [token];
        return mask === undefined ? [] : [mask];
      }),
    );
    return sequenceScores(model, sequences, measure, { hooks, signal });
  };
  return { game, positions };
}
