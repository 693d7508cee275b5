/**
 * Solves A x = b for a symmetric positive definite A that is known by its products alone, by conjugate gradients with A's
 * diagonal as the preconditioner (Hestenes and Stiefel 1952), until the residual's norm is `tolerance` times b's, or
 * rounding keeps it from getting smaller.
 */
export function conjugateGradients({
  product,
  diagonal,
  right,
  tolerance,
}: {
  readonly product: (vector: Float64Array) => Float64Array;
  readonly diagonal: Float64Array;
  readonly right: Float64Array;
  readonly tolerance: number;
}): Float64Array {
  const solution = new Float64Array(right.length);
  const residual = Float64Array.from(right);
  const wanted = tolerance * norm(right);
  let preconditioned = residual.map((value, i) => value / diagonal[i]!);
  const direction = Float64Array.from(preconditioned);
  let square = dot(residual, preconditioned);
  // In exact arithmetic as many steps as there are unknowns are enough.
  for (let step = 0; step < 10 * right.length + 50 && norm(residual) > wanted; step++) {
    const image = product(direction);
    const curvature = dot(direction, image);
    if (!(curvature > 0)) break;
    const length = square / curvature;
    for (let i = 0; i < solution.length; i++) {
      solution[i]! += length * direction[i]!;
      residual[i]! -= length * image[i]!;
    }
    preconditioned = residual.map((value, i) => value / diagonal[i]!);
    const next = dot(residual, preconditioned);
    for (let i = 0; i < direction.length; i++) direction[i] = preconditioned[i]! + (next / square) * direction[i]!;
    square = next;
  }
  return solution;
}

export function dot(a: Float64Array, b: Float64Array): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i]! * b[i]!;
  return sum;
}

export function norm(vector: Float64Array): number {
  return Math.sqrt(dot(vector, vector));
}
