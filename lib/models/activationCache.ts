import { kindOf } from "../checkArguments.js";
import type { Tensor } from "../engine/tensor.js";
import { MonosemError } from "../errors.js";
import type { NamedHook } from "./hooks.js";

/** Which activations to keep: a name or several, or a filter of those that a run comes by. */
export type CachedNames = string | readonly string[] | ((name: string) => boolean);

/** What a run returns, and activations by name, in order of execution; all are the caller's to dispose. */
export interface CachedRun {
  readonly output: Tensor;
  readonly cache: Map<string, Tensor>;
}

/**
 * Runs a model with hooks that keep activations.
 *
 * @param reached - the hook points that the run comes by
 * @throws MonosemError ERR_INVALID_ARGUMENT for other `names`; what `run` throws; nothing is kept then
 */
export async function runKeeping(
  names: CachedNames,
  reached: readonly string[],
  run: (hooks: readonly NamedHook[]) => Promise<Tensor>,
): Promise<CachedRun> {
  const kept = typeof names === "function" ? reached.filter(names) : [...new Set([names].flat())];
  const noName = kept.find((name) => typeof name !== "string");
  if (noName !== undefined) {
    throw new MonosemError(
      "ERR_INVALID_ARGUMENT",
      `names must be the name of a hook point, a list of them or a filter (name => boolean); found ${kindOf(noName)}`,
    );
  }
  const cache = new Map<string, Tensor>();
  const keep = (activation: Tensor, name: string): void => {
    cache.set(name, activation.reshape(activation.shape));
  };
  try {
    const output = await run(kept.map((name) => ({ name, hook: keep })));
    return { output, cache };
  } catch (error) {
    for (const activation of cache.values()) activation.dispose();
    throw error;
  }
}
