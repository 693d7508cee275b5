/** One SAE in training: its parameters, optimizer, dead latents and running state, and the step that changes them. */
import type { FeatureSet } from "../engine/codes.js";
import type { Device } from "../engine/device.js";
import type { Tensor } from "../engine/tensor.js";
import { MonosemError } from "../errors.js";
import type { ConfiguredTraining, GradientStep, Gradients, Loss, SaeParameters } from "../sae/architecture.js";
import { architectureNamed } from "../sae/architectures.js";
import { parseSaeConfig, type SaeTrainingConfig, trainingOf } from "../sae/config.js";
import { geometricMedian } from "../sae/geometricMedian.js";
import { parameterGradients } from "../sae/gradients.js";
import { type Metrics, MetricsAccumulator } from "../sae/metrics.js";
import { type ParameterLayout, parameterLayout } from "../sae/parameterLayout.js";
import { Sae, type SaeMetadata } from "../sae/sae.js";
import type { CheckpointArray } from "./checkpoint.js";
import { DeadLatents } from "./deadLatents.js";
import { pickColumns, type SaeColumns } from "./hookColumns.js";
import { type InputScales, InputScaling } from "./inputScaling.js";
import type { InputStatistics } from "./inputStatistics.js";
import { type AdamOptions, Optimizer } from "./optimizer.js";
import { isResampled, resampleDeadLatents } from "./resampling.js";
import { Scope } from "./scope.js";

export interface SaeTrainingOptions {
  readonly config: SaeTrainingConfig;
  /** What messages call it. */
  readonly path: string;
  readonly columns: SaeColumns;
  readonly adam: AdamOptions;
  /** Of the run. */
  readonly steps: number;
  /** Of the initial weights and of whatever the training draws. */
  readonly seed: number;
  readonly metadata: SaeMetadata | undefined;
  readonly device: Device;
}

/** Where in the run a step is. */
export interface StepPlace {
  /** Steps finished before it. */
  readonly step: number;
  readonly learningRate: number;
  /** Factor of the sparsity coefficients, from their warm-up. */
  readonly sparsityScale: number;
  /** Whether its measures are wanted. */
  readonly logged: boolean;
}

/** The measures of one step. All of them are about that step's batch. */
export interface StepMeasures {
  /** The sum of `losses`. They are summed over dOut and averaged over tokens, in the scale that the SAE is trained in. */
  readonly loss: number;
  readonly losses: Readonly<Record<string, number>>;
  readonly l0: number;
  /** In the scale of the activations themselves, as `evaluate` gives it. */
  readonly mse: number;
  readonly fvu: number;
  readonly explainedVariance: number;
  readonly cosine: number;
  /** Fraction of the latents that have not fired for `deadAfterTokens` tokens. */
  readonly deadFraction: number;
  readonly densityHistogram: Metrics["densityHistogram"];
  /** Global L2 norm of the gradient before clipping. */
  readonly gradientNorm: number;
}

/** What a checkpoint holds of it. */
export interface SaeTrainingState {
  readonly arrays: Readonly<Record<string, CheckpointArray>>;
  readonly inputScales: InputScales;
}

export class SaeTraining {
  /** In the scale of the activations once `finish` was called, in the scaled one (if any) until then. */
  readonly sae: Sae;
  readonly config: SaeTrainingConfig;
  readonly #options: SaeTrainingOptions;
  readonly #architecture: ConfiguredTraining;
  readonly #optimizer: Optimizer;
  readonly #scaling: InputScaling;
  readonly #state: Readonly<Record<string, Tensor>>;
  #dead: DeadLatents;

  private constructor(options: SaeTrainingOptions, sae: Sae, scales: InputScales) {
    const { config, columns, adam, steps, device } = options;
    this.sae = sae;
    this.config = config;
    this.#options = options;
    this.#architecture = trainingOf(config, steps);
    const trained = parameterLayout(sae.config).filter((parameter) => parameter.trained);
    this.#optimizer = new Optimizer(
      sae.parameters,
      trained.map(({ name }) => name),
      device,
      { ...adam, decoderUnitNorm: config.decoderUnitNorm },
    );
    this.#scaling = new InputScaling(config, scales, columns, device);
    this.#state = Object.fromEntries(
      Object.entries(architectureNamed(config.architecture).state).map(([name, size]) => [
        name,
        device.zeros([size], "f64"),
      ]),
    );
    this.#dead = new DeadLatents(device, config.dSae, config.deadAfterTokens);
  }

  /**
   * A new SAE, or `config.init`.
   *
   * @param statistics needed where the configuration asks for input scaling or the geometric median
   * @throws MonosemError those of `Sae.load` for `init`, ERR_CONFIG when that SAE is another than the configuration's.
   */
  static async begin(options: SaeTrainingOptions, statistics: InputStatistics | undefined): Promise<SaeTraining> {
    const { config, columns, seed, metadata, device } = options;
    const scales =
      config.normalizeActivations === "expected-average-only-in"
        ? expectedAverageScales(columns, statistics!)
        : unitScales(columns);
    if (config.init !== undefined) {
      const sae = await initialSae(config.init, options);
      const inverse = (factors: readonly number[]): number[] => factors.map((factor) => 1 / factor);
      sae.foldInputScale(inverse(scales.input), inverse(scales.output)); // a saved SAE is in the activations' scale
      return new SaeTraining(options, sae, scales);
    }
    const sae = Sae.create(config, device, seed, {
      ...(config.decoderUnitNorm ? { decoderNorm: 1 } : {}),
      ...(metadata === undefined ? {} : { metadata }),
    });
    const training = new SaeTraining(options, sae, scales);
    if (config.bDecInit === "geometric-median") await training.#centre(statistics!.sample!);
    return training;
  }

  /** Continues from a checkpoint's state. */
  static resume(options: SaeTrainingOptions, state: SaeTrainingState, tokensSeen: number): SaeTraining {
    const { config, metadata, device } = options;
    const parsed = parseSaeConfig(config);
    const parameters = parameterLayout(parsed).map(({ name, shape }) => [name, device.empty(shape)]);
    const sae = new Sae(parsed, Object.fromEntries(parameters) as SaeParameters, device, metadata);
    const training = new SaeTraining(options, sae, state.inputScales);
    training.restore(state, tokensSeen);
    return training;
  }

  /** Takes over everything that a checkpoint holds. */
  restore({ arrays }: SaeTrainingState, tokensSeen: number): void {
    const { device, config } = this.#options;
    for (const { name } of this.#layout()) this.sae.parameters[name]!.write(arrayNamed(arrays, name));
    for (const [name, { m, v }] of this.#optimizer.moments) {
      m.write(arrayNamed(arrays, `${name}.m`));
      v.write(arrayNamed(arrays, `${name}.v`));
    }
    for (const [name, tensor] of Object.entries(this.#state)) tensor.write(arrayNamed(arrays, `state.${name}`));
    this.#dead.dispose();
    this.#dead = new DeadLatents(device, config.dSae, config.deadAfterTokens, {
      data: arrayNamed(arrays, "tokensSinceFired") as Float64Array,
      tokensSeen,
    });
  }

  /**
   * Everything that continues the training, read from the device.
   *
   * @throws MonosemError ERR_NON_FINITE naming the array that holds NaN or infinity.
   */
  async save(): Promise<SaeTrainingState> {
    const tensors: Record<string, Tensor> = {};
    for (const { name } of this.#layout()) tensors[name] = this.sae.parameters[name]!;
    for (const [name, { m, v }] of this.#optimizer.moments) {
      tensors[`${name}.m`] = m;
      tensors[`${name}.v`] = v;
    }
    for (const [name, tensor] of Object.entries(this.#state)) tensors[`state.${name}`] = tensor;
    tensors.tokensSinceFired = this.#dead.tokensSinceFired;
    const arrays: Record<string, CheckpointArray> = {};
    for (const [name, tensor] of Object.entries(tensors)) {
      const data = (await tensor.read()) as Float32Array | Float64Array;
      if (!data.every(Number.isFinite)) {
        throw new MonosemError("ERR_NON_FINITE", `${name} holds NaN or infinity`);
      }
      arrays[name] = { shape: tensor.shape, data };
    }
    return { arrays, inputScales: this.#scaling.scales };
  }

  /**
   * Queues one step on a batch of the source; resolves at once, or with what was measured when the step is logged.
   *
   * @throws MonosemError ERR_NON_FINITE when a logged step's activations, loss or gradient are not finite.
   */
  async step(batch: Tensor, place: StepPlace): Promise<StepMeasures | undefined> {
    const { device, columns, config, adam } = this.#options;
    using scope = new Scope();
    const keep = scope.keep.bind(scope);

    const y = pickColumns(batch, columns.target, device, keep);
    const x = config.transcoder ? pickColumns(batch, columns.input, device, keep) : y;
    if (isResampled(config, place.step)) await this.#resample(this.#forward(x, y, place, keep));
    const step = this.#forward(x, y, place, keep);
    this.#dead.record(step.codes);
    let dead: FeatureSet | undefined;
    const deadLatents = (): FeatureSet | undefined => {
      if (dead === undefined) {
        dead = this.#dead.current();
        if (dead !== undefined) keep(dead);
      }
      return dead;
    };

    const gradientStep: GradientStep = { ...step, deadLatents };
    const gradients = this.#architecture.gradients(gradientStep);
    const rows = parameterGradients(gradientStep, gradients, config.applyBDecToInput);
    const norm = adam.clipGradNorm !== null || place.logged ? keep(this.#optimizer.norm(rows)) : undefined;
    this.#optimizer.step(rows, { norm, guard: norm?.squared ?? lossesTogether(step, gradients), ...place });
    this.#architecture.afterStep(gradientStep);
    if (!place.logged || norm === undefined) return undefined;

    using metrics = new MetricsAccumulator(device, step.target.shape[1]!, config.dSae);
    metrics.add(y, this.#scaling.unscaleError(gradients.residual, y, keep), step.codes);
    const losses = await readLosses(gradients);
    const loss = Object.values(losses).reduce((sum, value) => sum + value, 0);
    if (!Number.isFinite(loss)) throw new MonosemError("ERR_NON_FINITE", `the loss is ${JSON.stringify(losses)}`);
    const { tokens: _, deadFraction: __, ...rest } = await metrics.read();
    const deadCount = (await deadLatents()?.read())?.length ?? 0;
    const gradientNorm = Math.sqrt(await norm.squared.readScalar());
    return { loss, losses, ...rest, deadFraction: deadCount / config.dSae, gradientNorm };
  }

  /** From here on the SAE is in the scale of the activations. */
  finish(): void {
    const { input, output } = this.#scaling.scales;
    if ([...input, ...output].some((scale) => scale !== 1)) this.sae.foldInputScale(input, output);
  }

  /** Frees everything but the SAE, which is for its user to dispose. */
  dispose(): void {
    this.#optimizer.dispose();
    this.#dead.dispose();
    this.#scaling.dispose();
    for (const tensor of Object.values(this.#state)) tensor.dispose();
  }

  #forward(
    x: Tensor,
    y: Tensor,
    { step, sparsityScale }: StepPlace,
    keep: GradientStep["keep"],
  ): Omit<GradientStep, "deadLatents"> {
    const { device, config } = this.#options;
    const { kernels } = device;
    const { parameters } = this.sae;
    const scaled = this.#scaling.scaleInput(x, keep);
    const scaledTarget = config.transcoder ? this.#scaling.scaleTarget(y, keep) : scaled;
    const input = config.applyBDecToInput
      ? keep(kernels.addRow(scaled, parameters.decoderBias, { scale: -1 }))
      : scaled;
    let target = scaledTarget;
    if (parameters.skip !== undefined) {
      const skipped = keep(kernels.linear(scaled, parameters.skip));
      target = keep(kernels.add(scaledTarget, skipped, { scale: -1 }));
    }
    const trainingStep = {
      device,
      kernels,
      parameters,
      input,
      target,
      tokens: x.shape[0]!,
      step,
      decoderUnitNorm: config.decoderUnitNorm,
      hookWidths: config.hookWidths,
      sparsityScale,
      state: this.#state,
      keep,
    };
    const encoded = this.#architecture.encode(trainingStep);
    return { ...trainingStep, encoded, codes: encoded.codes };
  }

  async #resample(step: Omit<GradientStep, "deadLatents">): Promise<void> {
    const { config, seed } = this.#options;
    const { kernels, parameters, codes, target } = step;
    const residual = step.keep(kernels.decode(codes, parameters.decoder, { bias: parameters.decoderBias, target }));
    const { moments } = this.#optimizer;
    await resampleDeadLatents({ ...step, residual }, { config, moments, dead: this.#dead, seed });
  }

  /** The geometric median of the targets as decoder bias. */
  async #centre(sample: Tensor): Promise<void> {
    const { device, columns } = this.#options;
    using scope = new Scope();
    const keep = scope.keep.bind(scope);
    const targets = this.#scaling.scaleTarget(pickColumns(sample, columns.target, device, keep), keep);
    const median = keep(await geometricMedian(targets, device));
    device.kernels.scale(median, 1, { out: this.sae.parameters.decoderBias });
  }

  #layout(): readonly ParameterLayout[] {
    return parameterLayout(this.sae.config);
  }
}

function unitScales({ input, target }: SaeColumns): InputScales {
  return { input: input.map(() => 1), output: target.map(() => 1) };
}

/** sqrt(width) / E|x| of every hook by itself. */
function expectedAverageScales({ input, target }: SaeColumns, { meanNorm }: InputStatistics): InputScales {
  const scale = (columns: SaeColumns["input"][number]): number => Math.sqrt(columns.width) / meanNorm(columns);
  return { input: input.map(scale), output: target.map(scale) };
}

async function initialSae(directory: string, { config, path, device, metadata }: SaeTrainingOptions): Promise<Sae> {
  const loaded = await Sae.load(directory, device);
  const wanted = parseSaeConfig(config);
  const { saved } = architectureNamed(config.architecture);
  const architecture = "as" in saved ? saved.as : config.architecture;
  for (const key of [
    "architecture",
    "dIn",
    "dSae",
    "dOut",
    "transcoder",
    "skip",
    "applyBDecToInput",
    "normalizeActivations",
  ] as const) {
    const expected = key === "architecture" ? architecture : wanted[key];
    if (loaded.config[key] !== expected) {
      loaded.dispose();
      throw new MonosemError(
        "ERR_CONFIG",
        `${path}.init: the SAE in ${directory} has ${key} ${loaded.config[key]}, but ${path}.${key} is ${expected}`,
      );
    }
  }
  return new Sae(wanted, loaded.parameters, device, metadata ?? loaded.metadata);
}

/** f64 [1] that is finite as long as every loss is: without clipping nobody takes the gradient's norm. */
function lossesTogether(
  { kernels, device, keep }: Pick<GradientStep, "kernels" | "device" | "keep">,
  gradients: Gradients,
): Tensor {
  const together = keep(device.zeros([1], "f64"));
  for (const { sum } of Object.values(gradients.losses)) kernels.sum(keep(kernels.toFloat32(sum)), together);
  return together;
}

async function readLosses({ losses }: Gradients): Promise<Record<string, number>> {
  const values = await Promise.all(Object.values(losses).map(readLoss));
  return Object.fromEntries(Object.keys(losses).map((name, i) => [name, values[i]!]));
}

async function readLoss({ sum, scale, latents }: Loss): Promise<number> {
  if (latents !== undefined && (await latents.read()).length === 0) return 0;
  return scale * (await sum.readScalar());
}

function arrayNamed(arrays: SaeTrainingState["arrays"], name: string): CheckpointArray["data"] {
  const array = arrays[name];
  if (array === undefined) throw new MonosemError("ERR_FORMAT", `the checkpoint lacks ${name}`);
  return array.data;
}
