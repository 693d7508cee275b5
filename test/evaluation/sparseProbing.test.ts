import { afterAll, beforeAll, expect, test } from "vitest";
import type { Device } from "../../lib/engine/device.js";
import { evaluateSparseProbing } from "../../lib/evaluation/sparseProbing.js";
import type { HookedTransformer } from "../../lib/models/hookedTransformer.js";
import { fitLogisticProbe, probeScores } from "../../lib/probing/linearProbe.js";
import { probeMetrics } from "../../lib/probing/probeMetrics.js";
import { rankByMeanDifference } from "../../lib/probing/sparseProbe.js";
import { exactSae, HOOK, openTinyModel } from "../analysis/tinyModel.js";
import { sparseFeatures } from "../probing/featureMatrices.js";
import { saeBench } from "./saebench.js";

test("the features that are probed, and how well, are SAEBench's", async () => {
  const { x, y, trainRows, top } = saeBench.sparseProbing;
  const [train, test] = [x.slice(0, trainRows), x.slice(trainRows)].map(sparseFeatures);
  const labels = y.slice(0, trainRows);
  for (const [k, { features, accuracy }] of Object.entries(top)) {
    const chosen = rankByMeanDifference(train!, labels).slice(0, Number(k));
    expect([...chosen].sort((a, b) => a - b)).toEqual(features);
    const probe = await fitLogisticProbe(train!.selectColumns(chosen), labels, { penalty: 1, standardise: false });
    const scores = probeScores(probe, test!.selectColumns(chosen));
    expect(probeMetrics(scores, y.slice(trainRows)).accuracy).toBeCloseTo(accuracy, 12);
  }
});

let device: Device;
let model: HookedTransformer;

beforeAll(async () => {
  ({ device, model } = await openTinyModel());
});
afterAll(() => device.close());

const starts = ["One day the", "The little", "Then the", "A happy", "Once the"];
const ends = ["went home", "was very happy", "saw a dog", "said no", "ran away", "had a red ball"];
const people = (labels: readonly string[]) =>
  starts.flatMap((start) =>
    ends.flatMap((end) => labels.map((label) => ({ text: `${start} ${label} ${end}`, label, type: undefined }))),
  );

test("each class is told from as many texts of the others; latents that are the activations do as well as these", async () => {
  using sae = exactSae(device, 192, { hookName: HOOK });
  const options = { sae, model, contextSize: 32, prependBos: true, ks: [1, 5] };
  const [three, two] = await evaluateSparseProbing({
    ...options,
    datasets: [
      { name: "three", texts: people(["girl", "boy", "king"]) },
      { name: "two", texts: people(["girl", "boy"]) },
    ],
  });
  expect(three!.classes.map(({ label }) => label)).toEqual(["boy", "girl", "king"]);
  for (const { trainTexts, testTexts, latents } of [...three!.classes, ...two!.classes]) {
    expect([trainTexts, testTexts]).toEqual([48, 12]);
    expect(latents).toHaveLength(5);
  }
  expect(three!.mean.llm).toBeGreaterThan(0.85);
  expect(three!.mean.sae).toBeGreaterThan(0.85);
  expect(three!.mean.llm).toBeCloseTo(three!.classes.reduce((sum, { llm }) => sum + llm, 0) / 3, 12);
  expect([...two!.mean.saeTop.keys()]).toEqual([1, 5]);
});

test("labels that mean nothing stay at chance", async () => {
  using sae = exactSae(device, 192, { hookName: HOOK });
  // the two texts of a pair are the same: whoever learns one by heart is wrong on the other
  const texts = people(["girl", "boy"]).map(({ text, label }) => ({
    text: text.replace("boy", "girl"),
    label,
    type: undefined,
  }));
  const [found] = await evaluateSparseProbing({
    sae,
    model,
    contextSize: 32,
    prependBos: true,
    datasets: [{ name: "none", texts }],
  });
  expect(found!.mean.llm).toBeLessThan(0.7);
});

test("what cannot be probed is refused", async () => {
  using sae = exactSae(device, 192, { hookName: HOOK });
  const options = { sae, model, contextSize: 32, prependBos: true };
  const texts = people(["girl", "boy"]);
  for (const [more, message] of [
    [{ datasets: [{ name: "d", texts }], ks: [3] }, "k must be one of 1, 2, 5, 10, 20, 50, 100, found 3"],
    [{ datasets: [{ name: "d", texts: people(["girl"]) }] }, "d: a probe tells labels apart, but there are 1"],
    [
      { datasets: [{ name: "d", texts: [...texts, { ...texts[0]!, label: "king" }] }] },
      'd: the label "king" has 1 texts, but at least 4 are needed',
    ],
  ] as const) {
    await expect(evaluateSparseProbing({ ...options, ...more })).rejects.toThrow(message);
  }
});
