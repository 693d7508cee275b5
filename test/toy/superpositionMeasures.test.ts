import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { measureSuperposition, nearestGeometry, superpositionGeometries } from "../../lib/toy/superpositionMeasures.js";

function measure(vectors: readonly (readonly number[])[]) {
  return measureSuperposition({
    features: vectors.length,
    dimensions: vectors[0]!.length,
    weights: Float64Array.from(vectors.flat()),
  });
}

function polygon(corners: number): number[][] {
  return Array.from({ length: corners }, (_, i) => {
    const angle = 0.3 + (2 * Math.PI * i) / corners;
    return [Math.cos(angle), Math.sin(angle)];
  });
}

const tetrahedron = [
  [1, 1, 1],
  [1, -1, -1],
  [-1, 1, -1],
  [-1, -1, 1],
];

/** Two squares, one turned by 45 degrees, at heights ±1/√3: the antiprism whose corners look the same from all sides. */
const squareAntiprism = Array.from({ length: 8 }, (_, i) => {
  const angle = (Math.PI / 4) * i;
  const radius = Math.sqrt(2 / 3);
  return [radius * Math.cos(angle), radius * Math.sin(angle), (i % 2 === 0 ? 1 : -1) / Math.sqrt(3)];
});

describe("the arrangements of the paper", () => {
  test.each([
    [
      "dedicated dimension",
      [
        [1, 0],
        [0, 1],
      ],
    ],
    ["tetrahedron", tetrahedron],
    ["triangle", polygon(3)],
    [
      "antipodal pair",
      [
        [0.6, 0.8],
        [-0.6, -0.8],
      ],
    ],
    ["pentagon", polygon(5)],
    ["square antiprism", squareAntiprism],
  ])("every feature of a %s has its dimensionality, at any length", (name, vectors) => {
    const geometry = superpositionGeometries.find((known) => known.name === name)!;
    for (const length of [0.3, 1, 2]) {
      const { dimensionality } = measure(vectors.map((vector) => vector.map((w) => length * w)));
      for (const value of dimensionality) {
        expect(value).toBeCloseTo(geometry.dimensionality, 12);
        expect(nearestGeometry(value)).toBe(geometry);
      }
    }
  });

  test("fractions are what their text says, and nothing is near the middle between two", () => {
    for (const { dimensionality, fraction } of superpositionGeometries) {
      const [numerator, denominator = 1] = fraction.split("/").map(Number);
      expect(dimensionality).toBe(numerator! / denominator);
    }
    expect(nearestGeometry(0.9)).toBeUndefined();
    expect(nearestGeometry(0.2)).toBeUndefined();
    expect(nearestGeometry(0.39)?.fraction).toBe("2/5");
    expect(nearestGeometry(0.38)?.fraction).toBe("3/8");
    expect(nearestGeometry(Number.NaN)).toBeUndefined();
  });
});

test("norms, superposition, interference and the counts follow their formulas", () => {
  const { norms, superposition, dimensionality, interference, squaredNorm, dimensionsPerFeature, represented } =
    measure([
      [2, 0],
      [-1, 0],
      [0, 0.5],
    ]);
  expect([...norms]).toEqual([2, 1, 0.5]);
  expect([...superposition]).toEqual([1, 4, 0]);
  expect([...dimensionality]).toEqual([4 / 5, 1 / 5, 1]);
  expect([...interference]).toEqual([4, -2, 0, -2, 1, 0, 0, 0, 0.25]);
  expect(squaredNorm).toBe(5.25);
  expect(dimensionsPerFeature).toBe(2 / 5.25);
  expect(represented).toBe(2); // 0.5 is not more than 1/2
});

test("features without a direction have no dimensionality and no superposition", () => {
  const { norms, superposition, dimensionality } = measure([[0], [3]]);
  expect([...norms]).toEqual([0, 3]);
  expect([...superposition]).toEqual([0, 0]);
  expect([...dimensionality]).toEqual([0, 1]);
  const nothing = measure([[0], [0]]);
  expect(nothing.dimensionsPerFeature).toBe(Number.POSITIVE_INFINITY);
  expect(nothing.represented).toBe(0);
});

test("dimensionalities are shares: each is in [0, 1], together they are no more than the dimensions", () => {
  const weight = fc.double({ min: -2, max: 2, noNaN: true }).map((value) => Math.fround(value));
  const vectors = fc
    .tuple(fc.integer({ min: 1, max: 9 }), fc.integer({ min: 1, max: 4 }))
    .chain(([features, dimensions]) =>
      fc.array(fc.array(weight, { minLength: dimensions, maxLength: dimensions }), {
        minLength: features,
        maxLength: features,
      }),
    );
  fc.assert(
    fc.property(vectors, (directions) => {
      const { dimensionality, superposition, norms } = measure(directions);
      for (const [i, value] of dimensionality.entries()) {
        expect(value).toBeGreaterThanOrEqual(0);
        expect(value).toBeLessThanOrEqual(1 + 1e-12);
        expect(superposition[i]).toBeGreaterThanOrEqual(0);
        if (value > 0) expect(value).toBeCloseTo(norms[i]! ** 2 / (norms[i]! ** 2 + superposition[i]!), 10);
      }
      expect(dimensionality.reduce((a, b) => a + b, 0)).toBeLessThanOrEqual(directions[0]!.length + 1e-9);
    }),
  );
});

test("weights that are not finite or not as many as the shape says are refused", () => {
  expect(() => measure([[1, Number.NaN]])).toThrow(
    expect.objectContaining({
      code: "ERR_NON_FINITE",
      message: expect.stringContaining("feature 0 in dimension 1 is NaN"),
    }),
  );
  expect(() => measureSuperposition({ features: 2, dimensions: 2, weights: [1, 2, 3] })).toThrow(
    expect.objectContaining({ code: "ERR_SHAPE_MISMATCH", message: expect.stringContaining("4 weights, found 3") }),
  );
});
