/**
 * Pearson's correlation; 0 where either side is constant, which says nothing about the other.
 *
 * @param a, b - of one length
 */
export function pearson(a: readonly number[], b: readonly number[]): number {
  const [meanA, meanB] = [mean(a), mean(b)];
  let [covariance, varianceA, varianceB] = [0, 0, 0];
  for (const [index, value] of a.entries()) {
    const [da, db] = [value - meanA, b[index]! - meanB];
    covariance += da * db;
    varianceA += da * da;
    varianceB += db * db;
  }
  return isConstant(a) || isConstant(b) ? 0 : covariance / Math.sqrt(varianceA * varianceB);
}

/** By its values: the mean of equal ones, and so their variance, may be rounded. */
function isConstant(values: readonly number[]): boolean {
  return values.every((value) => value === values[0]);
}

/**
 * Area under the ROC curve: the probability that a positive's value is above a negative's, ties counted half. Needs both.
 */
export function auroc(positives: readonly number[], negatives: readonly number[]): number {
  let above = 0;
  for (const positive of positives) {
    for (const negative of negatives) above += positive > negative ? 1 : positive === negative ? 0.5 : 0;
  }
  return above / (positives.length * negatives.length);
}

export function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}
