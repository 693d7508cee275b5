/**
 * A game: players that can be switched off, and a score of what is left. Everything that LIME and SHAP know of a model
 * goes through here, so that players may be words of a text, tokens of a prompt, latents of an SAE, or anything else.
 */
import { MonosemError, throwIfAborted } from "../errors.js";

/** Which players are there, row after row. */
export interface Coalitions {
  readonly rows: number;
  readonly players: number;
  /** Shape [rows, players]. 1 where the player is there, 0 where it is switched off. */
  readonly present: Uint8Array;
}

/**
 * The score of each coalition, [rows]. Called with no more than `batchSize` at a time and with none twice, so a score
 * must depend on its coalition alone.
 */
export type Game = (coalitions: Coalitions, signal?: AbortSignal) => ArrayLike<number> | Promise<ArrayLike<number>>;

export interface GameOptions {
  /** Coalitions that the game is asked for at a time. */
  readonly batchSize?: number;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: (progress: { readonly evaluations: number }) => void;
}

/** Asks a game in batches, checks what it answers and remembers it. */
export class Evaluator {
  readonly players: number;
  readonly batchSize: number;
  readonly #game: Game;
  readonly #options: GameOptions;
  /** By `keyOf`. */
  readonly #scores: Map<string, number> = new Map();

  /** @throws MonosemError ERR_INVALID_ARGUMENT for a game without players and an impossible batch size */
  constructor(game: Game, players: number, options: GameOptions) {
    const { batchSize = 64 } = options;
    for (const [name, value] of [
      ["players", players],
      ["batchSize", batchSize],
    ] as const) {
      if (Number.isSafeInteger(value) && value >= 1) continue;
      throw new MonosemError("ERR_INVALID_ARGUMENT", `${name} must be a positive integer, found ${value}`);
    }
    this.players = players;
    this.batchSize = batchSize;
    this.#game = game;
    this.#options = options;
  }

  /** Coalitions that the game was asked for so far. */
  get evaluations(): number {
    return this.#scores.size;
  }

  /**
   * @param present - [rows, players]
   * @throws MonosemError ERR_SHAPE_MISMATCH for an answer of another length, ERR_NON_FINITE for one that is NaN or
   *   infinite, ERR_ABORTED; and what the game throws
   */
  async scores(present: Uint8Array): Promise<Float64Array> {
    const rows = present.length / this.players;
    const rowOf = (row: number): Uint8Array => present.subarray(row * this.players, (row + 1) * this.players);
    const keys = Array.from({ length: rows }, (_, row) => keyOf(rowOf(row)));
    const unknown = new Map<string, number>();
    keys.forEach((key, row) => {
      if (!this.#scores.has(key) && !unknown.has(key)) unknown.set(key, row);
    });
    const wanted = [...unknown];
    for (let first = 0; first < wanted.length; first += this.batchSize) {
      await this.#ask(wanted.slice(first, first + this.batchSize).map(([key, row]) => ({ key, present: rowOf(row) })));
    }
    return Float64Array.from(keys, (key) => this.#scores.get(key)!);
  }

  async #ask(batch: readonly { readonly key: string; readonly present: Uint8Array }[]): Promise<void> {
    const { signal, onProgress } = this.#options;
    throwIfAborted(signal, "the attribution");
    const present = new Uint8Array(batch.length * this.players);
    batch.forEach((coalition, row) => {
      present.set(coalition.present, row * this.players);
    });
    const scores = await this.#game({ rows: batch.length, players: this.players, present }, signal);
    if (scores.length !== batch.length) {
      throw new MonosemError(
        "ERR_SHAPE_MISMATCH",
        `the game was asked for the scores of ${batch.length} coalitions, but gave ${scores.length}`,
      );
    }
    batch.forEach(({ key, present: players }, row) => {
      const score = scores[row]!;
      if (!Number.isFinite(score)) {
        const on = players.reduce((sum, value) => sum + value, 0);
        throw new MonosemError(
          "ERR_NON_FINITE",
          `the game's score is ${score} for a coalition of ${on} of ${this.players} players`,
        );
      }
      this.#scores.set(key, score);
    });
    onProgress?.({ evaluations: this.evaluations });
  }
}

/** The same string for the same coalition, 16 players a character. */
export function keyOf(present: Uint8Array): string {
  let key = "";
  for (let first = 0; first < present.length; first += 16) {
    let bits = 0;
    for (let i = first; i < Math.min(present.length, first + 16); i++) bits = 2 * bits + present[i]!;
    key += String.fromCharCode(bits);
  }
  return key;
}
