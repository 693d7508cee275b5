import { expect, test } from "vitest";
import type { AbsorptionOfLetters } from "../../lib/evaluation/absorptionOfLetters.js";
import { absorptionRefusal } from "../../lib/evaluation/absorptionRefusal.js";
import { AUTO_INTERP_CHANCE, evaluateAutoInterp } from "../../lib/evaluation/autoInterp.js";
import {
  absorptionConfig,
  absorptionResult,
  autoInterpResult,
  sparseProbingResult,
} from "../../lib/evaluation/benchResults.js";
import { benchText } from "../../lib/evaluation/benchText.js";
import { type BenchMeasurement, meanAndDeviation, saeBenchResult } from "../../lib/evaluation/saeBenchResult.js";
import { ChatClient } from "../../lib/interpretation/chatClient.js";
import { explanation, fireExamples, judge, tokenText } from "../interpretation/judges.js";
import { type MockAnswer, type MockRequest, startServer } from "../interpretation/mockServer.js";
import { problems, schemas } from "./saebench.js";

const subject = {
  saeName: "runs/first",
  cfg: { d_in: 4 },
  id: "0",
  time: new Date(1_700_000_000_000),
  madeBy: "monosem 1",
};
const setting = { modelName: "tiny", contextSize: 64, seed: 42 };

function expectValid(name: string, measurement: BenchMeasurement): void {
  const result = saeBenchResult(measurement, subject);
  expect(problems(name, result)).toBeNull();
  expect(result).toMatchObject({
    eval_type_id: measurement.typeId,
    sae_lens_id: "custom_sae",
    sae_lens_release_id: "runs/first",
    datetime_epoch_millis: 1_700_000_000_000,
  });
}

test("the schemas tell: a result without what they require is refused", () => {
  const [name] = Object.keys(schemas);
  expect(Object.keys(schemas).sort()).toEqual(["absorption_first_letter", "autointerp", "core", "sparse_probing"]);
  expect(problems(name!, { eval_type_id: "x" })).not.toBeNull();
});

test("sparse probing is in SAEBench's form, means over classes and data sets", () => {
  const accuracies = (value: number) => ({
    llm: value,
    llmTop: new Map([[1, value - 0.1]]),
    sae: value - 0.2,
    saeTop: new Map([[1, value - 0.3]]),
  });
  const dataset = (name: string, values: readonly number[]) => ({
    name,
    mean: accuracies(values.reduce((sum, value) => sum + value, 0) / values.length),
    classes: values.map((value, i) => ({
      label: `class ${i}`,
      trainTexts: 80,
      testTexts: 20,
      latents: [1],
      ...accuracies(value),
    })),
    cut: 0,
  });
  const measurement = sparseProbingResult([dataset("a", [0.9, 0.7]), dataset("b", [1])], setting);
  expectValid("sparse_probing", measurement);
  expect(measurement.metrics.llm!.llm_test_accuracy).toBeCloseTo(0.9);
  expect(measurement.metrics.sae!.sae_top_1_test_accuracy).toBeCloseTo(0.6);
  expect(measurement.details).toHaveLength(2);
  expect(measurement.unstructured).toMatchObject({
    a_results: { llm_test_accuracy: { "class 0": 0.9, "class 1": 0.7 } },
  });
});

const letters: NonNullable<AbsorptionOfLetters["letters"]> = [
  [0.2, 2, 1],
  [0.4, 4, 3],
].map(([meanFraction, fullCount, latents], i) => ({
  letter: "ab"[i]!,
  probeF1: 0.9,
  mainLatents: Array.from({ length: latents! }, (_, latent) => latent),
  latentF1: [0.8],
  truePositives: 20,
  meanFraction: meanFraction!,
  fullCount: fullCount!,
  fullRate: fullCount! / 20,
  chance: { meanFraction: 0, fullRate: 0 },
}));
const task = {
  probeF1: [0.9, 0.9, undefined],
  lettersFound: 2,
  lettersNeeded: 2,
  spellingAccuracy: 0.95,
  trainWords: 80,
  testWords: 20,
  leftOut: 1,
  examples: 10,
};

test("absorption is in SAEBench's form, with means and sample deviations over the letters", () => {
  const measurement = absorptionResult(letters, { task, config: absorptionConfig(setting) });
  expectValid("absorption_first_letter", measurement);
  expect(measurement.metrics.mean).toEqual({
    mean_absorption_fraction_score: expect.closeTo(0.3, 10),
    mean_full_absorption_score: expect.closeTo(0.15, 10),
    mean_num_split_features: 2,
    std_dev_absorption_fraction_score: expect.closeTo(0.2 / Math.SQRT2, 10),
    std_dev_full_absorption_score: expect.closeTo(0.1 / Math.SQRT2, 10),
    std_dev_num_split_features: expect.closeTo(Math.SQRT2, 10),
  });
  expect(meanAndDeviation([3])).toEqual({ mean: 3, deviation: 0 });
});

/** The judge's score by `decide`, of one latent. */
async function autoInterp(answer: (request: MockRequest) => MockAnswer) {
  const { baseUrl, requests } = await startServer(answer);
  const evaluation = await evaluateAutoInterp({
    latents: [fireExamples(20)],
    judge: new ChatClient({ baseUrl, retries: 0 }),
    judgeModel: "mock",
    tokenText,
  });
  return { evaluation, requests };
}

test("explanations score what their judge gets right of 14 examples: 2 + 2 active, 10 silent", async () => {
  for (const [decide, score] of [
    [(right: boolean) => right, 1],
    [(right: boolean) => !right, 0],
    [() => false, 10 / 14],
    [() => true, 4 / 14],
  ] as const) {
    const { evaluation, requests } = await autoInterp(judge(decide));
    expect(evaluation.latents).toEqual([{ latent: 3, explanation: explanation.explanation, score, unanswered: 0 }]);
    expect(requests).toHaveLength(2);
    const measurement = autoInterpResult(evaluation, { setting, judge: "mock", dataset: "texts", tokens: 1000 })!;
    expectValid("autointerp", measurement);
    expect(measurement.metrics.autointerp).toEqual({ autointerp_score: score, autointerp_std_dev: 0 });
  }
  expect(AUTO_INTERP_CHANCE).toBeCloseTo(10 / 14, 12);
});

test("an answer that cannot be read counts as a guess and is counted, an explanation that is none gives no score", async () => {
  const right = judge((is) => is);
  const silent = await autoInterp((request) =>
    request.body.response_format?.json_schema?.name === "answers" ? { body: { choices: [] } } : right(request),
  );
  expect(silent.evaluation.latents).toMatchObject([{ score: 0.5, unanswered: 14 }]);
  const mute = await autoInterp(() => ({ body: { choices: [{ finish_reason: "length", message: { content: "" } }] } }));
  expect(mute.evaluation.latents).toMatchObject([{ latent: 3, unscored: "the judge gave no explanation: truncated" }]);
  expect(autoInterpResult(mute.evaluation, { setting, judge: "mock", dataset: "texts", tokens: 1 })).toBeUndefined();
});

test("a refusal tells a vocabulary of too few words from a model that cannot spell", () => {
  const probeF1 = (probed: number) => Array.from({ length: 26 }, (_, i) => (i < probed ? i / 26 : undefined));
  const few = { ...task, lettersFound: 4, lettersNeeded: 20, testWords: 37 };
  expect(absorptionRefusal({ ...few, probeF1: probeF1(16) })).toMatch(
    /^the vocabulary has too few words: 16 of 26 letters begin enough .* 20 are needed; probes find 4 of these$/,
  );
  expect(absorptionRefusal({ ...few, probeF1: probeF1(0), lettersFound: 0 })).toMatch(
    /: 0 of 26 letters begin enough /,
  );
  expect(absorptionRefusal({ ...few, probeF1: probeF1(20) })).toMatch(
    /^the model does not know .*: probes find 4 of 26 letters \(20 have words enough to be probed; .*the best is 0\.73\)/,
  );
});

test("the table of sparse probing has each k for latents and for dimensions, and how many texts were tested", () => {
  const accuracies = {
    llm: 0.9,
    llmTop: new Map([1, 2, 10].map((k) => [k, 0.6 + k / 100])),
    sae: 0.8,
    saeTop: new Map([1, 2, 10].map((k) => [k, 0.5 + k / 100])),
  };
  const one = { label: "a", trainTexts: 80, testTexts: 24, latents: [1], ...accuracies };
  const measured = sparseProbingResult([{ name: "a", mean: accuracies, classes: [one], cut: 0 }], setting);
  const lines = benchText([{ sae: "one", evaluation: "sparse-probing", result: saeBenchResult(measured, subject) }])
    .trimEnd()
    .split("\n")
    .slice(-2)
    .map((line) => line.trim().split(/ {2,}/));
  expect(lines).toEqual([
    [
      "tested",
      "1 latent",
      "2 latents",
      "10 latents",
      "all latents",
      "1 dimension",
      "2 dimensions",
      "10 dimensions",
      "all",
    ],
    ["one", "24", "51.0%", "52.0%", "60.0%", "80.0%", "61.0%", "62.0%", "70.0%", "90.0%"],
  ]);
});

test("the table has a line for each SAE, with what was not evaluated and why, harmlessly", () => {
  const result = saeBenchResult(absorptionResult(letters, { task, config: {} }), subject);
  const text = benchText([
    { sae: "one\u001b[2J", evaluation: "absorption", result },
    { sae: "two", evaluation: "absorption", notEvaluated: "it cannot\u0007 spell" },
  ]);
  expect(text).toMatch(/^one\\u\{1b\}\[2J +30\.0% +15\.0% +2\.00$/m);
  expect(text).toMatch(/^two +not evaluated: it cannot\\u\{7\} spell$/m);
  expect(text).not.toContain("\u001b");
});
