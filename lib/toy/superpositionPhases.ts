/**
 * The phase diagram of Elhage et al. 2022 (arXiv:2209.10652, section 3): one feature more than there are dimensions.
 * Whether that "extra" feature is left out, shares a dimension or takes one for itself changes abruptly with its
 * importance and with how often features occur.
 */
import { checkOptions, type OptionNames } from "../checkArguments.js";
import type { Device } from "../engine/device.js";
import { MonosemError } from "../errors.js";
import { measureSuperposition } from "./superpositionMeasures.js";
import { type SuperpositionProgress, trainSuperposition } from "./superpositionTraining.js";

export type SuperpositionPhase = "not represented" | "superposition" | "dedicated dimension";

/** A point of the diagram. */
export interface PhasePoint {
  /** Importance of the extra feature; that of the others is 1. */
  readonly relativeImportance: number;
  /** 1 - S, in (0, 1]: the probability that a feature is not 0; the same for all. */
  readonly density: number;
}

/** What became of the extra feature in a trained model. */
export interface TrainedPhase {
  readonly phase: SuperpositionPhase;
  /** |W_extra| */
  readonly norm: number;
  /** The sum over the other features j of (Ŵ_extra · W_j)². */
  readonly superposition: number;
  /** The expected loss. */
  readonly loss: number;
}

export interface PhaseDiagram {
  /** 1 or 2; there is one feature more. */
  readonly dimensions: 1 | 2;
  /** From the least important on; columns of the following. */
  readonly relativeImportances: readonly number[];
  /** From dense to sparse; rows of the following. */
  readonly densities: readonly number[];
  readonly theory: readonly (readonly SuperpositionPhase[])[];
  /** The exact expected losses of the solutions of `theory`; a trained model's may be somewhat lower. */
  readonly theoreticalLosses: readonly (readonly number[])[];
  readonly trained: readonly (readonly TrainedPhase[])[];
  /** The share of points where both say the same. */
  readonly agreement: number;
}

export interface PhaseDiagramOptions {
  readonly device: Device;
  /** Default: 1. */
  readonly dimensions?: 1 | 2 | undefined;
  /** Points along each axis: relative importances 0.1 to 10 and densities 1 to 0.01, both logarithmic. Default: 16. */
  readonly points?: number | undefined;
  /** Models trained for each point, of which the one with the lowest loss counts. Default: 10. */
  readonly attempts?: number | undefined;
  /** Default: 1000. */
  readonly steps?: number | undefined;
  /** Default: 512. */
  readonly batchSize?: number | undefined;
  /** Default: 1e-2. */
  readonly learningRate?: number | undefined;
  /** Default: 0. */
  readonly seed?: number | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((progress: SuperpositionProgress) => void) | undefined;
}

/**
 * The phase of the extra feature in the best of the solutions that the paper compares, each with its exact expected
 * loss for density p and relative importance r (Wattenberg's notebook to the paper):
 *
 *     the extra feature left out                            r (p/3 - p²/4)
 *     another feature left out                                 p/3 - p²/4
 *     the extra feature and another as an antipodal pair    (1 + r) p²/6
 *     two others as an antipodal pair (two dimensions)         p²/3
 *
 * A feature that is left out costs its variance (the bias is its mean), a pair only when both features occur.
 */
export function theoreticalPhase(point: PhasePoint, dimensions: 1 | 2): SuperpositionPhase {
  return bestSolution(point, dimensions).phase;
}

interface Solution {
  readonly phase: SuperpositionPhase;
  readonly loss: number;
}

function bestSolution({ relativeImportance: r, density: p }: PhasePoint, dimensions: 1 | 2): Solution {
  const variance = p / 3 - p ** 2 / 4;
  const solutions: readonly Solution[] = [
    { phase: "not represented", loss: r * variance },
    { phase: "dedicated dimension", loss: dimensions === 1 ? variance : Math.min(variance, p ** 2 / 3) },
    { phase: "superposition", loss: ((1 + r) * p ** 2) / 6 },
  ];
  return solutions.reduce((best, solution) => (solution.loss < best.loss ? solution : best));
}

const optionNames: OptionNames<PhaseDiagramOptions> = {
  device: true,
  dimensions: true,
  points: true,
  attempts: true,
  steps: true,
  batchSize: true,
  learningRate: true,
  seed: true,
  signal: "signal",
  onProgress: "function",
};

/**
 * The phase diagram, from theory and from ReLU output models trained at every point. The paper trains ten models at
 * each point and averages all but the worst; here the best of `attempts` counts.
 *
 * @throws {MonosemError} (rejects) As {@link trainSuperposition}; ERR_INVALID_ARGUMENT unless dimensions is 1 or 2.
 */
export async function trainPhaseDiagram(options: PhaseDiagramOptions): Promise<PhaseDiagram> {
  checkOptions("trainPhaseDiagram", options, optionNames);
  const { device, dimensions = 1, points = 16, attempts = 10, steps = 1000, batchSize = 512 } = options;
  const { learningRate = 1e-2, seed, signal, onProgress } = options;
  if (dimensions !== 1 && dimensions !== 2) refuse(`dimensions must be 1 or 2, found ${String(dimensions)}`);
  if (!Number.isSafeInteger(points) || points < 2) refuse(`points must be an integer of at least 2, found ${points}`);

  const relativeImportances = logarithmic(0.1, 10, points);
  const densities = logarithmic(1, 0.01, points);
  const others = Array.from({ length: dimensions }, () => 1);
  const models = await trainSuperposition({
    device,
    features: dimensions + 1,
    dimensions,
    tasks: densities.flatMap((density) =>
      relativeImportances.map((r) => ({ sparsity: 1 - density, importance: [...others, r] })),
    ),
    attempts,
    steps,
    batchSize,
    learningRate,
    seed,
    signal,
    onProgress,
  });

  const phases = models.map((model): TrainedPhase => {
    const measures = measureSuperposition(model);
    const [norm, superposition] = [measures.norms[dimensions]!, measures.superposition[dimensions]!];
    return { phase: phaseOf(norm, superposition), norm, superposition, loss: model.loss };
  });
  const trained = densities.map((_, row) => phases.slice(row * points, (row + 1) * points));
  const solutions = densities.map((density) =>
    relativeImportances.map((relativeImportance) => bestSolution({ relativeImportance, density }, dimensions)),
  );
  const theory = solutions.map((row) => row.map(({ phase }) => phase));
  const theoreticalLosses = solutions.map((row) => row.map(({ loss }) => loss));
  const agreeing = phases.filter(({ phase }, index) => phase === theory[Math.floor(index / points)]![index % points]);
  const agreement = agreeing.length / phases.length;
  return { dimensions, relativeImportances, densities, theory, theoreticalLosses, trained, agreement };
}

/** Halfway between "left out" and "there"; and a feature alone in its dimension has superposition 0, in a triangle 1/2, in a pair 1. */
function phaseOf(norm: number, superposition: number): SuperpositionPhase {
  if (norm <= 0.5) return "not represented";
  return superposition > 0.25 ? "superposition" : "dedicated dimension";
}

/** From `first` to `last`, both included exactly. */
function logarithmic(first: number, last: number, points: number): readonly number[] {
  return Array.from({ length: points }, (_, index) =>
    index === points - 1 ? last : first * (last / first) ** (index / (points - 1)),
  );
}

function refuse(message: string): never {
  throw new MonosemError("ERR_INVALID_ARGUMENT", `trainPhaseDiagram: ${message}`);
}
