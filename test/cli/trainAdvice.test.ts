import { describe, expect, test } from "vitest";
import { adviceAfter, adviceBefore } from "../../lib/cli/trainAdvice.js";
import type { SaeTrainingConfig } from "../../lib/sae/config.js";
import { parseConfig } from "../../lib/training/config.js";
import type { TrainingProgress } from "../../lib/training/trainer.js";

/** What is said before a run of 100 steps of 50 tokens. */
function advice(sae: object | readonly object[]): readonly string[] {
  const complete = (own: object): object => ({ dIn: 4, dSae: 8, deadAfterTokens: 5001, ...own });
  const training = { batchSize: 50, steps: 100 };
  const saes = Array.isArray(sae) ? sae.map(complete) : complete(sae);
  return adviceBefore(parseConfig({ sae: saes, data: { activations: "a" }, training, output: "o" }));
}

const topk = { architecture: "topk", k: 2 };
const before = "no latent can be dead before 5001 tokens";

describe("options that wait for dead latents", () => {
  test.each<[string, object]>([
    ["auxK", { ...topk, auxK: 4 }],
    ["ghostGradients", { architecture: "relu", l1Coefficient: 1, ghostGradients: true }],
    [
      "preActivationCoefficient",
      { architecture: "jumprelu", l0Coefficient: 1, targetL0: 2, preActivationCoefficient: 3e-6 },
    ],
  ])("%s has no effect in a run that is shorter than deadAfterTokens", (option, sae) => {
    expect(advice(sae)).toEqual([
      `sae.${option} has no effect: ${before}, and the run has 5000; lower sae.deadAfterTokens`,
    ]);
    expect(advice({ ...sae, deadAfterTokens: 5000 })).toEqual([]);
  });

  test("resampleEvery has none where the last resampling comes too early", () => {
    const reason = `${before.replace("5001", "4501")}, and the last resampling comes after 4500`;
    expect(advice({ ...topk, resampleEvery: 45, deadAfterTokens: 4501 })).toEqual([
      `sae.resampleEvery has no effect: ${reason}; lower sae.deadAfterTokens`,
    ]);
    expect(advice({ ...topk, resampleEvery: 45, deadAfterTokens: 4500 })).toEqual([]);
    expect(advice({ ...topk, resampleEvery: 100, deadAfterTokens: 1 })).toEqual([
      "sae.resampleEvery has no effect: the run has no more than 100 steps",
    ]);
  });

  test("are named with the place of their SAE; without them nothing is said", () => {
    expect(advice([topk, { ...topk, name: "second", auxK: 1 }])).toEqual([
      `sae.1.auxK has no effect: ${before}, and the run has 5000; lower sae.1.deadAfterTokens`,
    ]);
    expect(advice(topk)).toEqual([]);
  });
});

test("a run that ends worse than the mean activation is told in its unit, and what to try", () => {
  const config = parseConfig({ sae: { ...topk, dIn: 4, dSae: 8 }, data: { activations: "a" }, output: "o" }, [
    "training.steps=1",
  ]);
  const after = (explainedVariance: number, batchSize = 32): readonly string[] =>
    adviceAfter({ explainedVariance, l0: 2 } as TrainingProgress, config.sae as SaeTrainingConfig, { batchSize });
  expect(after(-2.38)).toEqual([
    expect.stringMatching(
      /^warning: the SAE leaves 338% of the variance unexplained, where the mean activation would leave 100%: training has diverged, .* lower training\.lr, /,
    ),
  ]);
  expect(after(-4.8e6)[0]).toContain("leaves 4.8e+8% of the variance");
  expect(after(0.2)).toEqual([]);
  expect(after(Number.NaN)).toEqual([expect.stringMatching(/is undefined: all activations of the last batch/)]);
  expect(after(Number.NaN, 1)).toEqual(["explained variance is undefined: a batch is one token"]);
});
