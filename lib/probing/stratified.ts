import { keyedPermutation } from "../activations/permutation.js";
import { MonosemError } from "../errors.js";
import { checkLabels } from "./linearProbe.js";

/** Numbers of rows, ascending. */
export interface Split {
  readonly train: Uint32Array;
  readonly test: Uint32Array;
}

/**
 * Parts the rows at random, each class in the same proportion and with a row at least on both sides.
 *
 * @param testFraction - above 0 and below 1
 * @throws MonosemError ERR_INVALID_ARGUMENT, also for a class of which there is one row only
 */
export async function stratifiedSplit(labels: ArrayLike<number>, testFraction: number, seed: number): Promise<Split> {
  if (!(testFraction > 0 && testFraction < 1)) {
    throw new MonosemError(
      "ERR_INVALID_ARGUMENT",
      `the fraction of the test must lie between 0 and 1, found ${testFraction}`,
    );
  }
  const test: number[] = [];
  const train: number[] = [];
  for (const rows of await shuffledClasses(labels, 2, seed)) {
    const count = Math.min(rows.length - 1, Math.max(1, Math.round(testFraction * rows.length)));
    test.push(...rows.slice(0, count));
    train.push(...rows.slice(count));
  }
  return { train: ascending(train), test: ascending(test) };
}

/**
 * Deals the rows out to `folds` parts at random, each class in the same proportion; fold i tests on part i and trains on
 * the others.
 *
 * @throws MonosemError ERR_INVALID_ARGUMENT, also for a class with fewer rows than folds
 */
export async function stratifiedFolds(labels: ArrayLike<number>, folds: number, seed: number): Promise<Split[]> {
  if (!Number.isInteger(folds) || folds < 2) {
    throw new MonosemError("ERR_INVALID_ARGUMENT", `folds must be an integer of at least 2, found ${folds}`);
  }
  const foldOf = new Uint32Array(labels.length);
  let dealt = 0;
  for (const rows of await shuffledClasses(labels, folds, seed)) for (const row of rows) foldOf[row] = dealt++ % folds;
  return Array.from({ length: folds }, (_, fold) => ({
    train: Uint32Array.from(foldOf.keys()).filter((row) => foldOf[row] !== fold),
    test: Uint32Array.from(foldOf.keys()).filter((row) => foldOf[row] === fold),
  }));
}

/** The rows of the negatives and those of the positives. */
async function shuffledClasses(labels: ArrayLike<number>, least: number, seed: number): Promise<number[][]> {
  checkLabels(labels, labels.length);
  const classes: number[][] = [];
  for (const label of [0, 1]) {
    const rows = Array.from({ length: labels.length }, (_, row) => row).filter((row) => labels[row] === label);
    if (rows.length < least) {
      throw new MonosemError(
        "ERR_INVALID_ARGUMENT",
        `the ${label === 1 ? "positive" : "negative"} class has ${rows.length} of ${labels.length} rows, but at least ${least} are needed`,
      );
    }
    const order = await keyedPermutation(rows.length, [seed, label]);
    classes.push(Array.from(order, (place) => rows[place]!));
  }
  return classes;
}

function ascending(rows: readonly number[]): Uint32Array {
  return Uint32Array.from(rows).sort();
}
