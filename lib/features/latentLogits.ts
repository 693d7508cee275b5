import type { Histogram } from "../analysis/activationHistogram.js";
import { type LogitEffectOptions, logitEffects } from "../analysis/logitEffects.js";
import type { LatentLogits } from "./latentRecord.js";

/** Tokens told at either end. */
const TOLD = 10;
const BINS = 40;

/**
 * What a page says of the logit effects of latents (`logitEffects`), in the order in which they are asked for.
 *
 * @throws MonosemError as `logitEffects`
 */
export async function latentLogits(options: Omit<LogitEffectOptions, "count">): Promise<LatentLogits[]> {
  const latents: LatentLogits[] = [];
  for (const latent of options.latents) {
    const count = options.model.config.vocabularySize;
    const [effects] = await logitEffects({ ...options, latents: [latent], count });
    latents.push({
      raised: effects!.raised.slice(0, TOLD),
      lowered: effects!.lowered.slice(0, TOLD),
      histogram: histogramOf(effects!.raised.map(({ effect }) => effect)),
    });
  }
  return latents;
}

/** In equal bins from the smallest effect, the last, to the largest; one bin of width 0 where all are the same. */
function histogramOf(effects: readonly number[]): Histogram {
  const [most, least] = [effects[0]!, effects.at(-1)!];
  if (least === most) return { firstEdge: least, binWidth: 0, counts: [effects.length] };
  const binWidth = (most - least) / BINS;
  const counts = new Array<number>(BINS).fill(0);
  for (const effect of effects) counts[Math.min(BINS - 1, Math.floor((effect - least) / binWidth))]! += 1;
  return { firstEdge: least, binWidth, counts };
}
