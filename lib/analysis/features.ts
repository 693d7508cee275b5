import { MonosemError } from "../errors.js";
import type { HookedTransformer } from "../models/hookedTransformer.js";
import { type Metrics, MetricsAccumulator } from "../sae/metrics.js";
import type { Sae } from "../sae/sae.js";
import { ActivationHistogram, type Histogram } from "./activationHistogram.js";
import { type Contexts, contextBatches } from "./contextBatches.js";
import { checkContexts, type PairingOptions } from "./pairing.js";
import { type HookChoice, hooksForSae } from "./saeHook.js";

/**
 * A stretch of text on which a latent fires, with the latent's activation on each of its tokens. Activations are
 * negative where the architecture lets them be.
 */
export interface FeatureExample {
  /** The peak: the largest activation in the context, of a negative example the most negative one. */
  readonly activation: number;
  /** Which context, counted from 0 in the order of the pass. */
  readonly context: number;
  /** Where in the context the peak stands. */
  readonly position: number;
  /** The tokens around it. */
  readonly tokens: Int32Array;
  /** The latent's activation on each of `tokens`; 0 where it does not fire or the token is left out. */
  readonly activations: Float32Array;
  /** Index of the peak in `tokens`. */
  readonly peak: number;
}

/** What one pass over contexts tells about every latent. A latent fires on a token where its activation is not 0. */
export interface FeatureStatistics {
  readonly dSae: number;
  readonly contexts: number;
  /** Tokens that count: all, less the special ones if they are left out. */
  readonly tokens: number;
  /** Active latents per counted token, on average. */
  readonly l0: number;
  /** Per latent, on how many counted tokens it is active. */
  readonly firingCounts: Float64Array;
  /** Per latent, its largest activation; 0 for a latent that is never positive. */
  readonly maxActivations: Float32Array;
  /** Per latent, its most negative activation; 0 for a latent that is never negative. */
  readonly minActivations: Float32Array;
  /** Per latent, its mean activation over the tokens on which it fires; 0 for a latent that never fires. */
  readonly meanActivations: Float64Array;
  /** The latents that fire at all, by log10 of the share of tokens on which they do; four bins a decade. */
  readonly densityHistogram: Histogram;
  /** How many latents never fire. */
  readonly deadLatents: number;
  /** The distribution of a latent's activations where it fires. */
  activationHistogram(latent: number): Histogram;
  /** Its largest activations, largest first, at most one per context and no two with the same tokens. */
  examples(latent: number): readonly FeatureExample[];
  /** The same of its negative activations, most negative first: as many again, since they say something else. */
  negativeExamples(latent: number): readonly FeatureExample[];
}

/** The largest magnitude of a latent's activations. */
export function strongestActivation({ maxActivations, minActivations }: FeatureStatistics, latent: number): number {
  return Math.max(maxActivations[latent]!, -minActivations[latent]!);
}

/** The latents, and how well the SAE reconstructs the same tokens. */
export interface CollectedFeatures {
  readonly statistics: FeatureStatistics;
  readonly metrics: Metrics;
}

export interface ExampleWindow {
  /** Examples kept per latent, and per sign of its activations. Default 12. */
  readonly examplesPerLatent?: number;
  /** Tokens shown before the strongest one. Default 16. */
  readonly tokensBefore?: number;
  /** Tokens shown after the strongest one. Default 8. */
  readonly tokensAfter?: number;
}

export interface FeatureOptions extends ExampleWindow, PairingOptions {
  readonly sae: Sae;
  readonly model: HookedTransformer;
  /** The hook point that the SAE reads. Default: the one in the SAE's metadata. */
  readonly hook?: HookChoice;
  readonly contexts: Contexts;
  /** Contexts that go through the model at once. Default 8. */
  readonly contextsPerBatch?: number;
  /** Leave special tokens (BOS and the like) out of counts and examples. Default true. */
  readonly excludeSpecialTokens?: boolean;
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: { readonly contexts: number; readonly tokens: number }) => void;
}

/**
 * Runs contexts through the model up to the hook and through the SAE, once, and gathers the statistics of all latents
 * and the metrics of the reconstruction in that one pass.
 *
 * Memory does not grow with the number of contexts: per latent that fires at all, a histogram of 64 counts and,
 * of each sign, `examplesPerLatent` windows of 8 bytes a token (`FeatureCollector.maximumBytes` says how much that is at most).
 *
 * @throws MonosemError ERR_CONFIG if model, hook and SAE do not belong together, ERR_NON_FINITE for NaN or infinite
 * activations, ERR_ABORTED.
 */
export async function collectFeatures(options: FeatureOptions): Promise<CollectedFeatures> {
  const { sae, model, contextsPerBatch = 8, excludeSpecialTokens = true, signal } = options;
  const { kernels } = sae.device;
  const { dIn, dOut, dSae, transcoder } = sae.config;
  const { input, output } = hooksForSae(model, sae, options.hook, options);
  const special = excludeSpecialTokens ? model.tokenizer.specialTokenIds : new Set<number>();
  const collector = new FeatureCollector(dSae, options);
  using metrics = new MetricsAccumulator(sae.device, dOut, dSae);
  for await (const batch of contextBatches(options.contexts, contextsPerBatch, signal)) {
    if (!options.allowMismatch) checkContexts(model, sae, batch.contexts);
    const countedPositions = batch.contexts.map((tokens) =>
      Int32Array.from(tokens.keys()).filter((position) => !special.has(tokens[position]!)),
    );
    const countedRows = countedPositions.flatMap((positions, index) =>
      Array.from(positions, (position) => index * batch.positions + position),
    );
    if (countedRows.length === 0) continue;
    using all = await model.activations(batch.contexts, transcoder ? [...input, ...output] : input);
    using rows = sae.device.tensor(Int32Array.from(countedRows), [countedRows.length]);
    using counted = kernels.gatherRows(all, rows);
    using x = transcoder ? kernels.sliceColumns(counted, 0, dIn) : counted;
    using target = transcoder ? kernels.sliceColumns(counted, dIn, dOut) : counted;
    using codes = sae.encode(x);
    using reconstruction = sae.decode(codes, x);
    using residual = kernels.add(reconstruction, target, { scale: -1 });
    metrics.add(target, residual, codes);
    const entries = await codes.read();
    let firstRow = 0;
    batch.contexts.forEach((tokens, index) => {
      const positions = countedPositions[index]!;
      collector.addContext(tokens, positions, entries, firstRow);
      firstRow += positions.length;
    });
    options.onProgress?.({ contexts: collector.contexts, tokens: collector.tokens });
  }
  return { statistics: collector.statistics(), metrics: await metrics.read() };
}

/** The active latents of rows of activations, as `Codes.read` gives them. */
export interface CodeEntries {
  /** [rows + 1]: row r has entries rowOffsets[r] to rowOffsets[r + 1]. */
  readonly rowOffsets: Float64Array;
  readonly features: Uint32Array;
  readonly values: Float32Array;
}

/** Gathers feature statistics context by context. Knows neither models nor devices: entries in, statistics out. */
export class FeatureCollector {
  readonly #dSae: number;
  readonly #examplesPerLatent: number;
  readonly #tokensBefore: number;
  readonly #tokensAfter: number;
  readonly #latents: (LatentRecord | undefined)[];
  // The entries of the context at hand, chained per latent: headOf[latent] is its last entry, previousOf[entry] the one before.
  readonly #headOf: Int32Array;
  #previousOf: Int32Array = new Int32Array(0);
  #contexts = 0;
  #tokens = 0;
  #entries = 0;

  constructor(dSae: number, window: ExampleWindow = {}) {
    this.#dSae = dSae;
    this.#examplesPerLatent = window.examplesPerLatent ?? 12;
    this.#tokensBefore = window.tokensBefore ?? 16;
    this.#tokensAfter = window.tokensAfter ?? 8;
    for (const [name, value, least] of [
      ["dSae", this.#dSae, 1],
      ["examplesPerLatent", this.#examplesPerLatent, 0],
      ["tokensBefore", this.#tokensBefore, 0],
      ["tokensAfter", this.#tokensAfter, 0],
    ] as const) {
      if (!Number.isSafeInteger(value) || value < least) {
        throw new MonosemError(
          "ERR_INVALID_ARGUMENT",
          `${name} must be an integer of at least ${least}, found ${value}`,
        );
      }
    }
    this.#latents = new Array(dSae).fill(undefined);
    this.#headOf = new Int32Array(dSae).fill(-1);
  }

  /** Contexts added so far. */
  get contexts(): number {
    return this.#contexts;
  }

  /** Tokens counted so far. */
  get tokens(): number {
    return this.#tokens;
  }

  /** An upper bound of the memory that the statistics take when every latent fires, with both signs, in bytes. */
  get maximumBytes(): number {
    const window = this.#tokensBefore + 1 + this.#tokensAfter;
    const bytesPerExample = 8 * window + 400; // two typed arrays with their headers, one object
    return this.#dSae * (2 * this.#examplesPerLatent * bytesPerExample + 1100);
  }

  /**
   * Adds one context.
   *
   * @param tokens all of its tokens, for the windows
   * @param positions the positions that count, ascending; the others are shown with activation 0
   * @param entries row `firstRow + i` holds the active latents at `positions[i]`
   */
  addContext(tokens: Int32Array, positions: Int32Array, entries: CodeEntries, firstRow: number): void {
    const start = entries.rowOffsets[firstRow];
    const end = entries.rowOffsets[firstRow + positions.length];
    if (start === undefined || end === undefined) {
      throw new MonosemError(
        "ERR_SHAPE_MISMATCH",
        `${positions.length} positions from row ${firstRow} on, but there are only ${entries.rowOffsets.length - 1} rows of codes`,
      );
    }
    if (this.#previousOf.length < end - start) this.#previousOf = new Int32Array(end - start);
    const firing: number[] = [];
    const positionOf = new Int32Array(end - start);
    positions.forEach((position, index) => {
      const rowEnd = entries.rowOffsets[firstRow + index + 1]!;
      for (let entry = entries.rowOffsets[firstRow + index]!; entry < rowEnd; entry++) {
        const value = entries.values[entry]!;
        const latent = entries.features[entry]!;
        if (!Number.isFinite(value)) {
          throw new MonosemError(
            "ERR_NON_FINITE",
            `latent ${latent} has activation ${value} in context ${this.#contexts} at position ${position}`,
          );
        }
        if (value === 0) continue; // selected, but not active
        positionOf[entry - start] = position;
        if (this.#headOf[latent] === -1) firing.push(latent);
        this.#previousOf[entry - start] = this.#headOf[latent]!;
        this.#headOf[latent] = entry - start;
      }
    });
    this.#tokens += positions.length;
    for (const latent of firing) {
      this.#addFirings(latent, tokens, entries.values.subarray(start, end), positionOf);
      this.#headOf[latent] = -1;
    }
    this.#contexts += 1;
  }

  statistics(): FeatureStatistics {
    const dSae = this.#dSae;
    const firingCounts = new Float64Array(dSae);
    const maxActivations = new Float32Array(dSae);
    const minActivations = new Float32Array(dSae);
    const meanActivations = new Float64Array(dSae);
    this.#latents.forEach((record, latent) => {
      if (record === undefined) return;
      firingCounts[latent] = record.count;
      maxActivations[latent] = record.max;
      minActivations[latent] = record.min;
      meanActivations[latent] = record.sum / record.count;
    });
    const latents = this.#latents;
    const recordOf = (latent: number): LatentRecord | undefined => {
      if (!Number.isInteger(latent) || latent < 0 || latent >= dSae) {
        throw new MonosemError(
          "ERR_INVALID_ARGUMENT",
          `there is no latent ${latent}: they are numbered 0 to ${dSae - 1}`,
        );
      }
      return latents[latent];
    };
    return {
      dSae,
      contexts: this.#contexts,
      tokens: this.#tokens,
      l0: this.#tokens === 0 ? 0 : this.#entries / this.#tokens,
      firingCounts,
      maxActivations,
      minActivations,
      meanActivations,
      densityHistogram: densityHistogram(firingCounts, this.#tokens),
      deadLatents: firingCounts.reduce((dead, count) => dead + (count === 0 ? 1 : 0), 0),
      activationHistogram: (latent) =>
        recordOf(latent)?.histogram.snapshot() ?? { firstEdge: 0, binWidth: 0, counts: [] },
      examples: (latent) => recordOf(latent)?.examples ?? [],
      negativeExamples: (latent) => recordOf(latent)?.negativeExamples ?? [],
    };
  }

  #addFirings(latent: number, tokens: Int32Array, values: Float32Array, positionOf: Int32Array): void {
    let record = this.#latents[latent];
    if (record === undefined) {
      const histogram = new ActivationHistogram();
      record = { count: 0, sum: 0, max: 0, min: 0, histogram, examples: [], negativeExamples: [] };
      this.#latents[latent] = record;
    }
    let [largest, smallest] = [-1, -1];
    for (let entry = this.#headOf[latent]!; entry !== -1; entry = this.#previousOf[entry]!) {
      const value = values[entry]!;
      record.count += 1;
      record.sum += value;
      record.histogram.add(value);
      this.#entries += 1;
      // The chain runs backwards: >= and <= leave the first of equal peaks.
      if (value > 0 && (largest === -1 || value >= values[largest]!)) largest = entry;
      if (value < 0 && (smallest === -1 || value <= values[smallest]!)) smallest = entry;
    }
    if (largest !== -1) {
      record.max = Math.max(record.max, values[largest]!);
      this.#addExample(record.examples, { latent, peak: largest }, tokens, values, positionOf);
    }
    if (smallest !== -1) {
      record.min = Math.min(record.min, values[smallest]!);
      this.#addExample(record.negativeExamples, { latent, peak: smallest }, tokens, values, positionOf);
    }
  }

  #addExample(
    examples: FeatureExample[],
    { latent, peak }: { readonly latent: number; readonly peak: number },
    tokens: Int32Array,
    values: Float32Array,
    positionOf: Int32Array,
  ): void {
    const activation = values[peak]!;
    const limit = this.#examplesPerLatent;
    if (limit === 0 || (examples.length >= limit && !isStronger(activation, examples.at(-1)!.activation))) return;
    const position = positionOf[peak]!;
    const first = Math.max(0, position - this.#tokensBefore);
    const window = tokens.slice(first, Math.min(tokens.length, position + this.#tokensAfter + 1));
    const activations = new Float32Array(window.length);
    for (let entry = this.#headOf[latent]!; entry !== -1; entry = this.#previousOf[entry]!) {
      const index = positionOf[entry]! - first;
      if (index >= 0 && index < window.length) activations[index] = values[entry]!;
    }
    insertExample(
      examples,
      { activation, context: this.#contexts, position, tokens: window, activations, peak: position - first },
      limit,
    );
  }
}

interface LatentRecord {
  count: number;
  sum: number;
  max: number;
  min: number;
  readonly histogram: ActivationHistogram;
  /** Strongest first; of equals the earlier context first. */
  readonly examples: FeatureExample[];
  readonly negativeExamples: FeatureExample[];
}

/** Of two activations of one sign. */
function isStronger(activation: number, other: number): boolean {
  return Math.abs(activation) > Math.abs(other);
}

/** Keeps `examples`, all of one sign, sorted and at most `limit` long; of two with the same tokens only the stronger stays. */
function insertExample(examples: FeatureExample[], example: FeatureExample, limit: number): void {
  const same = examples.findIndex((other) => sameTokens(other.tokens, example.tokens));
  if (same !== -1) {
    if (!isStronger(example.activation, examples[same]!.activation)) return;
    examples.splice(same, 1);
  }
  const after = examples.findIndex((other) => isStronger(example.activation, other.activation));
  examples.splice(after === -1 ? examples.length : after, 0, example);
  if (examples.length > limit) examples.pop();
}

function sameTokens(a: Int32Array, b: Int32Array): boolean {
  return a.length === b.length && a.every((token, index) => token === b[index]);
}

const BINS_PER_DECADE = 4;

function densityHistogram(firingCounts: Float64Array, tokens: number): Histogram {
  const binWidth = 1 / BINS_PER_DECADE;
  const rarest = firingCounts.reduce((least, count) => (count > 0 ? Math.min(least, count) : least), tokens);
  // Bins are open at their lower end: a density of exactly 1% needs the decade below.
  const firstEdge = tokens === 0 ? -1 : Math.ceil(Math.log10(rarest / tokens)) - 1;
  const counts = new Array<number>(-firstEdge * BINS_PER_DECADE).fill(0);
  for (const count of firingCounts) {
    if (count === 0) continue;
    const bin = Math.ceil((Math.log10(count / tokens) - firstEdge) * BINS_PER_DECADE) - 1;
    counts[Math.min(counts.length - 1, Math.max(0, bin))]! += 1;
  }
  return { firstEdge, binWidth, counts };
}
