import { afterAll, beforeAll, expect, test } from "vitest";
import { collectFeatures, type FeatureStatistics } from "../../lib/analysis/features.js";
import { textFeatures } from "../../lib/analysis/textFeatures.js";
import type { Device } from "../../lib/engine/device.js";
import { recordPrompt } from "../../lib/features/recordPrompt.js";
import { latentsInModel, statisticsLatents } from "../../lib/features/statisticsLatents.js";
import type { HookedTransformer } from "../../lib/models/hookedTransformer.js";
import type { Sae } from "../../lib/sae/sae.js";
import { exactSae, HOOK, openTinyModel, tinyContexts } from "../analysis/tinyModel.js";

let device: Device;
let model: HookedTransformer;
let sae: Sae;
let statistics: FeatureStatistics;

beforeAll(async () => {
  ({ device, model } = await openTinyModel());
  sae = exactSae(device, model.config.dModel, { hookName: HOOK });
  ({ statistics } = await collectFeatures({ sae, model, contexts: tinyContexts(model) }));
});

afterAll(() => device.close());

test("a latent of a report says what the statistics say of it, and one that does not exist is refused", () => {
  const latent = statisticsLatents(statistics);
  for (const index of [0, 17, 383]) {
    expect(latent(index)).toMatchObject({
      latent: index,
      firingCount: statistics.firingCounts[index],
      density: statistics.firingCounts[index]! / statistics.tokens,
      maxActivation: statistics.maxActivations[index],
      histogram: statistics.activationHistogram(index),
      examples: statistics.examples(index),
    });
  }
  expect(() => latent(384)).toThrow("there is no latent 384");
});

test("in the model, its logits are those of its decoder direction on the whole vocabulary", async () => {
  const index = 17;
  using rows = device.tensor(Int32Array.of(index), [1]);
  using direction = device.kernels.gatherRows(sae.parameters.decoder, rows);
  using logits = model.directionLogits(direction);
  const values = await logits.readFloat32();
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  const effects = Array.from(values, (value) => value - mean).sort((a, b) => b - a);

  const latent = await latentsInModel({ statistics, sae, model })(index);
  const { raised, lowered, histogram } = latent.logits!;
  expect(latent.decoderNorms).toBeUndefined();
  raised.forEach(({ token, effect }, rank) => {
    expect(effect).toBeCloseTo(effects[rank]!, 5);
    expect(effect).toBeCloseTo(values[token]! - mean, 5);
  });
  lowered.forEach(({ effect }, rank) => {
    expect(effect).toBeCloseTo(effects.at(-1 - rank)!, 5);
  });
  const { firstEdge, binWidth, counts } = histogram;
  expect(counts.reduce((sum, count) => sum + count)).toBe(model.config.vocabularySize);
  expect(firstEdge).toBeCloseTo(effects.at(-1)!, 5);
  expect(firstEdge + binWidth * counts.length).toBeCloseTo(effects[0]!, 5);
  // values next to an edge may fall on either side of it
  counts.forEach((count, bin) => {
    const [low, high] = [firstEdge + bin * binWidth, firstEdge + (bin + 1) * binWidth];
    const inside = (margin: number): number =>
      effects.filter((effect) => effect >= low - margin && effect < high + margin).length;
    expect(count).toBeGreaterThanOrEqual(inside(-1e-5));
    expect(count).toBeLessThanOrEqual(inside(1e-5));
  });
});

test("a recorded prompt holds the tokens and latents of the text, the strongest, special tokens left out", async () => {
  const text = "The king said";
  const recorded = await recordPrompt({ sae, model, prompt: text, latentsPerToken: 3 });
  const expected = await textFeatures({ sae, model, text, top: 3 });
  expect(recorded.text).toBe(text);
  expect(recorded.tokens).toEqual(expected.map(({ token, latents }) => ({ token, latents })));
  expect(recorded.tokens.map(({ token }) => token)).toEqual(model.tokenizer.encode(text));
  for (const { latents } of recorded.tokens) expect(latents).toHaveLength(3);
});
