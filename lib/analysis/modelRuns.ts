/** The runs of a model that an evaluation compares: untouched, and with activations replaced. */
import type { Device } from "../engine/device.js";
import type { Tensor } from "../engine/tensor.js";
import type { HookedTransformer, NamedHook } from "../models/hookedTransformer.js";
import type { EvaluationAccumulator } from "../sae/evaluation.js";
import type { Sae } from "../sae/sae.js";
import type { ContextBatch } from "./contextBatches.js";
import type { HookVarianceAccumulator } from "./hookVariance.js";
import type { SaeHooks } from "./saeHook.js";

/** Contexts of one length, and which of their tokens count. */
export class CountedBatch {
  readonly contexts: readonly Int32Array[];
  readonly positions: number;
  /** Rows of the activations, context after context, of the tokens that are not special. */
  readonly counted: Int32Array;
  /** Counted rows of each context. */
  readonly countedPerContext: readonly number[];
  /** Counted rows from which a token is predicted: all but those at the last position. */
  readonly predictions: number;

  constructor({ contexts, positions }: ContextBatch, special: ReadonlySet<number>) {
    this.contexts = contexts;
    this.positions = positions;
    const rows = contexts.map((tokens, context) =>
      Array.from(tokens.keys())
        .filter((position) => !special.has(tokens[position]!))
        .map((position) => context * positions + position),
    );
    this.counted = Int32Array.from(rows.flat());
    this.countedPerContext = rows.map(({ length }) => length);
    this.predictions = this.counted.filter((row) => this.predicts(row)).length;
  }

  get rows(): number {
    return this.contexts.length * this.positions;
  }

  predicts(row: number): boolean {
    return row % this.positions !== this.positions - 1;
  }
}

/** One number for each row of the batch. */
export interface RunLosses {
  /** Of the next token, in nats; 0 at the last position of each context. */
  readonly crossEntropy: Float32Array;
  /** KL(untouched || this run) of the next token's distribution, in nats. */
  readonly divergence: Float32Array;
}

/** What an SAE's reconstructions are added to. */
export interface SplicedMeasures {
  readonly evaluation: EvaluationAccumulator;
  /** Of a crosscoder. */
  readonly perHook: HookVarianceAccumulator | undefined;
}

export class ModelRuns {
  readonly #model: HookedTransformer;
  readonly #device: Device;
  readonly #batch: CountedBatch;
  readonly #signal: AbortSignal | undefined;
  /** The counted rows, i32 [counted]. */
  readonly #counted: Tensor;
  /** The next tokens, i32 [rows]; -1, which counts as no loss, at the last positions. */
  readonly #targets: Tensor;
  /** What the untouched model had at the hook points, [counted, width]. */
  readonly #activations: Map<string, Tensor> = new Map();
  /** [rows, vocabulary] */
  #cleanLogits: Tensor | undefined;

  private constructor(model: HookedTransformer, batch: CountedBatch, signal: AbortSignal | undefined) {
    this.#model = model;
    this.#device = model.device;
    this.#batch = batch;
    this.#signal = signal;
    this.#counted = model.device.tensor(batch.counted, [batch.counted.length]);
    const targets = new Int32Array(batch.rows).fill(-1);
    batch.contexts.forEach((context, index) => {
      targets.set(context.subarray(1), index * batch.positions);
    });
    this.#targets = model.device.tensor(targets, [batch.rows]);
  }

  /** Runs the untouched model, and keeps its activations at `hooks`. */
  static async start({
    model,
    batch,
    hooks,
    signal,
  }: {
    readonly model: HookedTransformer;
    readonly batch: CountedBatch;
    readonly hooks: readonly string[];
    readonly signal: AbortSignal | undefined;
  }): Promise<ModelRuns> {
    const runs = new ModelRuns(model, batch, signal);
    const keep = (activation: Tensor, name: string): void => {
      using rows = runs.#rowsOf(activation);
      runs.#activations.set(name, runs.#device.kernels.gatherRows(rows, runs.#counted));
    };
    try {
      runs.#cleanLogits = await runs.#logits(hooks.map((name) => ({ name, hook: keep })));
      return runs;
    } catch (error) {
      runs[Symbol.dispose]();
      throw error;
    }
  }

  async cleanCrossEntropy(): Promise<Float32Array> {
    using crossEntropy = this.#device.kernels.crossEntropy(this.#cleanLogits!, this.#targets);
    return await crossEntropy.readFloat32();
  }

  /** With the row [width] of each of `hooks` in place of every counted activation there. */
  async ablated(hooks: readonly string[], rows: ReadonlyMap<string, Float32Array>): Promise<RunLosses> {
    const replace = (activation: Tensor, name: string): Tensor => {
      const row = rows.get(name)!;
      using replacement = this.#device.tensor(row, [1, row.length]);
      return this.#replaced(activation, replacement, () => 0);
    };
    return await this.#losses(hooks.map((name) => ({ name, hook: replace })));
  }

  /** With the SAE's reconstructions in place of the counted activations; they are added to what measures them. */
  async spliced(sae: Sae, { input, output }: SaeHooks, { evaluation, perHook }: SplicedMeasures): Promise<RunLosses> {
    using x = this.#sideBySide(input);
    using target = this.#sideBySide(output);
    using codes = sae.encode(x);
    using reconstruction = sae.decode(codes, x);
    let column = 0;
    const hooks = output.map((name) => {
      const [from, width] = [column, this.#activations.get(name)!.shape[1]!];
      column += width;
      return {
        name,
        hook: (activation: Tensor) => {
          using part = this.#device.kernels.sliceColumns(reconstruction, from, width);
          return this.#replaced(activation, part, (index) => index);
        },
      };
    });
    const losses = await this.#losses(hooks);
    perHook?.add(target, reconstruction);
    await evaluation.add({ target, reconstruction, codes, promptRows: this.#batch.countedPerContext });
    return losses;
  }

  [Symbol.dispose](): void {
    for (const tensor of [this.#counted, this.#targets, this.#cleanLogits, ...this.#activations.values()]) {
      tensor?.dispose();
    }
  }

  /** The untouched activations, [counted, sum of the widths]. */
  #sideBySide(hooks: readonly string[]): Tensor {
    const parts = hooks.map((hook) => this.#activations.get(hook)!);
    const [first] = parts;
    if (parts.length === 1) return first!.reshape(first!.shape);
    return this.#device.kernels.concatenateColumns(parts);
  }

  /** The activation with row `place(i)` of `replacement` in place of the i-th counted row, and the others as they are. */
  #replaced(activation: Tensor, replacement: Tensor, place: (index: number) => number): Tensor {
    const { kernels } = this.#device;
    using rows = this.#rowsOf(activation);
    const count = replacement.shape[0]!;
    using table = this.#device.empty([count + this.#batch.rows, rows.shape[1]!]);
    kernels.copyRows(replacement, table, 0);
    kernels.copyRows(rows, table, count);
    const source = Int32Array.from({ length: this.#batch.rows }, (_, row) => count + row);
    this.#batch.counted.forEach((row, index) => {
      source[row] = place(index);
    });
    using sources = this.#device.tensor(source, [source.length]);
    using result = kernels.gatherRows(table, sources);
    return result.reshape(activation.shape);
  }

  async #losses(hooks: readonly NamedHook[]): Promise<RunLosses> {
    const { kernels } = this.#device;
    using logits = await this.#logits(hooks);
    using crossEntropy = kernels.crossEntropy(logits, this.#targets);
    using divergence = kernels.klDivergence(this.#cleanLogits!, logits);
    const [crossEntropies, divergences] = await Promise.all([crossEntropy.readFloat32(), divergence.readFloat32()]);
    return { crossEntropy: crossEntropies, divergence: divergences };
  }

  /** [rows, vocabulary] */
  async #logits(hooks: readonly NamedHook[]): Promise<Tensor> {
    const signal = this.#signal;
    using logits = await this.#model.forward(this.#batch.contexts, {
      hooks,
      ...(signal === undefined ? {} : { signal }),
    });
    return logits.reshape([this.#batch.rows, this.#model.config.vocabularySize]);
  }

  /** [rows, width] of an activation [batch, positions, ...]. */
  #rowsOf(activation: Tensor): Tensor {
    return activation.reshape([this.#batch.rows, activation.size / this.#batch.rows]);
  }
}
