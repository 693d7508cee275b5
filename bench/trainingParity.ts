/**
 * Trains a small SAE of every architecture on a GPU and on the CPU, from the same seeds on the same activations, and tells
 * how far losses and parameters come apart; exits with 1 where that is too far.
 *
 *     npm run check:gpu-training -- [--device cuda:0] [--steps 200]
 *
 * Both sides compute in float32 but round differently, and training amplifies that: a latent near the cut of top-k is
 * selected on one side alone, and Adam turns a gradient of any size into a step of the same size. How much, the CPU says
 * itself: it trains three times more with every activation changed by one unit in its last place, and may come apart from
 * its first run so far. The GPU, which rounds differently in every sum and not in the activations alone, may be ten times
 * as far away as the farthest of these; or as far as a few selections that fall the other way, which these runs need not
 * meet, can bring it: one moves the rows of two latents of 128, and their biases, by at most the learning rate in every
 * coordinate, a relative change of 6e-4 of the weights and about 2e-3 of a bias vector.
 *
 * Prints a JSON object a line; on standard error what it is about.
 */
import { parseArgs } from "node:util";
import {
  type ActivationSource,
  type ArchitectureName,
  architectureNames,
  Device,
  type DeviceName,
  parseConfig,
  type SourceState,
  type Tensor,
  Trainer,
} from "monosem";

const { values: options } = parseArgs({
  options: { device: { type: "string", default: "cuda:0" }, steps: { type: "string", default: "200" } },
});
const steps = Number(options.steps);
const batchSize = 64;
const dIn = 24;
const dSae = 128;
const margin = 10;
const leastTolerance: Distance = { losses: 1e-4, parameters: 4e-3 };

const saeOptions: Readonly<Record<ArchitectureName, object>> = {
  relu: { l1Coefficient: 1 },
  topk: { k: 6, auxK: 8, deadAfterTokens: 10 * batchSize },
  batchtopk: { k: 6, auxK: 8, deadAfterTokens: 10 * batchSize },
  matryoshka: { k: 6, widths: [16, 48], auxK: 8, deadAfterTokens: 10 * batchSize },
  gated: { l1Coefficient: 1 },
  "soft-gated": { l1Coefficient: 1 },
  jumprelu: { l0Coefficient: 1, targetL0: 6, bandwidth: 0.5, initialThreshold: 0.5 },
};

/** Uniform in [0, 1), the same on every machine. */
function generator(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

/** Sums of a few of 64 directions, batch after batch. */
function makeActivations(): Float32Array {
  const random = generator(1);
  const features = 64;
  const directions = Float64Array.from({ length: features * dIn }, () => random() + random() + random() - 1.5);
  const activations = new Float32Array(steps * batchSize * dIn);
  for (let token = 0; token < steps * batchSize; token++) {
    for (let active = 0; active < 5; active++) {
      const feature = Math.floor(random() ** 2 * features);
      const magnitude = 0.5 + random();
      for (let i = 0; i < dIn; i++) activations[token * dIn + i]! += magnitude * directions[feature * dIn + i]!;
    }
  }
  return activations;
}

/** Every number one unit in the last place up or down, or as it is. */
function perturbed(activations: Float32Array, seed: number): Float32Array {
  const random = generator(seed);
  const copy = activations.slice();
  const words = new Int32Array(copy.buffer);
  for (let i = 0; i < words.length; i++) if (copy[i] !== 0) words[i]! += Math.floor(random() * 3) - 1;
  return copy;
}

/** Consecutive rows of an array. */
class Rows implements ActivationSource {
  readonly dIn = dIn;
  readonly #activations: Float32Array;
  readonly #device: Device;
  #position = 0;

  constructor(activations: Float32Array, device: Device) {
    this.#activations = activations;
    this.#device = device;
  }

  next(rows: number): Promise<Tensor> {
    const batch = this.#activations.slice(this.#position * dIn, (this.#position + rows) * dIn);
    this.#position += rows;
    return Promise.resolve(this.#device.tensor(batch, [rows, dIn]));
  }

  saveState(): Promise<SourceState> {
    return Promise.resolve({ state: null, tensors: {} });
  }

  restoreState(): Promise<void> {
    return Promise.resolve();
  }

  dispose(): void {}
}

interface Run {
  /** By step and name, as they were logged. */
  readonly losses: readonly number[];
  readonly parameters: ReadonlyMap<string, Float32Array>;
}

async function train(architecture: ArchitectureName, activations: Float32Array, device: Device): Promise<Run> {
  const { sae, training } = parseConfig({
    sae: { architecture, dIn, dSae, ...saeOptions[architecture] },
    data: { activations: "none" },
    training: { batchSize, steps, lr: 1e-3, logEvery: 5, checkpointEvery: Number.MAX_SAFE_INTEGER },
    output: "none",
  });
  using trainer = await Trainer.create({ sae, training, source: new Rows(activations, device), device });
  const losses: number[] = [];
  for await (const progress of trainer.run()) losses.push(progress.loss);
  using trained = trainer.sae;
  const parameters = new Map<string, Float32Array>();
  for (const [name, tensor] of Object.entries(trained.parameters)) parameters.set(name, await tensor!.readFloat32());
  return { losses, parameters };
}

interface Distance {
  /** The largest relative difference of a logged loss. */
  readonly losses: number;
  /** Of every parameter the norm of the difference over its own; the largest. */
  readonly parameters: number;
}

function distance(run: Run, reference: Run): Distance {
  const norm = (values: Iterable<number>): number => {
    let squares = 0;
    for (const value of values) squares += value * value;
    return Math.sqrt(squares);
  };
  const ofParameters = [...reference.parameters].map(([name, expected]) => {
    const difference = norm(run.parameters.get(name)!.map((value, i) => value - expected[i]!));
    return difference === 0 ? 0 : difference / norm(expected);
  });
  const ofLosses = reference.losses.map((expected, i) => Math.abs(run.losses[i]! - expected) / Math.abs(expected));
  return { losses: Math.max(...ofLosses), parameters: Math.max(...ofParameters) };
}

const cpu = await Device.open("cpu", { threads: 2 });
const gpu = await Device.open(options.device as DeviceName);
process.stderr.write(`${gpu.description} beside ${cpu.description}, ${steps} steps\n`);
const activations = makeActivations();
let failed = false;
for (const architecture of architectureNames) {
  const reference = await train(architecture, activations, cpu);
  const own: Distance[] = [];
  for (const seed of [1, 2, 3]) {
    own.push(distance(await train(architecture, perturbed(activations, seed), cpu), reference));
  }
  const found = distance(await train(architecture, activations, gpu), reference);
  const allowed = (kind: keyof Distance): number =>
    Math.max(leastTolerance[kind], margin * Math.max(...own.map((each) => each[kind])));
  const tolerance: Distance = { losses: allowed("losses"), parameters: allowed("parameters") };
  // NaN passes neither
  const passed = found.losses <= tolerance.losses && found.parameters <= tolerance.parameters;
  failed ||= !passed;
  process.stdout.write(`${JSON.stringify({ case: "training", architecture, steps, found, tolerance, passed })}\n`);
}
await gpu.close();
await cpu.close();
process.exitCode = failed ? 1 : 0;
