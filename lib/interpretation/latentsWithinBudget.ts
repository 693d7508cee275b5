import { MonosemError, throwIfAborted } from "../errors.js";
import type { LatentExamples } from "./examples.js";

export interface LatentWork<Result> {
  readonly latents: readonly LatentExamples[];
  readonly concurrency: number;
  /** What is done, for the message of an abort. */
  readonly what: string;
  readonly signal: AbortSignal | undefined;
  readonly onProgress: ((progress: { readonly latents: number }) => void) | undefined;
  readonly resultOf: (examples: LatentExamples) => Promise<Result>;
}

export interface LatentsWithinBudget<Result> {
  /** In the order of the latents. */
  readonly results: readonly Result[];
  /** Latents for which the caps on tokens and cost left no room, in their order. */
  readonly leftOut: readonly number[];
  /** Of those the first to be left out: why. */
  readonly leftOutBecause?: string;
}

/**
 * Works on latents, some at a time. One that a judge's budget has no room for is left out, and the next, which may need
 * less, is tried; any other failure ends the work when the latents under way are done.
 *
 * @throws whatever `resultOf` throws, but for ERR_BUDGET; MonosemError ERR_ABORTED
 */
export async function latentsWithinBudget<Result>({
  latents,
  concurrency,
  what,
  signal,
  onProgress,
  resultOf,
}: LatentWork<Result>): Promise<LatentsWithinBudget<Result>> {
  const results = new Map<number, Result>();
  const leftOut = new Set<number>();
  let leftOutBecause: string | undefined;
  const failures: unknown[] = [];
  let next = 0;
  const work = async (): Promise<void> => {
    while (next < latents.length && failures.length === 0) {
      const examples = latents[next++]!;
      try {
        throwIfAborted(signal, what);
        results.set(examples.latent, await resultOf(examples));
        onProgress?.({ latents: results.size });
      } catch (error) {
        if (error instanceof MonosemError && error.code === "ERR_BUDGET") {
          leftOut.add(examples.latent);
          leftOutBecause ??= error.message;
        } else failures.push(error);
      }
    }
  };
  await Promise.all(Array.from({ length: concurrency }, work));
  if (failures.length > 0) throw failures[0];
  return {
    results: latents.flatMap(({ latent }) => results.get(latent) ?? []),
    leftOut: latents.map(({ latent }) => latent).filter((latent) => leftOut.has(latent)),
    ...(leftOutBecause === undefined ? {} : { leftOutBecause }),
  };
}
