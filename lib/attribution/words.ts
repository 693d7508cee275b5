import { checkOptions, type OptionNames, refuseArgument } from "../checkArguments.js";
import { MonosemError } from "../errors.js";
import type { Coalitions, Game } from "./coalitions.js";

export interface WordOptions {
  /** A word is one player wherever it occurs, instead of one at each place; by default it is. */
  readonly bagOfWords?: boolean;
  /** What stands in a removed word's place; by default nothing, so that the spaces around it meet. */
  readonly mask?: string;
}

const optionNames: OptionNames<WordOptions> = {
  bagOfWords: "boolean",
  mask: true,
};

/** The words of a text as players: runs of letters, digits and underscores. What lies between them always stays. */
export class WordPlayers {
  /** [players] */
  readonly words: readonly string[];
  /** Where in the text each player's words begin, in UTF-16 units. */
  readonly positions: readonly (readonly number[])[];
  readonly #pieces: readonly { readonly text: string; readonly player: number | undefined }[];
  readonly #mask: string;

  /** @throws MonosemError ERR_INVALID_ARGUMENT for a text without words */
  constructor(text: string, options: WordOptions = {}) {
    checkOptions("WordPlayers", options, optionNames);
    const { bagOfWords = true, mask = "" } = options;
    if (typeof text !== "string") refuseArgument("WordPlayers: text", "a text", text);
    if (typeof mask !== "string") refuseArgument("WordPlayers: mask", "a text", mask);
    const words: string[] = [];
    const positions: number[][] = [];
    const playerOf = new Map<string, number>();
    let position = 0;
    this.#pieces = (text.match(/[\p{L}\p{N}_]+|[^\p{L}\p{N}_]+/gu) ?? []).map((piece) => {
      const start = position;
      position += piece.length;
      if (!/^[\p{L}\p{N}_]/u.test(piece)) return { text: piece, player: undefined };
      const known = bagOfWords ? playerOf.get(piece) : undefined;
      const player = known ?? words.push(piece) - 1;
      if (known === undefined) {
        playerOf.set(piece, player);
        positions.push([]);
      }
      positions[player]!.push(start);
      return { text: piece, player };
    });
    if (words.length === 0) {
      throw new MonosemError("ERR_INVALID_ARGUMENT", `the text ${JSON.stringify(text)} has no words to attribute to`);
    }
    this.words = words;
    this.positions = positions;
    this.#mask = mask;
  }

  /** The text of each coalition. */
  texts({ rows, players, present }: Coalitions): string[] {
    return Array.from({ length: rows }, (_, row) =>
      this.#pieces
        .map(({ text, player }) => (player === undefined || present[row * players + player] === 1 ? text : this.#mask))
        .join(""),
    );
  }

  /** The game of any score of texts. */
  game(scores: (texts: readonly string[], signal?: AbortSignal) => ReturnType<Game>): Game {
    return (coalitions, signal) => scores(this.texts(coalitions), signal);
  }
}
