import type { Device } from "../engine/device.js";
import type { AdamStep, Moments } from "../engine/kernels.js";
import type { RandomGenerator } from "../engine/random.js";
import type { Tensor } from "../engine/tensor.js";
import type { SuperpositionShape, SuperpositionTask } from "./superpositionModel.js";

/** What one model of a pack is trained on. */
export interface PackTask extends SuperpositionTask {
  /**
   * In [0, 1): the sparsity of the inputs that the model is trained on; the loss of an input is multiplied by how much
   * likelier it is at the true sparsity. Default: the true one.
   */
  readonly drawnSparsity?: number | undefined;
}

/** The gradient of a pack's parameters; the caller's to dispose. */
export interface PackGradients extends Disposable {
  /** [models * features, models * dimensions], 0 outside of the models' blocks */
  readonly weights: Tensor;
  /** [models * features] */
  readonly bias: Tensor;
}

/** A model's parameters, copied from the device: [features, dimensions] and [features]. */
export interface PackedParameters {
  readonly weights: Float32Array;
  readonly bias: Float32Array;
}

/**
 * Of an input with k active features, P(k) at the true sparsity divided by P(k) at the drawn one:
 * exp(logOfNone + k logOfActive).
 */
interface LikelihoodRatio {
  /** [models * features, models * features], its logarithm in the models' blocks, 0 outside of them */
  readonly logOfActive: Tensor;
  /** [models * features] */
  readonly logOfNone: Tensor;
}

/** The forward pass of a batch. */
interface PackForward extends Disposable {
  /** x W, [batch, models * dimensions] */
  readonly hidden: Tensor;
  /** x̂, [batch, models * features] */
  readonly output: Tensor;
  /** x̂ - x */
  readonly error: Tensor;
  /** I ⊙ (x̂ - x) */
  readonly weightedError: Tensor;
  /** Wᵀ, [models * dimensions, models * features] */
  readonly transposed: Tensor;
}

/**
 * Toy models of one shape side by side, as one model whose matrix is block diagonal: model g has the features
 * g n ... g n + n - 1 and the dimensions g m ... g m + m - 1 of the pack. One model alone is far too small to keep a
 * device busy; multiplying the zeros between the blocks costs less than a call per model.
 */
export class SuperpositionPack {
  readonly models: number;
  /** [models * features, models * dimensions]; row i is W_i. */
  readonly weights: Tensor;
  /** [models * features] */
  readonly bias: Tensor;
  readonly #device: Device;
  readonly #shape: SuperpositionShape;
  /** 1 in the models' blocks, 0 between them, of the shape of the weights. */
  readonly #blocks: Tensor;
  readonly #weightMoments: Moments;
  readonly #biasMoments: Moments;
  /** [models * features]: -S of each feature as drawn, 1 / (1 - S), and I. */
  readonly #minusSparsity: Tensor;
  readonly #spread: Tensor;
  readonly #importance: Tensor;
  /** Undefined when all models are trained on inputs as they occur. */
  readonly #likelihoodRatio: LikelihoodRatio | undefined;

  /** Weights are drawn as torch.nn.init.xavier_normal_ draws those of one model; biases are 0. */
  constructor(device: Device, shape: SuperpositionShape, tasks: readonly PackTask[], random: RandomGenerator) {
    const { features, dimensions } = shape;
    const [rows, columns] = [tasks.length * features, tasks.length * dimensions];
    const perFeature = (value: (task: PackTask, feature: number) => number): Tensor =>
      device.tensor(Float32Array.from(tasks.flatMap((task) => range(features).map((i) => value(task, i)))), [rows]);
    this.models = tasks.length;
    this.#device = device;
    this.#shape = shape;
    this.#minusSparsity = perFeature((task) => -drawn(task));
    this.#spread = perFeature((task) => 1 / (1 - drawn(task)));
    this.#importance = perFeature(({ importance }, i) => importance[i]!);
    this.#blocks = device.tensor(
      Float32Array.from({ length: rows * columns }, (_, index) =>
        Math.floor(index / columns / features) === Math.floor((index % columns) / dimensions) ? 1 : 0,
      ),
      [rows, columns],
    );
    this.weights = device.empty([rows, columns]);
    random.normal(this.weights, Math.sqrt(2 / (features + dimensions)));
    device.kernels.multiply(this.weights, this.#blocks, { out: this.weights });
    this.bias = device.zeros([rows]);
    if (tasks.some((task) => drawn(task) !== task.sparsity)) {
      this.#likelihoodRatio = {
        logOfActive: device.tensor(
          Float32Array.from({ length: rows * rows }, (_, index) => {
            const [model, other] = [Math.floor(index / rows / features), Math.floor((index % rows) / features)];
            return model === other ? logOfOneActive(tasks[model]!) : 0;
          }),
          [rows, rows],
        ),
        logOfNone: perFeature((task) => features * logOfInactive(task)),
      };
    }
    this.#weightMoments = { m: device.zeros([rows, columns]), v: device.zeros([rows, columns]) };
    this.#biasMoments = { m: device.zeros([rows]), v: device.zeros([rows]) };
  }

  /**
   * Inputs x, [batch, models * features], the caller's to dispose, from u [batch, at least as many], uniform in [0, 1):
   * max(u - S, 0) / (1 - S) is 0 with probability S and else uniform in [0, 1).
   */
  inputs(u: Tensor): Tensor {
    const { kernels } = this.#device;
    using shifted = kernels.sliceColumns(u, 0, this.bias.size);
    kernels.addRow(shifted, this.#minusSparsity, { out: shifted });
    using positive = kernels.activation(shifted, "relu");
    return kernels.scaleColumns(positive, this.#spread);
  }

  /**
   * The gradient of the sum of the models' losses, each (1 / batch) sum over inputs and features of w I_i (x̂_i - x_i)²,
   * where w is the input's likelihood at the true sparsity divided by that at the drawn one, 1 where these are the same.
   * To `loss` (f64 [1]) that sum times the batch is added. With h = x W and z = h Wᵀ + b:
   *
   *     dz = 2 / batch * w I ⊙ (x̂ - x) ⊙ [x̂ > 0]      (without the last factor in the linear model)
   *     db = sum over inputs of dz
   *     dW = dzᵀ h + xᵀ (dz W)
   */
  gradients(x: Tensor, loss?: Tensor): PackGradients {
    const { kernels } = this.#device;
    using forward = this.#forward(x);
    this.#weightByLikelihood(forward.weightedError, x);
    if (loss !== undefined) kernels.dot(forward.error, forward.weightedError, loss);
    using dz = kernels.scale(forward.weightedError, 2 / x.shape[0]!);
    if (this.#shape.output === "relu") {
      using open = kernels.activation(forward.output, "heaviside");
      kernels.multiply(dz, open, { out: dz });
    }
    using dHidden = kernels.linear(dz, forward.transposed);

    // Sums over inputs are products whose last dimension is the batch.
    using xT = kernels.transpose(x);
    using dzT = kernels.transpose(dz);
    using hiddenT = kernels.transpose(forward.hidden);
    using dHiddenT = kernels.transpose(dHidden);
    using throughDecoder = kernels.linear(dzT, hiddenT);
    const weights = kernels.linear(xT, dHiddenT, { residual: throughDecoder });
    kernels.multiply(weights, this.#blocks, { out: weights });
    return disposable({ weights, bias: kernels.columnSums(dz) });
  }

  /** One step of torch.optim.AdamW: parameters decay by learningRate * weightDecay of themselves, then Adam. */
  step(gradients: PackGradients, adam: AdamStep, weightDecay: number): void {
    const { kernels } = this.#device;
    const kept = 1 - adam.learningRate * weightDecay;
    kernels.scale(this.weights, kept, { out: this.weights });
    kernels.scale(this.bias, kept, { out: this.bias });
    kernels.stepVector(gradients.weights, this.weights, this.#weightMoments, adam);
    kernels.stepVector(gradients.bias, this.bias, this.#biasMoments, adam);
  }

  /** Adds the sums over the inputs x of I_i (x̂_i - x_i)² to `sums`, f64 [models * features]. */
  addLosses(x: Tensor, sums: Tensor): void {
    const { kernels } = this.#device;
    using forward = this.#forward(x);
    using losses = kernels.multiply(forward.error, forward.weightedError);
    kernels.accumulateColumnSums(losses, sums);
  }

  /** The parameters of each model. */
  async read(): Promise<readonly PackedParameters[]> {
    const { features, dimensions } = this.#shape;
    const [weights, bias] = [await this.weights.readFloat32(), await this.bias.readFloat32()];
    const columns = this.models * dimensions;
    return range(this.models).map((model) => ({
      weights: Float32Array.from({ length: features * dimensions }, (_, index) => {
        const row = model * features + Math.floor(index / dimensions);
        return weights[row * columns + model * dimensions + (index % dimensions)]!;
      }),
      bias: bias.slice(model * features, (model + 1) * features),
    }));
  }

  dispose(): void {
    for (const tensor of [this.weights, this.bias, this.#blocks, this.#minusSparsity, this.#spread, this.#importance]) {
      tensor.dispose();
    }
    if (this.#likelihoodRatio !== undefined) {
      this.#likelihoodRatio.logOfActive.dispose();
      this.#likelihoodRatio.logOfNone.dispose();
    }
    for (const { m, v } of [this.#weightMoments, this.#biasMoments]) {
      m.dispose();
      v.dispose();
    }
  }

  #weightByLikelihood(errors: Tensor, x: Tensor): void {
    if (this.#likelihoodRatio === undefined) return;
    const { kernels } = this.#device;
    const { logOfActive, logOfNone } = this.#likelihoodRatio;
    using active = kernels.activation(x, "heaviside");
    using ratios = kernels.linear(active, logOfActive, { bias: logOfNone, activation: "exp" });
    kernels.multiply(errors, ratios, { out: errors });
  }

  #forward(x: Tensor): PackForward {
    const { kernels } = this.#device;
    const transposed = kernels.transpose(this.weights);
    const hidden = kernels.linear(x, transposed);
    const activation = this.#shape.output === "relu" ? "relu" : "none";
    const output = kernels.linear(hidden, this.weights, { bias: this.bias, activation });
    const error = kernels.add(output, x, { scale: -1 });
    const weightedError = kernels.scaleColumns(error, this.#importance);
    return disposable({ hidden, output, error, weightedError, transposed });
  }
}

function drawn({ sparsity, drawnSparsity = sparsity }: PackTask): number {
  return drawnSparsity;
}

/** The logarithm of the likelihood ratio of a feature that is 0. */
function logOfInactive(task: PackTask): number {
  return drawn(task) === task.sparsity ? 0 : Math.log(task.sparsity / drawn(task));
}

/** What an active feature adds to the logarithm of the likelihood ratio of one that is 0. */
function logOfOneActive(task: PackTask): number {
  return Math.log((1 - task.sparsity) / (1 - drawn(task))) - logOfInactive(task);
}

function disposable<Tensors extends Readonly<Record<string, Tensor>>>(tensors: Tensors): Tensors & Disposable {
  const dispose = (): void => {
    for (const tensor of Object.values(tensors)) tensor.dispose();
  };
  return { ...tensors, [Symbol.dispose]: dispose };
}

function range(length: number): readonly number[] {
  return Array.from({ length }, (_, index) => index);
}
