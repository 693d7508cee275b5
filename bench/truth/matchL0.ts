/** Finds the sparsity coefficient with which a trained SAE has a given L0. */

export interface Trained {
  /** On held-out samples. */
  readonly l0: number;
}

interface Point {
  readonly coefficient: number;
  readonly l0: number;
}

/** How far the L0 of a short search run and of the result may be off. */
const searchTolerance = 0.05;
const tolerance = 0.03;
const searchRuns = 8;
const fullRuns = 4;
/** No guess is farther than this factor from the last one. */
const farthest = 8;

/**
 * Searches on short runs, then trains in full, again with a corrected coefficient while the L0 is off by more than 3 %; of
 * at most 4 full runs the one that is nearest.
 *
 * @param train - trains an SAE with a coefficient; `full` or for the search only
 */
export async function matchL0<T extends Trained>(
  target: number,
  start: number,
  train: (coefficient: number, full: boolean) => Promise<T>,
): Promise<{ readonly coefficient: number; readonly result: T }> {
  const search: Point[] = [];
  for (let coefficient = start; search.length < searchRuns; coefficient = nextGuess(search, target)) {
    const { l0 } = await train(coefficient, false);
    search.push({ coefficient, l0 });
    if (Math.abs(l0 / target - 1) <= searchTolerance) break;
  }
  const attempts: { readonly coefficient: number; readonly l0: number; readonly result: T }[] = [];
  let coefficient = nearest(search, target).coefficient;
  for (let run = 0; run < fullRuns; run++) {
    const result = await train(coefficient, true);
    attempts.push({ coefficient, l0: result.l0, result });
    if (Math.abs(result.l0 / target - 1) <= tolerance) break;
    coefficient =
      attempts.length > 1 ? nextGuess(attempts, target) : coefficient * (result.l0 / target) ** (1 / steepness(search));
  }
  return nearest(attempts, target);
}

/** By log L0 as a straight line in the log of the coefficient, through the points on both sides of the target or the last two. */
function nextGuess(points: readonly Point[], target: number): number {
  const last = points.at(-1)!;
  const above = points.filter(({ l0 }) => l0 > target).toSorted((a, b) => b.coefficient - a.coefficient)[0];
  const below = points.filter(({ l0 }) => l0 <= target).toSorted((a, b) => a.coefficient - b.coefficient)[0];
  if (above !== undefined && below !== undefined && above.coefficient < below.coefficient) {
    // An L0 of 0 says nothing about the slope: halve the interval.
    const part = below.l0 > 0 ? Math.log(above.l0 / target) / Math.log(above.l0 / below.l0) : 0.5;
    return above.coefficient * (below.coefficient / above.coefficient) ** Math.min(0.9, Math.max(0.1, part));
  }
  const factor = (Math.max(last.l0, target / 100) / target) ** (1 / steepness(points));
  return last.coefficient * Math.min(farthest, Math.max(1 / farthest, factor));
}

/** -d log L0 / d log coefficient between the last two points, within reason; 1 where there is one only. */
function steepness(points: readonly Point[]): number {
  const [a, b] = [points.at(-2), points.at(-1)];
  if (a === undefined || b === undefined || a.l0 <= 0 || b.l0 <= 0 || a.coefficient === b.coefficient) return 1;
  const slope = -Math.log(a.l0 / b.l0) / Math.log(a.coefficient / b.coefficient);
  return Math.min(4, Math.max(0.25, slope));
}

function nearest<P extends Point>(points: readonly P[], target: number): P {
  return points.reduce((best, point) => (Math.abs(point.l0 - target) < Math.abs(best.l0 - target) ? point : best));
}
