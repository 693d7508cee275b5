import { solveSymmetric, submatrix, type WeightedGram } from "./weightedGram.js";

/**
 * The corners of the lasso's path, from no feature to the least-squares fit: coefficients [players] at each, by least
 * angle regression with the lasso's modification (Efron et al. 2004, section 3.1). Between corners the path is straight.
 */
export function lassoPath(weighted: WeightedGram): Float64Array[] {
  const { players, gram, products } = weighted;
  const coefficients = new Float64Array(players);
  const corners = [Float64Array.from(coefficients)];
  const active: number[] = [];
  const start = Math.max(...products.map(Math.abs));
  let entering: number | undefined = products.findIndex((product) => Math.abs(product) === start);
  // As many steps as features, and a few more where the path drops some; ties could make it go round in circles.
  for (let step = 0; step < 10 * players; step++) {
    if (entering !== undefined) active.push(entering);
    entering = undefined;
    // Σ w (z_i - z̄_i) residual: of the active features all the same size, of the others no larger.
    const correlations = products.map(
      (product, i) => product - coefficients.reduce((sum, c, j) => sum + gram[i * players + j]! * c, 0),
    );
    const size = Math.max(...active.map((i) => Math.abs(correlations[i]!)));
    if (!(size > 1e-12 * start)) break;
    // Along this direction all active correlations fall together, to 0 after a step of length 1.
    const direction = solveSymmetric(
      submatrix(weighted, active),
      active.map((i) => correlations[i]!),
    );
    let length = 1;
    for (let i = 0; i < players; i++) {
      if (active.includes(i)) continue;
      const slope = active.reduce((sum, j, place) => sum + gram[i * players + j]! * direction[place]!, 0);
      for (const sign of [1, -1]) {
        // How fast the active ones' size comes down to this feature's. A copy of an active feature keeps pace with it,
        // and one that was just dropped recedes from it.
        const speed = size - sign * slope;
        const reached = Math.max(0, size - sign * correlations[i]!) / speed;
        if (speed > 1e-9 * size && reached < length) [length, entering] = [reached, i];
      }
    }
    let dropped: number | undefined;
    active.forEach((i, place) => {
      const zero = -coefficients[i]! / direction[place]!;
      if (zero > 0 && zero < length) [length, dropped, entering] = [zero, i, undefined];
    });
    active.forEach((i, place) => {
      coefficients[i]! += length * direction[place]!;
    });
    if (dropped !== undefined) {
      coefficients[dropped] = 0;
      active.splice(active.indexOf(dropped), 1);
    }
    corners.push(Float64Array.from(coefficients));
    if (entering === undefined && dropped === undefined) break;
  }
  return corners;
}
