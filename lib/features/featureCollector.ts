import { ActivationHistograms, BINS_PER_SIGN } from "../analysis/activationHistogram.js";
import type { ExampleWindow, FeatureStatistics } from "../analysis/features.js";
import { MonosemError } from "../errors.js";
import { densityHistogram } from "./densityHistogram.js";
import { DocumentMeans } from "./documentMeans.js";
import type { StateArrays } from "./exampleRows.js";
import { type CodeEntries, FiringChains, NONE } from "./firingChains.js";
import { canSketch, FiringSketches } from "./firingSketches.js";
import { FrequentTokens } from "./frequentTokens.js";
import type { LatentRecord } from "./latentRecord.js";
import { SampledExamples } from "./sampledExamples.js";
import { StrongestExamples } from "./strongestExamples.js";

export interface CollectorOptions extends ExampleWindow {
  /** Chooses the samples. Default 0. */
  readonly seed?: number;
}

/** A context, and which of its positions have rows of codes. */
export interface CollectedContext {
  /** All of its tokens, for the windows. */
  readonly tokens: Int32Array;
  /** The positions that count, ascending; the others are shown with activation 0. */
  readonly positions: Int32Array;
  /** Which document each token is of, ascending from context to context. Default: each context is a document. */
  readonly documents?: Uint32Array;
}

/** What text alone tells about a latent. */
export type LatentText = Omit<LatentRecord, "coActive" | "neighbours" | "logits">;

/** Tokens of a latent that are told, of those watched. */
const TOKENS_TOLD = 10;

/**
 * Gathers what a corpus tells about every latent, context by context, in one pass. Knows neither models nor devices:
 * entries in, statistics out. All that it remembers lies in typed arrays of fixed size (`maximumBytes`), which can be
 * saved and restored between two contexts, so that an interrupted pass goes on as if nothing had happened.
 */
export class FeatureCollector {
  readonly #dSae: number;
  readonly #options: Required<CollectorOptions>;
  readonly #chains: FiringChains;
  readonly #histograms: ActivationHistograms;
  readonly #tokensOf: FrequentTokens;
  readonly #documents: DocumentMeans;
  readonly #sketches: FiringSketches;
  readonly #largest: ExamplesOfSign;
  /** From the first negative activation on: most architectures have none. */
  #smallest: ExamplesOfSign | undefined;
  readonly #counts: Float64Array;
  readonly #sums: Float64Array;
  readonly #max: Float32Array;
  readonly #min: Float32Array;
  readonly #firstPositions: Uint32Array;
  readonly #lastPositions: Uint32Array;
  readonly #atStart: Uint32Array;
  readonly #atEnd: Uint32Array;
  /** Contexts, tokens and entries so far. */
  readonly #totals: Float64Array = new Float64Array(3);

  constructor(dSae: number, options: CollectorOptions = {}) {
    const { examplesPerLatent = 12, tokensBefore = 16, tokensAfter = 8, seed = 0 } = options;
    for (const [name, value, least, most] of [
      ["dSae", dSae, 1, Number.MAX_SAFE_INTEGER],
      ["examplesPerLatent", examplesPerLatent, 0, Number.MAX_SAFE_INTEGER],
      ["tokensBefore", tokensBefore, 0, Number.MAX_SAFE_INTEGER],
      ["tokensAfter", tokensAfter, 0, Number.MAX_SAFE_INTEGER],
      ["seed", seed, 0, 2 ** 32 - 1],
    ] as const) {
      if (Number.isSafeInteger(value) && value >= least && value <= most) continue;
      throw new MonosemError("ERR_INVALID_ARGUMENT", `${name} must be an integer of at least ${least}, found ${value}`);
    }
    if (!canSketch(dSae)) {
      throw new MonosemError("ERR_UNSUPPORTED", `features are gathered of 2097152 latents at most, found ${dSae}`);
    }
    this.#dSae = dSae;
    this.#options = { examplesPerLatent, tokensBefore, tokensAfter, seed };
    this.#chains = new FiringChains(dSae);
    this.#histograms = new ActivationHistograms(dSae);
    this.#tokensOf = new FrequentTokens(dSae);
    this.#documents = new DocumentMeans(dSae);
    this.#sketches = new FiringSketches(dSae);
    this.#largest = this.#examplesOfSign();
    this.#counts = new Float64Array(dSae);
    this.#sums = new Float64Array(dSae);
    this.#max = new Float32Array(dSae);
    this.#min = new Float32Array(dSae);
    this.#firstPositions = new Uint32Array(dSae);
    this.#lastPositions = new Uint32Array(dSae);
    this.#atStart = new Uint32Array(dSae);
    this.#atEnd = new Uint32Array(dSae);
  }

  /** Contexts added so far. */
  get contexts(): number {
    return this.#totals[0]!;
  }

  /** Tokens counted so far. */
  get tokens(): number {
    return this.#totals[1]!;
  }

  /**
   * Bytes that it takes when every latent fires, with both signs; without negative activations `oneSign`. Less in between:
   * rows of latents that have not fired yet are not backed by memory.
   */
  get maximumBytes(): { readonly bothSigns: number; readonly oneSign: number } {
    const { examplesPerLatent } = this.#options;
    const examples =
      StrongestExamples.bytesPerLatent(examplesPerLatent, this.#options) +
      SampledExamples.bytesPerLatent(this.#options);
    const histogram = 8 + 2 * BINS_PER_SIGN * 4;
    const scalars = 2 * 8 + 6 * 4;
    const chains = 3 * 4;
    const rest =
      histogram +
      scalars +
      chains +
      FrequentTokens.bytesPerLatent +
      DocumentMeans.bytesPerLatent +
      FiringSketches.bytesPerLatent;
    return { bothSigns: this.#dSae * (rest + 2 * examples), oneSign: this.#dSae * (rest + examples) };
  }

  /**
   * Adds one context.
   *
   * @param entries - row `firstRow + i` holds the active latents at `context.positions[i]`
   * @throws MonosemError ERR_SHAPE_MISMATCH, ERR_NON_FINITE, ERR_INVALID_ARGUMENT for a latent that there is not, and then
   *   nothing is counted; ERR_UNSUPPORTED beyond 2^32 tokens
   */
  addContext({ tokens, positions, documents }: CollectedContext, entries: CodeEntries, firstRow: number): void {
    const [context, firstToken] = [this.contexts, this.tokens];
    if (firstToken + positions.length > 2 ** 32) {
      throw new MonosemError("ERR_UNSUPPORTED", "features are gathered from 2^32 tokens at most");
    }
    let [row, hash] = [-1, 0];
    const advance = (to: number): void => {
      while (row < to) {
        row += 1;
        hash = this.#sketches.hash(firstToken + row);
        const position = positions[row]!;
        this.#documents.addToken(documents === undefined ? context : documents[position]!, tokens[position]!);
      }
    };
    this.#chains.fill(tokens, positions, entries, firstRow, context, (latent, value, index) => {
      advance(index);
      this.#documents.addFiring(latent, value);
      this.#sketches.add(latent, hash);
    });
    advance(positions.length - 1);
    this.#totals[1]! += positions.length;
    for (const latent of this.#chains.firing) this.#addFirings(latent, context, positions[0]!, positions.at(-1)!);
    this.#totals[0]! += 1;
  }

  /** No more text comes: what depends on whole documents is complete. */
  end(): void {
    this.#documents.end();
  }

  statistics(): FeatureStatistics {
    const [dSae, tokens] = [this.#dSae, this.tokens];
    const firingCounts = this.#counts.slice();
    const existing = (latent: number): number => {
      if (Number.isInteger(latent) && latent >= 0 && latent < dSae) return latent;
      throw new MonosemError(
        "ERR_INVALID_ARGUMENT",
        `there is no latent ${latent}: they are numbered 0 to ${dSae - 1}`,
      );
    };
    return {
      dSae,
      contexts: this.contexts,
      tokens,
      l0: tokens === 0 ? 0 : this.#totals[2]! / tokens,
      firingCounts,
      maxActivations: this.#max.slice(),
      minActivations: this.#min.slice(),
      meanActivations: this.#sums.map((sum, latent) => (firingCounts[latent] === 0 ? 0 : sum / firingCounts[latent]!)),
      densityHistogram: densityHistogram(firingCounts, tokens),
      deadLatents: firingCounts.reduce((dead, count) => dead + (count === 0 ? 1 : 0), 0),
      activationHistogram: (latent) => this.#histograms.snapshot(existing(latent)),
      examples: (latent) => this.#largest.strongest.examples(existing(latent)),
      negativeExamples: (latent) => {
        existing(latent);
        return this.#smallest?.strongest.examples(latent) ?? [];
      },
    };
  }

  /** After `end`. */
  latent(latent: number): LatentText {
    const count = this.#counts[latent]!;
    return {
      latent,
      firingCount: count,
      density: count / this.tokens,
      maxActivation: this.#max[latent]!,
      minActivation: this.#min[latent]!,
      meanActivation: count === 0 ? 0 : this.#sums[latent]! / count,
      histogram: this.#histograms.snapshot(latent),
      positions: {
        first: this.#firstPositions[latent]!,
        last: this.#lastPositions[latent]!,
        atStart: this.#atStart[latent]!,
        atEnd: this.#atEnd[latent]!,
      },
      examples: this.#largest.strongest.examples(latent),
      negativeExamples: this.#smallest?.strongest.examples(latent) ?? [],
      quantiles: [
        ...this.#largest.samples.quantiles(latent, 1, this.#histograms),
        ...(this.#smallest?.samples.quantiles(latent, -1, this.#histograms) ?? []),
      ],
      tokens: this.#tokensOf.tokens(latent).slice(0, TOKENS_TOLD),
      documents: this.#documents.documents(latent),
    };
  }

  /** The latents that fire on the same tokens, for any latent (`FiringSketches.coActive`). */
  coActive(): (latent: number) => LatentRecord["coActive"] {
    return this.#sketches.coActive(this.#counts);
  }

  /** All that it remembers: its own arrays, not copies. */
  get state(): StateArrays {
    const parts = {
      tokensOf: this.#tokensOf.state,
      documents: this.#documents.state,
      sketches: this.#sketches.state,
      histograms: { ranges: this.#histograms.ranges, counts: this.#histograms.counts },
      ...stateOf("largest", this.#largest),
      ...(this.#smallest === undefined ? {} : stateOf("smallest", this.#smallest)),
      latents: {
        counts: this.#counts,
        sums: this.#sums,
        max: this.#max,
        min: this.#min,
        firstPositions: this.#firstPositions,
        lastPositions: this.#lastPositions,
        atStart: this.#atStart,
        atEnd: this.#atEnd,
      },
      totals: { all: this.#totals },
    };
    return Object.fromEntries(
      Object.entries(parts).flatMap(([part, arrays]) =>
        Object.entries(arrays).map(([name, array]) => [`${part}.${name}`, array] as const),
      ),
    );
  }

  /**
   * Makes room for the state of a collector with the same options that has seen negative activations. What is read into
   * the arrays of `state` after that is what this collector remembers.
   */
  expectNegative(): void {
    this.#smallest ??= this.#examplesOfSign();
  }

  #examplesOfSign(): ExamplesOfSign {
    const { examplesPerLatent, seed } = this.#options;
    return {
      strongest: new StrongestExamples(this.#dSae, examplesPerLatent, this.#options),
      samples: new SampledExamples(this.#dSae, this.#options, seed),
    };
  }

  #addFirings(latent: number, context: number, start: number, end: number): void {
    const { heads, next, values, positions, tokens } = this.#chains;
    let [largest, smallest] = [NONE, NONE];
    if (this.#counts[latent] === 0) this.#firstPositions[latent] = positions[heads[latent]!]!;
    for (let firing = heads[latent]!; firing !== NONE; firing = next[firing]!) {
      const value = values[firing]!;
      const position = positions[firing]!;
      this.#counts[latent]! += 1;
      this.#sums[latent]! += value;
      this.#totals[2]! += 1;
      if (position < this.#firstPositions[latent]!) this.#firstPositions[latent] = position;
      if (position > this.#lastPositions[latent]!) this.#lastPositions[latent] = position;
      if (position === start) this.#atStart[latent]! += 1;
      if (position === end) this.#atEnd[latent]! += 1;
      this.#tokensOf.add(latent, tokens[position]!, value);
      const doublings = this.#histograms.add(latent, value);
      if (doublings > 0) {
        this.#largest.samples.widen(latent, doublings);
        this.#smallest?.samples.widen(latent, doublings);
      }
      if (value < 0) this.#smallest ??= this.#examplesOfSign();
      const { samples } = value > 0 ? this.#largest : this.#smallest!;
      samples.offer(latent, context, this.#chains, firing, this.#histograms.ranges[latent]!);
      if (value > 0 && (largest === NONE || value > values[largest]!)) largest = firing;
      if (value < 0 && (smallest === NONE || value < values[smallest]!)) smallest = firing;
    }
    if (largest !== NONE) {
      this.#max[latent] = Math.max(this.#max[latent]!, values[largest]!);
      this.#largest.strongest.offer(latent, context, this.#chains, largest);
    }
    if (smallest !== NONE) {
      this.#min[latent] = Math.min(this.#min[latent]!, values[smallest]!);
      this.#smallest!.strongest.offer(latent, context, this.#chains, smallest);
    }
  }
}

interface ExamplesOfSign {
  readonly strongest: StrongestExamples;
  readonly samples: SampledExamples;
}

function stateOf(name: string, { strongest, samples }: ExamplesOfSign): Record<string, StateArrays> {
  return { [`${name}.strongest`]: strongest.state, [`${name}.samples`]: samples.state };
}
