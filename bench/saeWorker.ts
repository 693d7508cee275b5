/**
 * monosem's side of the side-by-side SAE benchmarks; the protocol and the variants are those of peers/torch_sae.py.
 * A training step is one step of the real Trainer: encode, decode, gradients, global-norm clipping, Adam.
 */
import { createInterface } from "node:readline";
import {
  type ActivationSource,
  Device,
  parseConfig,
  RandomGenerator,
  type SaeTrainingConfig,
  type SourceState,
  type Tensor,
  Trainer,
} from "monosem";

interface Setup {
  variant: "encode" | SaeTrainingConfig["architecture"];
  batch: number;
  dIn: number;
  dSae: number;
  k: number;
  density: number;
  threads: number;
}

/** The same batch again and again, each time that one more is permitted. */
class GatedBatch implements ActivationSource {
  readonly dIn: number;
  readonly #x: Tensor;
  #permit: (() => void) | undefined;
  #asked: (() => void) | undefined;

  constructor(x: Tensor) {
    this.dIn = x.shape[1]!;
    this.#x = x;
  }

  async next(): Promise<Tensor> {
    const permitted = new Promise<void>((resolve) => {
      this.#permit = resolve;
    });
    this.#asked?.();
    await permitted;
    return this.#x.device.kernels.scale(this.#x, 1);
  }

  /** Lets the trainer do one step, and waits until it asks for the next batch. */
  async step(): Promise<void> {
    const askedAgain = new Promise<void>((resolve) => {
      this.#asked = resolve;
    });
    this.#permit?.();
    await askedAgain;
  }

  saveState(): Promise<SourceState> {
    return Promise.resolve({ state: null, tensors: {} });
  }

  restoreState(): Promise<void> {
    return Promise.resolve();
  }

  dispose(): void {
    this.#x.dispose();
  }
}

/** Quantile of the standard normal distribution, by bisection of its series for the distribution function. */
function normalQuantile(probability: number): number {
  const cumulative = (z: number): number => {
    let term = z;
    let sum = z;
    for (let n = 1; n < 200; n++) {
      term *= (z * z) / (2 * n + 1);
      sum += term;
    }
    return 0.5 + sum * Math.exp((-z * z) / 2 - Math.log(2 * Math.PI) / 2);
  };
  let [low, high] = [-8, 8];
  while (high - low > 1e-9) {
    const middle = (low + high) / 2;
    if (cumulative(middle) < probability) low = middle;
    else high = middle;
  }
  return low;
}

/** The SAE of a variant; what is not said here are the defaults of a configuration file. */
function saeOptions({ variant, dIn, dSae, k, density }: Setup): object {
  const options: Readonly<Record<Exclude<Setup["variant"], "encode">, object>> = {
    relu: { l1Coefficient: 1e-3 },
    topk: { k },
    batchtopk: { k },
    matryoshka: { k, widths: [dSae / 16, dSae / 4] },
    gated: { l1Coefficient: 1e-3 },
    "soft-gated": { l1Coefficient: 1e-3 },
    jumprelu: { l0Coefficient: 1e-3, targetL0: density * dSae },
  };
  return {
    architecture: variant,
    dIn,
    dSae,
    decoderUnitNorm: false,
    deadAfterTokens: Number.MAX_SAFE_INTEGER,
    ...options[variant as keyof typeof options],
  };
}

async function build(setup: Setup): Promise<() => Promise<void>> {
  const { variant, batch, dIn, dSae, k, density, threads } = setup;
  const device = await Device.open("cpu", { threads });
  const { kernels } = device;
  const random = new RandomGenerator(0);
  const x = device.empty([batch, dIn]);
  random.normal(x);

  if (variant === "encode") {
    const encoder = device.empty([dSae, dIn]);
    random.normal(encoder, 1 / Math.sqrt(dIn));
    const bias = device.zeros([dSae]);
    return async () => {
      using _codes = kernels.encode(x, encoder, bias, { select: "topk", k });
      await device.synchronize();
    };
  }

  const source = new GatedBatch(x);
  const { sae, training } = parseConfig({
    sae: saeOptions(setup),
    data: { activations: "none" },
    training: {
      batchSize: batch,
      steps: Number.MAX_SAFE_INTEGER,
      lr: 1e-6,
      logEvery: Number.MAX_SAFE_INTEGER,
      checkpointEvery: Number.MAX_SAFE_INTEGER,
    },
    output: "none",
  });
  const trainer = await Trainer.create({ sae, training, source, device });

  // pre-activations are standard normal; the part `density` of them is above the quantile
  const quantile = normalQuantile(1 - density);
  const { encoder, encoderBias, gateBias, threshold } = trainer.sae.parameters;
  random.normal(encoder, 1 / Math.sqrt(dIn));
  if (variant === "relu") kernels.fill(encoderBias!, -quantile);
  if (variant === "gated") kernels.fill(gateBias!, -quantile);
  if (variant === "jumprelu") kernels.fill(threshold!, quantile);

  void trainer.run().next(); // runs up to its first request for a batch
  return async () => {
    await source.step();
    await device.synchronize();
  };
}

const importKiB = process.resourceUsage().maxRSS;
let work: () => Promise<void> = () => Promise.reject(new Error("run before setup"));
for await (const line of createInterface({ input: process.stdin })) {
  const command = JSON.parse(line) as { setup?: Setup; run?: number };
  let answer: object;
  if (command.setup) {
    work = await build(command.setup);
    answer = { ready: true };
  } else if (command.run !== undefined) {
    const wallMs: number[] = [];
    const cpuMs: number[] = [];
    for (let i = 0; i < command.run; i++) {
      const cpu = process.cpuUsage();
      const start = performance.now();
      await work();
      wallMs.push(performance.now() - start);
      const used = process.cpuUsage(cpu);
      cpuMs.push((used.user + used.system) / 1000);
    }
    answer = { wallMs, cpuMs };
  } else {
    answer = { peakMiB: process.resourceUsage().maxRSS / 1024, importMiB: importKiB / 1024 };
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
process.exit(0);
