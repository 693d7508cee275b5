import type { LatentRecord } from "../latentRecord.js";

/** Whether a latent follows the form of text: signs, line breaks, places in the context. Shares of 0 to 1. */
export interface SyntaxFigures {
  /** Of the firings on its most frequent tokens, those on tokens without any letter or digit. */
  readonly punctuation: number;
  /** Of the firings on its most frequent tokens, those on tokens with a line break. */
  readonly lineBreaks: number;
  /** What part of all its firings is on those tokens: little of it makes the two figures above say little. */
  readonly frequentTokens: number;
  /** Of all firings, those at the first counted position of a context. */
  readonly atStart: number;
  /** And at the last. */
  readonly atEnd: number;
}

export const syntaxDefinition: string =
  "syntax: of the firings on its most frequent tokens the share on punctuation (no letter or digit) and on line breaks; of all firings those at the start and the end of a context";

/** Undefined for a latent that never fires. */
export function syntaxFigures(record: LatentRecord, tokenText: (id: number) => string): SyntaxFigures | undefined {
  const { firingCount, positions, tokens } = record;
  if (firingCount === 0) return undefined;
  const told = tokens.reduce((sum, { count }) => sum + count, 0);
  const share = (matches: (text: string) => boolean): number =>
    tokens.reduce((sum, { token, count }) => sum + (matches(tokenText(token)) ? count : 0), 0) / told;
  return {
    punctuation: share((text) => !/[\p{L}\p{N}]/u.test(text)),
    lineBreaks: share((text) => /[\n\r]/.test(text)),
    frequentTokens: told / firingCount,
    atStart: positions.atStart / firingCount,
    atEnd: positions.atEnd / firingCount,
  };
}
