import { MonosemError } from "../errors.js";
import { Evaluator, type Game, type GameOptions } from "./coalitions.js";
import { checkTree, leavesOf, type PlayerTree } from "./playerTree.js";
import { type ShapleyValues, scoreEnds } from "./shapley.js";

export interface OwenOptions extends GameOptions {
  /** Evaluations at most; by default 500. */
  readonly evaluations?: number;
}

/** A group in one of its contexts: with or without each sibling of it and of the groups that hold it. */
interface GroupInContext {
  readonly tree: PlayerTree;
  /** The players outside that are there. */
  readonly context: Uint8Array;
  /** The scores of the context without and with the group. */
  readonly without: number;
  readonly with: number;
  /** Of this context among all contexts of the group. */
  readonly weight: number;
}

/**
 * Owen values (Owen 1977): Shapley values for players who negotiate in groups, here a binary hierarchy of them. The two
 * halves of a group join in both orders while the rest of the world is whole groups that are there or not, so a balanced
 * tree of n players needs about n² evaluations, not 2^n. Where that is more than allowed, groups with the largest part
 * in the score are taken apart first (as many at a time as fill a batch), and what is left undivided is shared equally.
 *
 * @param tree - its leaves are the players 0 ... n - 1
 * @throws MonosemError ERR_INVALID_ARGUMENT; what the game throws
 */
export async function owenValues(game: Game, tree: PlayerTree, options: OwenOptions = {}): Promise<ShapleyValues> {
  const players = leavesOf(tree).length;
  checkTree(tree, players);
  const { evaluations: most = 500 } = options;
  if (!Number.isSafeInteger(most) || most < 2) {
    throw new MonosemError("ERR_INVALID_ARGUMENT", `evaluations must be an integer of at least 2, found ${most}`);
  }
  const evaluator = new Evaluator(game, players, options);
  const { empty, full } = await scoreEnds(evaluator);
  const values = new Float64Array(players);
  const divided = ({ tree: group, weight, ...scores }: GroupInContext): void => {
    const leaves = leavesOf(group);
    for (const player of leaves) values[player]! += ((scores.with - scores.without) * weight) / leaves.length;
  };
  let groups: GroupInContext[] = [{ tree, context: new Uint8Array(players), without: empty, with: full, weight: 1 }];
  while (groups.length > 0) {
    groups.sort((a, b) => importance(b) - importance(a));
    const splits: GroupInContext[] = [];
    const rest: GroupInContext[] = [];
    const room = Math.min(most - evaluator.evaluations, Math.max(2, evaluator.batchSize));
    for (const group of groups) {
      if (typeof group.tree === "number") divided(group);
      else if (2 * splits.length + 2 <= room) splits.push(group);
      else rest.push(group);
    }
    if (splits.length === 0) {
      rest.forEach(divided);
      break;
    }
    groups = [...rest, ...(await halves(splits, evaluator))];
  }
  return { values, empty, full, evaluations: evaluator.evaluations };
}

function importance(group: GroupInContext): number {
  return Math.abs(group.with - group.without) * group.weight;
}

/** Both halves of each group, in both of their contexts. */
async function halves(groups: readonly GroupInContext[], evaluator: Evaluator): Promise<GroupInContext[]> {
  const { players } = evaluator;
  const present = new Uint8Array(2 * groups.length * players);
  const parts = groups.map((group, index) => {
    const both = group.tree as readonly [PlayerTree, PlayerTree];
    return both.map((half, side) => {
      const row = 2 * index + side;
      const joined = present.subarray(row * players, (row + 1) * players);
      joined.set(group.context);
      for (const player of leavesOf(half)) joined[player] = 1;
      return { half, joined, row };
    });
  });
  const scores = await evaluator.scores(present);
  return groups.flatMap((group, index) => {
    const [left, right] = parts[index] as [(typeof parts)[0][0], (typeof parts)[0][0]];
    const [withLeft, withRight] = [scores[left.row]!, scores[right.row]!];
    const weight = group.weight / 2;
    return [
      { tree: left.half, context: group.context, without: group.without, with: withLeft, weight },
      { tree: right.half, context: group.context, without: group.without, with: withRight, weight },
      { tree: left.half, context: right.joined, without: withRight, with: group.with, weight },
      { tree: right.half, context: left.joined, without: withLeft, with: group.with, weight },
    ];
  });
}
