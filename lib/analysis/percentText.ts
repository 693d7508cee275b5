/** A share in percent; one beyond all bounds, as of an SAE that has diverged, by its magnitude. */
export function percentText(share: number, digits: number): string {
  const percent = 100 * share;
  return `${Math.abs(percent) < 1e6 ? percent.toFixed(digits) : percent.toExponential(1)}%`;
}
