import { MonosemError } from "../errors.js";
import type { Example, ExampleSide, LatentExamples, Window } from "./examples.js";
import { keyedNumber } from "./keyedNumber.js";

export interface ExampleLimits {
  /** Windows kept for their peak, per latent and side. Default 20. */
  readonly strongest?: number;
  /** Active windows sampled, per latent and side. Default 200. */
  readonly active?: number;
  /** Windows sampled per side, for all latents together: the silent examples come from them. Default 500. */
  readonly pool?: number;
  /** Of the split and the samples. Default 0. */
  readonly seed?: number;
}

export type SideName = "train" | "test";

/**
 * The side of a document: of each two that follow each other one is for training and one for testing, which one is
 * random, so that the sides are even however many documents there are.
 */
export function sideOf(document: number, seed: number): SideName {
  const firstTrains = keyedNumber(seed, Math.floor(document / 2)) < 0.5;
  return firstTrains === (document % 2 === 0) ? "train" : "test";
}

/**
 * Keeps examples of chosen latents, window by window, in bounded memory: per latent and side `strongest` + `active`
 * windows, 4 bytes a token each, and the windows' tokens, which latents share. Knows neither models nor devices.
 */
export class ExampleCollector {
  readonly #latents: readonly number[];
  readonly #seed: number;
  readonly #sides: Readonly<Record<SideName, CollectedSide>>;

  /** @param latents - those to keep examples of, each once */
  constructor(latents: readonly number[], { strongest = 20, active = 200, pool = 500, seed = 0 }: ExampleLimits = {}) {
    for (const [name, value] of Object.entries({ strongest, active, pool, seed })) {
      if (Number.isSafeInteger(value) && value >= 0) continue;
      throw new MonosemError("ERR_INVALID_ARGUMENT", `${name} must be an integer of at least 0, found ${value}`);
    }
    if (new Set(latents).size !== latents.length) {
      throw new MonosemError("ERR_INVALID_ARGUMENT", "a latent is named twice");
    }
    this.#latents = latents;
    this.#seed = seed;
    const side = (): CollectedSide => ({
      windows: 0,
      pool: new Kept(pool),
      latents: latents.map(() => ({ activeWindows: 0, strongest: new Kept(strongest), active: new Kept(active) })),
    });
    this.#sides = { train: side(), test: side() };
  }

  /** Windows added so far. */
  windows(side: SideName): number {
    return this.#sides[side].windows;
  }

  /**
   * Adds a window.
   *
   * @param activationsOf - of each chosen latent, by its index among them, that fires in the window: its activations
   */
  add(window: Window, activationsOf: ReadonlyMap<number, Float32Array>): void {
    const side = this.#sides[sideOf(window.document, this.#seed)];
    const text = window.tokens.join();
    const lot = (salt: number): number => keyedNumber(this.#seed, salt, window.document, window.start);
    side.windows += 1;
    side.pool.offer(lot(0), text, () => ({ window, firing: new Set(activationsOf.keys()) }));
    for (const [index, activations] of activationsOf) {
      const peak = activations.reduce((most, value) => Math.max(most, value), 0);
      if (peak === 0) continue; // only negative here: neither active nor silent
      const latent = side.latents[index]!;
      latent.activeWindows += 1;
      const example = (): Example => ({ ...window, activations, peak });
      latent.strongest.offer(peak, text, example);
      latent.active.offer(lot(1 + this.#latents[index]!), text, example);
    }
  }

  /** In the order of the latents. */
  examples(): LatentExamples[] {
    return this.#latents.map((latent, index) => {
      const train = exampleSide(this.#sides.train, index);
      const seen = new Set([...train.strongest, ...train.active, ...train.silent].map(({ tokens }) => tokens.join()));
      const isNew = ({ tokens }: Example): boolean => !seen.has(tokens.join());
      const test = exampleSide(this.#sides.test, index);
      return {
        latent,
        train,
        test: {
          activeWindows: test.activeWindows,
          strongest: test.strongest.filter(isNew),
          active: test.active.filter(isNew),
          silent: test.silent.filter(isNew),
        },
      };
    });
  }
}

interface CollectedSide {
  windows: number;
  readonly pool: Kept<{ readonly window: Window; readonly firing: ReadonlySet<number> }>;
  readonly latents: readonly {
    activeWindows: number;
    readonly strongest: Kept<Example>;
    readonly active: Kept<Example>;
  }[];
}

function exampleSide({ pool, latents }: CollectedSide, index: number): ExampleSide {
  const { activeWindows, strongest, active } = latents[index]!;
  const silent = pool.items.filter(({ firing }) => !firing.has(index)).map(({ window }) => window);
  return {
    activeWindows,
    strongest: strongest.items,
    active: active.items.sort((a, b) => b.peak - a.peak || a.document - b.document || a.start - b.start),
    silent: silent.map((window) => ({ ...window, activations: new Float32Array(window.tokens.length), peak: 0 })),
  };
}

/** The items with the highest ranks; of those with one text only the highest. */
class Kept<Item> {
  readonly #limit: number;
  /** Highest rank first. */
  readonly #entries: { readonly rank: number; readonly text: string; readonly item: Item }[] = [];
  readonly #rankOf: Map<string, number> = new Map();

  constructor(limit: number) {
    this.#limit = limit;
  }

  get items(): Item[] {
    return this.#entries.map(({ item }) => item);
  }

  offer(rank: number, text: string, make: () => Item): void {
    const least = this.#entries.at(-1);
    if (this.#limit === 0 || (this.#entries.length === this.#limit && before(least!, { rank, text }))) return;
    const known = this.#rankOf.get(text);
    if (known !== undefined && known >= rank) return;
    if (known !== undefined) {
      this.#entries.splice(
        this.#entries.findIndex((entry) => entry.text === text),
        1,
      );
    } else if (this.#entries.length === this.#limit) {
      this.#rankOf.delete(this.#entries.pop()!.text);
    }
    const after = this.#entries.findIndex((entry) => before({ rank, text }, entry));
    this.#entries.splice(after === -1 ? this.#entries.length : after, 0, { rank, text, item: make() });
    this.#rankOf.set(text, rank);
  }
}

/** Of equal ranks the lower text first, so that the order in which they come does not matter. */
function before(a: { rank: number; text: string }, b: { rank: number; text: string }): boolean {
  return a.rank === b.rank ? a.text < b.text : a.rank > b.rank;
}
