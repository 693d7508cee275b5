import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Device } from "../../lib/engine/device.js";
import { type SuperpositionPhase, theoreticalPhase, trainPhaseDiagram } from "../../lib/toy/superpositionPhases.js";
import { testDevice } from "../testDevice.js";
import { expectNothingKept } from "./deviceMemory.js";

let device: Device;

beforeAll(async () => {
  device = await Device.open(testDevice, { threads: 1 });
});

afterAll(() => device.close());

/** The expected loss of x̂ = ReLU(WᵀWx + b) by the midpoint rule over all patterns of active features. */
function expectedLoss(
  weights: readonly (readonly number[])[],
  bias: readonly number[],
  importance: readonly number[],
  density: number,
): number {
  const points = 12;
  const features = weights.length;
  const values = [0, ...Array.from({ length: points }, (_, i) => (i + 0.5) / points)];
  const probability = (index: number): number => (index === 0 ? 1 - density : density / points);
  let loss = 0;
  const visit = (x: readonly number[], weight: number): void => {
    if (weight === 0) return;
    if (x.length < features) {
      for (const [index, value] of values.entries()) visit([...x, value], weight * probability(index));
      return;
    }
    for (let i = 0; i < features; i++) {
      let z = bias[i]!;
      for (let j = 0; j < features; j++) {
        z += x[j]! * weights[i]!.reduce((sum, w, d) => sum + w * weights[j]![d]!, 0);
      }
      loss += weight * importance[i]! * (x[i]! - Math.max(z, 0)) ** 2;
    }
  };
  visit([], 1);
  return loss;
}

describe.each([1, 2] as const)("%i dimension(s) and one feature more", (dimensions) => {
  /** The solutions that the paper compares, each with the bias that is its features' mean where they are left out. */
  const solutions: Record<string, { phase: SuperpositionPhase; weights: number[][]; leftOut?: number }> =
    dimensions === 1
      ? {
          "without the extra feature": { phase: "not represented", weights: [[1], [0]], leftOut: 1 },
          "without the other": { phase: "dedicated dimension", weights: [[0], [1]], leftOut: 0 },
          "both as a pair": { phase: "superposition", weights: [[1], [-1]] },
        }
      : {
          "without the extra feature": {
            phase: "not represented",
            weights: [
              [1, 0],
              [0, 1],
              [0, 0],
            ],
            leftOut: 2,
          },
          "without another": {
            phase: "dedicated dimension",
            weights: [
              [0, 0],
              [1, 0],
              [0, 1],
            ],
            leftOut: 0,
          },
          "the extra feature in a pair": {
            phase: "superposition",
            weights: [
              [1, 0],
              [0, 1],
              [0, -1],
            ],
          },
          "the others as a pair": {
            phase: "dedicated dimension",
            weights: [
              [1, 0],
              [-1, 0],
              [0, 1],
            ],
          },
        };

  test("the theoretical phase is that of the solution with the lowest expected loss", () => {
    const phases = new Set<SuperpositionPhase>();
    for (const density of [1, 0.6, 0.4, 0.15, 0.02]) {
      for (const relativeImportance of [0.1, 0.45, 2.1, 10]) {
        const importance = [...Array.from({ length: dimensions }, () => 1), relativeImportance];
        const losses = Object.values(solutions).map(({ phase, weights, leftOut }) => {
          const bias = importance.map((_, i) => (i === leftOut ? density / 2 : 0));
          return { phase, loss: expectedLoss(weights, bias, importance, density) };
        });
        const best = losses.reduce((a, b) => (b.loss < a.loss ? b : a));
        expect(theoreticalPhase({ relativeImportance, density }, dimensions)).toBe(best.phase);
        phases.add(best.phase);
      }
    }
    expect(phases.size).toBe(3);
  });

  test("trained models find the phases of the theory", async () => {
    const diagram = await trainPhaseDiagram({ device, dimensions, points: 4, attempts: 8, steps: 400, batchSize: 256 });
    expect(diagram.relativeImportances[0]).toBe(0.1);
    expect(diagram.relativeImportances[3]).toBe(10);
    expect(diagram.densities[0]).toBe(1);
    expect(diagram.densities[3]).toBe(0.01);
    const phases = diagram.trained.map((row) => row.map(({ phase }) => phase));
    // Dense features: the less important ones are left out.
    expect(phases[0]).toEqual(["not represented", "not represented", "dedicated dimension", "dedicated dimension"]);
    // Sparse ones, of which hardly ever two are active together, share all the same, and the right ones.
    expect(phases.slice(2)).toEqual(diagram.theory.slice(2));
    for (const [row, losses] of diagram.theoreticalLosses.entries()) {
      for (const [column, loss] of losses.entries()) {
        const found = diagram.trained[row]![column]!.loss / loss;
        expect(found).toBeGreaterThan(0.85);
        expect(found).toBeLessThan(1.1);
      }
    }
    expect(diagram.agreement).toBeGreaterThanOrEqual(0.85);
    const agreeing = phases.flat().filter((phase, index) => phase === diagram.theory.flat()[index]);
    expect(diagram.agreement).toBe(agreeing.length / 16);
    await expectNothingKept(device);
  });
});

test("diagrams that cannot be made are refused", async () => {
  await expect(trainPhaseDiagram({ device, points: 1 })).rejects.toMatchObject({ code: "ERR_INVALID_ARGUMENT" });
  await expect(trainPhaseDiagram({ device, dimensions: 3 as 2 })).rejects.toMatchObject({
    code: "ERR_INVALID_ARGUMENT",
    message: expect.stringContaining("dimensions must be 1 or 2, found 3"),
  });
});
