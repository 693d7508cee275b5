/**
 * The expected loss of toy models. Inputs sampled as they occur hardly ever have two active features when features are
 * sparse, and just those cost the loss of superposition. Given the number k of active features, however, inputs do not
 * depend on the sparsity at all: any k features are as likely as any others, each uniform in [0, 1). Hence
 *
 *     E[loss] = sum over k of Binomial(n, 1 - S)(k) E[loss | k active]
 *
 * and each conditional expectation is measured by itself, on the same inputs for all models.
 */
import type { Device } from "../engine/device.js";
import type { RandomGenerator } from "../engine/random.js";
import { throwIfAborted } from "../errors.js";
import type { SuperpositionTask } from "./superpositionModel.js";
import type { SuperpositionPack } from "./superpositionPack.js";

export interface ExpectedLossOptions {
  readonly device: Device;
  readonly features: number;
  /** Of the models of all packs, in order. */
  readonly tasks: readonly SuperpositionTask[];
  readonly random: RandomGenerator;
  readonly signal?: AbortSignal | undefined;
}

/** Inputs for all k together, and for each at the least. */
const INPUTS = 65_536;
const INPUTS_PER_COUNT = 2048;

/** Inputs on the device at a time. */
const BATCH = 1024;

/** Numbers of active features are passed over when they are rarer, in comparison with two and more. */
const NEGLIGIBLE = 1e-6;

/** So many sets of active features at the most are gone through one by one. */
const MOST_SETS = 256;

/** Their square roots give points that fill a cube of up to so many dimensions evenly. */
const PRIMES = [2, 3, 5, 7, 11, 13];

/** The expected loss of every model of the packs. */
export async function expectedLosses(
  packs: readonly SuperpositionPack[],
  { device, features, tasks, random, signal }: ExpectedLossOptions,
): Promise<readonly number[]> {
  const probabilities = tasks.map(({ sparsity }) => activeCountProbabilities(features, 1 - sparsity));
  const counts = Array.from({ length: features + 1 }, (_, active) => active).filter((active) =>
    probabilities.some((probability) => probability[active]! > 0),
  );
  const rows = Math.max(INPUTS_PER_COUNT, Math.floor(INPUTS / counts.length));
  const losses = new Float64Array(tasks.length);
  for (const active of counts) {
    throwIfAborted(signal, "the measurement of toy models");
    const inputs = await inputsWithActive(active, { device, features, rows, random });
    const conditional = await meanLosses(packs, { device, features, inputs });
    for (const [model, loss] of conditional.entries()) losses[model]! += probabilities[model]![active]! * loss;
  }
  return [...losses];
}

/** [features + 1]: the probability of each number of active features, 0 where it is negligible. */
export function activeCountProbabilities(features: number, density: number): Float64Array {
  const probabilities = new Float64Array(features + 1);
  if (density === 1) {
    probabilities[features] = 1;
    return probabilities;
  }
  // Through logarithms: of many features, each factor alone may be beyond a double.
  let logSets = 0;
  for (let k = 0; k <= features; k++) {
    probabilities[k] = Math.exp(logSets + k * Math.log(density) + (features - k) * Math.log1p(-density));
    logSets += Math.log((features - k) / (k + 1));
  }
  const severalActive = probabilities.subarray(2).reduce((sum, probability) => sum + probability, 0);
  return probabilities.map((probability) => (probability < NEGLIGIBLE * severalActive ? 0 : probability));
}

interface InputOptions {
  readonly device: Device;
  readonly features: number;
  /** About so many; as many for each set of active features, where all are gone through. */
  readonly rows: number;
  readonly random: RandomGenerator;
}

/**
 * Inputs with `active` features that are not 0, [about rows, features]. Few sets of few features get evenly spread points each,
 * whose error falls faster than that of random ones: multiples of square roots of primes modulo 1 (Richtmyer 1951),
 * shifted at random and folded, so that they are periodic (Hickernell 2002). Otherwise sets and values are random.
 */
async function inputsWithActive(
  active: number,
  { device, features, rows, random }: InputOptions,
): Promise<Float32Array> {
  if (active === 0) return new Float32Array(features);
  const sets = active <= PRIMES.length ? setsOf(features, active, MOST_SETS) : undefined;
  if (sets === undefined) {
    const inputs = new Float32Array(rows * features);
    const u = await uniform(device, random, [rows, 2 * active]);
    for (let row = 0; row < rows; row++) {
      const own = u.subarray(2 * active * row, 2 * active * (row + 1));
      const set = randomSet(features, own.subarray(0, active));
      for (const [place, feature] of set.entries()) inputs[row * features + feature] = own[active + place]!;
    }
    return inputs;
  }
  const points = Math.ceil(rows / sets.length);
  const inputs = new Float32Array(sets.length * points * features);
  const shifts = await uniform(device, random, [sets.length, active]);
  for (const [index, set] of sets.entries()) {
    for (let point = 0; point < points; point++) {
      const row = index * points + point;
      for (const [place, feature] of set.entries()) {
        const position = (shifts[index * active + place]! + point * Math.sqrt(PRIMES[place]!)) % 1;
        inputs[row * features + feature] = 1 - Math.abs(2 * position - 1);
      }
    }
  }
  return inputs;
}

/** All sets of `size` features, or undefined when there are more than `most`. */
function setsOf(features: number, size: number, most: number): readonly (readonly number[])[] | undefined {
  let sets: readonly (readonly number[])[] = [[]];
  for (let place = 0; place < size; place++) {
    sets = sets.flatMap((set) => {
      const [first, last] = [(set.at(-1) ?? -1) + 1, features - size + place];
      return Array.from({ length: last - first + 1 }, (_, offset) => [...set, first + offset]);
    });
    // Every set of fewer places is the beginning of at least one.
    if (sets.length > most) return undefined;
  }
  return sets;
}

/** As many of the features as there are numbers u, each uniform in [0, 1): the first steps of Fisher and Yates' shuffle. */
function randomSet(features: number, u: Float32Array): readonly number[] {
  const order = Array.from({ length: features }, (_, feature) => feature);
  for (const [place, value] of u.entries()) {
    const other = place + Math.floor(value * (features - place));
    [order[place], order[other]] = [order[other]!, order[place]!];
  }
  return order.slice(0, u.length);
}

async function uniform(
  device: Device,
  random: RandomGenerator,
  shape: readonly [number, number],
): Promise<Float32Array> {
  using tensor = device.empty(shape);
  random.uniform(tensor, 0, 1);
  return await tensor.readFloat32();
}

/** The mean over the inputs [rows, features] of the loss of each model. */
async function meanLosses(
  packs: readonly SuperpositionPack[],
  { device, features, inputs }: { device: Device; features: number; inputs: Float32Array },
): Promise<readonly number[]> {
  const rows = inputs.length / features;
  const models = Math.max(...packs.map((pack) => pack.models));
  const sums = packs.map((pack) => device.zeros([pack.models * features], "f64"));
  try {
    for (let first = 0; first < rows; first += BATCH) {
      const batch = inputs.subarray(first * features, (first + BATCH) * features);
      using own = device.tensor(batch, [batch.length / features, features]);
      using all = device.empty([own.shape[0]!, models * features]);
      for (let model = 0; model < models; model++) device.kernels.copyColumns(own, all, model * features);
      for (const [index, pack] of packs.entries()) {
        using x = device.kernels.sliceColumns(all, 0, pack.models * features);
        pack.addLosses(x, sums[index]!);
      }
    }
    const perFeature = (await Promise.all(sums.map((sum) => sum.read()))).flatMap((sum) => [...sum]);
    return Array.from({ length: perFeature.length / features }, (_, model) => {
      const own = perFeature.slice(model * features, (model + 1) * features);
      return own.reduce((total, loss) => total + loss, 0) / rows;
    });
  } finally {
    for (const sum of sums) sum.dispose();
  }
}
