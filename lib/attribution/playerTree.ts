import { MonosemError } from "../errors.js";

/** How players form groups, two by two: a player's number, or two trees. */
export type PlayerTree = number | readonly [PlayerTree, PlayerTree];

/** @throws MonosemError ERR_INVALID_ARGUMENT unless each of 0 ... players - 1 is a leaf exactly once */
export function checkTree(tree: PlayerTree, players: number): void {
  const leaves = leavesOf(tree).sort((a, b) => a - b);
  if (leaves.length === players && leaves.every((leaf, i) => leaf === i)) return;
  throw new MonosemError(
    "ERR_INVALID_ARGUMENT",
    `the leaves of the tree must be the players 0 to ${players - 1}, each once; found ${leaves.join(", ")}`,
  );
}

export function leavesOf(tree: PlayerTree): number[] {
  return typeof tree === "number" ? [tree] : [...leavesOf(tree[0]), ...leavesOf(tree[1])];
}

/**
 * A hierarchy over the pieces of a text, in their order: sentences, clauses, words, pieces of words. A group is parted
 * at its strongest boundary, of equally strong ones at that nearest to its middle.
 *
 * @param texts - of each piece, with the space that precedes a word
 */
export function textTree(texts: readonly string[]): PlayerTree {
  const strengths = texts.map((text, i) => (i === 0 ? 0 : boundaryStrength(texts[i - 1]!, text)));
  const part = (first: number, end: number): PlayerTree => {
    if (end - first === 1) return first;
    let best = first + 1;
    for (let at = first + 2; at < end; at++) {
      const stronger = strengths[at]! - strengths[best]!;
      const nearer = Math.abs(2 * best - first - end) - Math.abs(2 * at - first - end);
      if (stronger > 0 || (stronger === 0 && nearer > 0)) best = at;
    }
    return [part(first, best), part(best, end)];
  };
  if (texts.length === 0) throw new MonosemError("ERR_INVALID_ARGUMENT", "a tree needs a player at least");
  return part(0, texts.length);
}

/** Of the boundary between two pieces: 3 after a sentence, 2 after a clause, 1 between words, 0 within one. */
function boundaryStrength(before: string, after: string): number {
  if (/[.!?…。！？\n]["'”’)\]]*\s*$/u.test(before)) return /^\s*["'”’)\].!?…]/u.test(after) ? 0 : 3;
  if (/[,;:—–、，；：]\s*$/u.test(before)) return 2;
  return /^\s/u.test(after) || /\s$/u.test(before) ? 1 : 0;
}
