import { afterAll, describe, expect, test } from "vitest";
import { Device } from "../../lib/engine/device.js";
import { RandomGenerator } from "../../lib/engine/random.js";
import type { Tensor } from "../../lib/engine/tensor.js";
import { Sae } from "../../lib/sae/sae.js";
import { measureRecovery } from "../../lib/toy/recovery.js";
import { compareDirections } from "../../lib/toy/recoveryDirections.js";
import { FiringCounts } from "../../lib/toy/recoveryFiring.js";
import { SyntheticModel } from "../../lib/toy/syntheticModel.js";
import { testDevice } from "../testDevice.js";

const device = await Device.open(testDevice, { threads: 2 });
afterAll(() => device.close());

function rows(...vectors: readonly (readonly number[])[]): Tensor {
  return device.tensor(Float32Array.from(vectors.flat()), [vectors.length, vectors[0]!.length]);
}

function randomRows(count: number, width: number, seed: number): Tensor {
  const tensor = device.empty([count, width]);
  new RandomGenerator(seed).normal(tensor);
  return tensor;
}

describe("directions", () => {
  test("a dictionary matches itself perfectly: also negated, permuted and scaled", async () => {
    const features = randomRows(10, 16, 1);
    const order = device.tensor(Int32Array.of(3, 1, 4, 0, 5, 9, 2, 6, 8, 7), [10]);
    const negated = device.kernels.scale(features, -1);
    const permuted = device.kernels.gatherRows(features, order);
    const scaled = device.kernels.scaleRows(
      features,
      device.tensor(
        Float32Array.from({ length: 10 }, (_, i) => i + 0.1),
        [10],
      ),
    );
    for (const [name, latents] of Object.entries({ features, negated, permuted, scaled })) {
      const { mcc, mmcs, uniqueness, bestFeature } = await compareDirections(latents, features);
      expect(mcc, name).toBeCloseTo(1, 6);
      expect(uniqueness, name).toBe(1);
      if (name !== "negated") expect(mmcs, name).toBeCloseTo(1, 6);
      else expect(mmcs).toBeLessThan(0.9); // the sign matters to MMCS
      if (name === "permuted") expect(Array.from(bestFeature)).toEqual([3, 1, 4, 0, 5, 9, 2, 6, 8, 7]);
    }
  });

  test("10 random directions match 10 others in 256 dimensions with less than 0.3", async () => {
    const { mcc } = await compareDirections(randomRows(10, 256, 1), randomRows(10, 256, 2));
    expect(mcc).toBeGreaterThan(0);
    expect(mcc).toBeLessThan(0.3);
  });

  test("two latents on one feature: the matching gives the second what is left, uniqueness halves", async () => {
    const features = rows([1, 0, 0], [0, 1, 0], [0, 0, 1]);
    const latents = rows([1, 0, 0], [0.8, 0.6, 0]);
    const { mcc, mmcs, uniqueness, bestFeature } = await compareDirections(latents, features);
    expect(mcc).toBeCloseTo((1 + 0.6) / 2, 6);
    expect(mmcs).toBeCloseTo((1 + 0.6 + 0) / 3, 6);
    expect(uniqueness).toBe(0.5);
    expect(Array.from(bestFeature)).toEqual([0, 0]);
  });

  test("more latents than features are matched as far as there are features; a dead latent of zeros matches nothing", async () => {
    const features = rows([1, 0], [0, 1]);
    const latents = rows([0, 0], [0, 2], [3, 0]);
    const { mcc, uniqueness, bestFeature } = await compareDirections(latents, features);
    expect(mcc).toBeCloseTo(1, 6);
    expect(uniqueness).toBeCloseTo(2 / 3, 12);
    expect(Array.from(bestFeature)).toEqual([0, 1, 0]);
  });

  test("other widths, no rows and NaN are refused", async () => {
    const features = rows([1, 0], [0, 1]);
    for (const latents of [rows([1, 0, 0]), device.empty([0, 2])]) {
      await expect(compareDirections(latents, features)).rejects.toMatchObject({ code: "ERR_SHAPE_MISMATCH" });
    }
    await expect(compareDirections(rows([Number.NaN, 1]), features)).rejects.toMatchObject({ code: "ERR_NON_FINITE" });
  });
});

describe("firing", () => {
  const content = (samples: readonly (readonly number[])[], values?: readonly number[]) => {
    const features = Uint32Array.from(samples.flat());
    const rowOffsets = new Float64Array(samples.length + 1);
    for (const [row, sample] of samples.entries()) rowOffsets[row + 1] = rowOffsets[row]! + sample.length;
    const all = Float32Array.from(values ?? Array.from(features, () => 1));
    return { features, rowOffsets, preActivations: all, values: all };
  };

  test("precision, recall and F1 are means over latents, 0 where undefined; entries of value 0 do not fire", () => {
    // latent 0 -> feature 2, latent 1 -> feature 0, latent 2 -> feature 1 (never fires), latent 3 dead
    const counts = new FiringCounts(Uint32Array.of(2, 0, 1, 2), 3);
    counts.add(content([[0], [0, 1], [2]]), content([[2], [0], [0, 2]]));
    counts.add(content([[0, 3], []], [-1, 0]), content([[], [2]]));
    // latent 0 fires in samples 0, 1, 3; feature 2 in 0, 2, 4: once together. Latent 1 fires in 1; feature 0 in 1, 2.
    const { precision, recall, f1, deadLatents, trueL0 } = counts.read();
    expect(precision).toBeCloseTo((1 / 3 + 1 + 0 + 0) / 4, 12);
    expect(recall).toBeCloseTo((1 / 3 + 1 / 2 + 0 + 0) / 4, 12);
    expect(f1).toBeCloseTo((1 / 3 + 2 / 3 + 0 + 0) / 4, 12);
    expect(deadLatents).toBe(1);
    expect(trueL0).toBe(5 / 5);
  });
});

describe("an SAE on synthetic data", () => {
  const options = {
    features: 24,
    dIn: 32,
    hierarchy: { roots: 2, children: 2, depth: 2 },
    probabilities: { max: 0.3, min: 0.02 },
    orthogonalisation: { steps: 300, lr: 0.01 },
  };

  test("the true features as a dictionary: every metric near its best", async () => {
    using model = await SyntheticModel.create(options, device);
    const { directions, bias } = model.truth;
    // Nearly orthogonal directions, magnitudes around 4.5: a threshold in between tells which features fire.
    using sae = new Sae(
      { architecture: "relu", dIn: 32, dSae: 24, applyBDecToInput: true },
      {
        encoder: device.kernels.scale(directions, 1),
        encoderBias: device.tensor(new Float32Array(24).fill(-0.3), [24]),
        decoder: device.kernels.scale(directions, 1),
        decoderBias: device.kernels.scale(bias, 1),
      },
      device,
    );
    const recovery = await measureRecovery(sae, model, { samples: 5000, batchSize: 700 });
    expect(recovery.samples).toBe(5000);
    expect(recovery.mcc).toBeGreaterThan(0.9999);
    expect(recovery.mmcs).toBeGreaterThan(0.9999);
    expect(recovery.uniqueness).toBe(1);
    expect(recovery.f1).toBeGreaterThan(0.9);
    expect(recovery.precision).toBeGreaterThan(0.9);
    expect(recovery.recall).toBeGreaterThan(0.9);
    expect(recovery.explainedVariance).toBeGreaterThan(0.97);
    expect(recovery.shrinkage).toBeGreaterThan(0.85);
    expect(recovery.shrinkage).toBeLessThan(1);
    expect(recovery.l0).toBeCloseTo(recovery.trueL0, 0);
    expect(recovery.deadLatents).toBe(0);
    expect(await measureRecovery(sae, model, { samples: 5000, batchSize: 5000 })).toEqual({
      ...recovery,
      explainedVariance: expect.closeTo(recovery.explainedVariance, 9),
      shrinkage: expect.closeTo(recovery.shrinkage, 9),
    });
  });

  test("an SAE that is the identity explains everything", async () => {
    using model = await SyntheticModel.create(options, device);
    // Of each dimension one latent for the positive and one for the negative part.
    const signs = Float32Array.from({ length: 64 * 32 }, (_, i) =>
      Math.floor(i / 32) % 32 === i % 32 ? (i < 32 * 32 ? 1 : -1) : 0,
    );
    using identity = new Sae(
      { architecture: "relu", dIn: 32, dSae: 64, applyBDecToInput: false },
      {
        encoder: device.tensor(signs, [64, 32]),
        encoderBias: device.zeros([64]),
        decoder: device.tensor(signs, [64, 32]),
        decoderBias: device.zeros([32]),
      },
      device,
    );
    const perfect = await measureRecovery(identity, model, { samples: 500 });
    expect(perfect.explainedVariance).toBeCloseTo(1, 6);
    expect(perfect.shrinkage).toBeCloseTo(1, 6);
    expect(perfect.l0).toBeCloseTo(32, 3);
  });

  test("an SAE of another width is refused", async () => {
    using model = await SyntheticModel.create(options, device);
    using sae = Sae.create({ architecture: "topk", dIn: 16, dSae: 24, k: 2, applyBDecToInput: true }, device, 0);
    await expect(measureRecovery(sae, model)).rejects.toMatchObject({ code: "ERR_SHAPE_MISMATCH" });
  });
});
