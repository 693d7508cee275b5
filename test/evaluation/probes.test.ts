import { expect, test } from "vitest";
import { classProbe, splitLatents } from "../../lib/evaluation/letterProbes.js";
import { fitL1LogisticProbe } from "../../lib/probing/l1LogisticProbe.js";
import { balancedWeights, fitLogisticProbe } from "../../lib/probing/linearProbe.js";
import { denseFeatures, sparseFeatures } from "../probing/featureMatrices.js";
import { saeBench } from "./saebench.js";

const { weightedProbes } = saeBench;

test("a logistic probe with balanced rows is scikit-learn's", async () => {
  for (const features of [denseFeatures(weightedProbes.x), sparseFeatures(weightedProbes.x)]) {
    const { weights, bias } = await fitLogisticProbe(features, weightedProbes.y, {
      penalty: 1,
      standardise: false,
      rowWeights: balancedWeights(weightedProbes.y),
    });
    weights.forEach((weight, i) => {
      expect(weight).toBeCloseTo(weightedProbes.balanced.weights[i]!, 4);
    });
    expect(bias).toBeCloseTo(weightedProbes.balanced.bias, 4);
  }
});

test("weights of rows are checked", async () => {
  const rowWeights = new Float64Array(weightedProbes.y.length);
  await expect(
    fitLogisticProbe(denseFeatures(weightedProbes.x), weightedProbes.y, { penalty: 1, rowWeights }),
  ).rejects.toThrow("rowWeights must be 80 numbers above 0");
});

test("a probe with an L1 penalty is scikit-learn's, and has its zeros", async () => {
  const positives = weightedProbes.y.reduce((sum, label) => sum + label, 0);
  const rowWeights = Float64Array.from(weightedProbes.y, (label) => (label === 1 ? (80 - positives) / positives : 1));
  for (const { penalty, weights, bias } of weightedProbes.sparse) {
    const found = await fitL1LogisticProbe(sparseFeatures(weightedProbes.x), weightedProbes.y, { penalty, rowWeights });
    found.weights.forEach((weight, i) => {
      expect(weight).toBeCloseTo(weights[i]!, 1);
      expect(weight === 0).toBe(weights[i] === 0);
    });
    expect(found.bias).toBeCloseTo(bias, 1);
  }
});

test("a letter's probe is the one that SAEBench's gradient descent ends at", async () => {
  const { acts, letters, probes } = saeBench.mainLatents;
  const split = { train: denseFeatures(acts), test: denseFeatures(acts), trainClasses: letters, testClasses: letters };
  for (const [letter, weights] of Object.entries(probes)) {
    const found = await classProbe(split, Number(letter), { classes: 26 });
    const size = Math.sqrt(weights.reduce((sum, weight) => sum + weight ** 2, 0));
    const error = weights.reduce((sum, weight, i) => sum + (weight - found!.probe.weights[i]!) ** 2, 0);
    expect(Math.sqrt(error) / size, letter).toBeLessThan(1e-4);
  }
});

test("the main latents of a letter are those that SAEBench's k-sparse probes choose", async () => {
  const { acts, letters, chosen } = saeBench.mainLatents;
  // As SAEBench trains on the training rows alone, the same rows test here.
  const split = {
    train: sparseFeatures(acts),
    test: sparseFeatures(acts),
    trainClasses: letters,
    testClasses: letters,
  };
  for (const [letter, byK] of Object.entries(chosen)) {
    const found = await splitLatents(split, Number(letter), { l1Penalty: 0.01, f1Jump: 0.03, mostLatents: 10 });
    expect(found!.latents).toEqual(byK[letter === "2" ? "2" : "1"]);
    expect(found!.f1).toHaveLength(found!.latents.length + 1);
  }
});

test("a letter without examples on one side has no latents", async () => {
  const rows = denseFeatures([[1], [0], [1], [0]]);
  const split = { train: rows, test: rows, trainClasses: [0, 1, 0, 1], testClasses: [1, 1, 1, 1] };
  expect(await splitLatents(split, 0, { l1Penalty: 0.01, f1Jump: 0.03, mostLatents: 10 })).toBeUndefined();
});
