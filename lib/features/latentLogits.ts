import type { Histogram } from "../analysis/activationHistogram.js";
import { type LogitEffectOptions, largestEffects, mapLogitEffects } from "../analysis/logitEffects.js";
import type { LatentLogits } from "./latentRecord.js";

/** Tokens told at either end. */
export const LOGITS_TOLD = 10;
/** Bins of the histogram of effects. */
export const LOGIT_BINS = 40;

/**
 * What a page says of the logit effects of latents (`logitEffects`), in the order in which they are asked for.
 *
 * @throws MonosemError as `logitEffects`
 */
export async function latentLogits(options: Omit<LogitEffectOptions, "count">): Promise<LatentLogits[]> {
  return await mapLogitEffects(options, (effects) => {
    const raised = largestEffects(effects, LOGITS_TOLD, 1);
    const lowered = largestEffects(effects, LOGITS_TOLD, -1);
    return { raised, lowered, histogram: histogramOf(effects, lowered[0]!.effect, raised[0]!.effect) };
  });
}

/** In equal bins from the smallest effect to the largest; where all are the same, over a range of 1 with them in its middle. */
function histogramOf(effects: Float64Array, least: number, most: number): Histogram {
  const [firstEdge, range] = least === most ? [least - 0.5, 1] : [least, most - least];
  const binWidth = range / LOGIT_BINS;
  const counts = new Array<number>(LOGIT_BINS).fill(0);
  for (const effect of effects) counts[Math.min(LOGIT_BINS - 1, Math.floor((effect - firstEdge) / binWidth))]! += 1;
  return { firstEdge, binWidth, counts };
}
