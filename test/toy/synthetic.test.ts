import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { StoredActivations } from "../../lib/activations/storedActivations.js";
import { Device } from "../../lib/engine/device.js";
import { SyntheticActivations } from "../../lib/toy/syntheticActivations.js";
import { parseSyntheticConfig, type SyntheticOptions } from "../../lib/toy/syntheticConfig.js";
import { separationGradient } from "../../lib/toy/syntheticDirections.js";
import { loadSyntheticModel, saveSyntheticModel, writeSynthetic } from "../../lib/toy/syntheticFiles.js";
import { SyntheticModel } from "../../lib/toy/syntheticModel.js";
import { compensatedProbabilities, hierarchyParents, zipfProbabilities } from "../../lib/toy/syntheticProbabilities.js";
import { testDevice } from "../testDevice.js";

const device = await Device.open(testDevice, { threads: 2 });
const folder = await mkdtemp(join(tmpdir(), "synthetic-"));
afterAll(async () => {
  await device.close();
  await rm(folder, { recursive: true });
});

const small = { features: 100, dIn: 20, hierarchy: { roots: 3, children: 3, depth: 2 }, correlation: { rank: 4 } };

describe("the recipe", () => {
  test("left out constants are those of SynthSAEBench, one root for 128 features", () => {
    const config = parseSyntheticConfig({ features: 16_384, dIn: 768 });
    expect(config.hierarchy).toEqual({ roots: 128, children: 4, depth: 3 });
    const parents = hierarchyParents(config);
    // 128 * (1 + 4 + 16 + 64) features are in trees
    expect(parents.findLastIndex((parent) => parent >= 0)).toBe(10_879);
    expect([parents[0], parents[127], parents[128], parents[131], parents[132], parents[639], parents[640]]).toEqual([
      -1, -1, 0, 0, 1, 127, 128,
    ]);
    const base = zipfProbabilities(config);
    expect(base[0]).toBeCloseTo(0.4, 12);
    expect(base[16_383]).toBeCloseTo(5e-4, 12);
    expect(parseSyntheticConfig({}).hierarchy.roots).toBe(8);
  });

  test("trees end where the features end", () => {
    const parents = hierarchyParents(parseSyntheticConfig({ ...small, features: 10 }));
    expect(Array.from(parents)).toEqual([-1, -1, -1, 0, 0, 0, 1, 1, 1, 2]);
    expect(Array.from(hierarchyParents(parseSyntheticConfig({ ...small, features: 2 })))).toEqual([-1, -1]);
  });

  test("probabilities make up for the parent and for siblings that would fire as well, at most to 1", () => {
    const base = Float64Array.of(0.4, 0.1, 0.2, 0.05);
    const compensated = compensatedProbabilities(base, Int32Array.of(-1, 0, 0, 1));
    expect(compensated[0]).toBe(0.4);
    expect(compensated[1]).toBeCloseTo((0.1 / 0.4) * (1 + 0.2 / 0.4), 12);
    expect(compensated[2]).toBeCloseTo((0.2 / 0.4) * (1 + 0.1 / 0.4), 12);
    expect(compensated[3]).toBeCloseTo(0.05 / 0.1, 12);
    expect(compensatedProbabilities(Float64Array.of(0.1, 0.3), Int32Array.of(-1, 0))[1]).toBe(1);
  });

  test.each([
    [{ features: 0 }, "features"],
    [{ probabilities: { min: 0.5 } }, "probabilities.min"],
    [{ probabilities: { max: 1.5 } }, "probabilities.max"],
    [{ magnitudes: { first: 0 } }, "magnitudes.first"],
    [{ seed: -1 }, "seed"],
    [{ depth: 3 }, "depth"],
  ])("%j is refused, naming the key", (options, key) => {
    expect(() => parseSyntheticConfig(options as SyntheticOptions)).toThrow(
      expect.objectContaining({ code: "ERR_CONFIG", message: expect.stringContaining(key) }),
    );
  });

  test("the gradient that separates directions is that of its loss", async () => {
    const directions = device.tensor(Float32Array.of(1, 0.2, -0.3, 0.5, 0.8, 0.1), [3, 2]);
    using gradient = separationGradient(directions);
    const found = await gradient.readFloat32();
    const d = Array.from(await directions.readFloat32());
    const loss = (v: readonly number[]): number => {
      let sum = 0;
      for (let i = 0; i < 3; i++) {
        for (let j = 0; j < 3; j++) {
          const dot = v[2 * i]! * v[2 * j]! + v[2 * i + 1]! * v[2 * j + 1]!;
          sum += i === j ? 3 * (dot - 1) ** 2 : dot ** 2;
        }
      }
      return sum;
    };
    for (let i = 0; i < 6; i++) {
      const moved = (by: number) => loss(d.map((value, k) => (k === i ? value + by : value)));
      expect(found[i]).toBeCloseTo((moved(1e-5) - moved(-1e-5)) / 2e-5, 3);
    }
  });
});

describe("a model", () => {
  test("has unit directions that are less alike than random ones, and a bias of the norm asked for", async () => {
    const config = { features: 64, dIn: 32, biasNorm: 2 };
    using random = await SyntheticModel.create({ ...config, orthogonalisation: { steps: 0 } }, device);
    using separated = await SyntheticModel.create({ ...config, orthogonalisation: { steps: 200, lr: 0.01 } }, device);
    const overlap = async (model: SyntheticModel): Promise<number> => {
      const { directions } = model.truth;
      using products = device.kernels.linear(directions, directions);
      const all = await products.readFloat32();
      for (let i = 0; i < 64; i++) expect(all[i * 65]).toBeCloseTo(1, 5);
      return all.reduce((sum, value) => sum + value ** 2, -64);
    };
    const before = await overlap(random);
    // The least that 64 unit vectors in 32 dimensions can reach is 64² / 32 - 64 = 64.
    expect(before).toBeGreaterThan(100);
    expect(await overlap(separated)).toBeLessThan(66);
    const bias = await separated.truth.bias.readFloat32();
    expect(Math.hypot(...bias)).toBeCloseTo(2, 5);
  });

  test("features fire about as often as the recipe says, children only with their parents and one at a time", async () => {
    using model = await SyntheticModel.create({ ...small, probabilities: { max: 0.4, min: 0.005 } }, device);
    const parents = hierarchyParents(model.config);
    const base = zipfProbabilities(model.config);
    const samples = 40_000;
    using codes = model.codes(samples, 0);
    const { rowOffsets, features, values } = await codes.read();
    const fired = new Float64Array(100);
    for (let row = 0; row < samples; row++) {
      const active = new Set(features.subarray(rowOffsets[row], rowOffsets[row + 1]));
      const families = [...active].map((feature) => parents[feature]!).filter((parent) => parent >= 0);
      if (!families.every((parent) => active.has(parent))) throw new Error(`sample ${row}: a child without its parent`);
      if (new Set(families).size !== families.length) throw new Error(`sample ${row}: two children of one parent`);
      for (const feature of active) fired[feature]!++;
    }
    expect(values.every((value) => value > 0)).toBe(true);
    for (let feature = 0; feature < 100; feature++) {
      const expected = base[feature]!;
      // Roots and free features exactly; the recipe makes up for the hierarchy only roughly.
      if (parents[feature]! < 0) {
        const deviation = Math.sqrt((expected * (1 - expected)) / samples);
        expect(Math.abs(fired[feature]! / samples - expected), `feature ${feature}`).toBeLessThan(5 * deviation);
      } else {
        expect(fired[feature]! / samples, `feature ${feature}`).toBeLessThan(1.1 * expected);
        expect(fired[feature]! / samples, `feature ${feature}`).toBeGreaterThan(0);
      }
    }
  });

  test("activations are the bias plus the directions of what fires", async () => {
    using model = await SyntheticModel.create(small, device);
    using codes = model.codes(17, 5);
    using activations = model.activations(codes);
    const [{ rowOffsets, features, values }, x, d, bias] = await Promise.all([
      codes.read(),
      activations.readFloat32(),
      model.truth.directions.readFloat32(),
      model.truth.bias.readFloat32(),
    ]);
    for (let row = 0; row < 17; row++) {
      for (let i = 0; i < 20; i++) {
        let sum = bias[i]!;
        for (let e = rowOffsets[row]!; e < rowOffsets[row + 1]!; e++) sum += values[e]! * d[features[e]! * 20 + i]!;
        expect(x[row * 20 + i]).toBeCloseTo(sum, 4);
      }
    }
  });

  test("the same seed gives the same model, another seed another one", async () => {
    const read = async (seed: number) => {
      using model = await SyntheticModel.create({ ...small, seed }, device);
      using codes = model.codes(50, 0);
      using x = model.activations(codes);
      return await x.readFloat32();
    };
    expect(await read(1)).toEqual(await read(1));
    expect(await read(1)).not.toEqual(await read(2));
  });
});

describe("as a source of activations", () => {
  test("batches follow one another, whatever their sizes, and a restored source continues bit for bit", async () => {
    using model = await SyntheticModel.create(small, device);
    const source = new SyntheticActivations(model, 1000);
    expect(source.dIn).toBe(20);
    const read = async (from: SyntheticActivations, rows: number) => {
      using batch = await from.next(rows);
      return Array.from(await batch.readFloat32());
    };
    const first = await read(source, 30);
    const state = JSON.parse(JSON.stringify(await source.saveState()));
    const then = await read(source, 40);
    const restored = new SyntheticActivations(model);
    await restored.restoreState(state);
    expect(await read(restored, 40)).toEqual(then);
    expect([...first, ...then]).toEqual(await read(new SyntheticActivations(model, 1000), 70));

    using other = await SyntheticModel.create({ ...small, seed: 1 }, device);
    await expect(new SyntheticActivations(other).restoreState(state)).rejects.toMatchObject({ code: "ERR_CONFIG" });
    state.state.next = -1;
    await expect(restored.restoreState(state)).rejects.toMatchObject({ code: "ERR_FORMAT" });
    await expect(source.next(10, AbortSignal.abort())).rejects.toMatchObject({ code: "ERR_ABORTED" });
  });
});

describe("as files", () => {
  test("a model that was saved and loaded draws the same samples", async () => {
    for (const options of [small, { ...small, correlation: { rank: 0 } }]) {
      using model = await SyntheticModel.create(options, device);
      const path = join(folder, "truth.safetensors");
      await saveSyntheticModel(model, path);
      using loaded = await loadSyntheticModel(path, device);
      expect(loaded.config).toEqual(model.config);
      using codes = model.codes(64, 9);
      using again = loaded.codes(64, 9);
      expect(await again.read()).toEqual(await codes.read());
      using x = model.activations(codes);
      using y = loaded.activations(again);
      expect(await y.readFloat32()).toEqual(await x.readFloat32());
    }
  });

  test("written samples are those of the source, in a folder that stored activations read", async () => {
    using model = await SyntheticModel.create(small, device);
    const directory = join(folder, "written");
    const progress: number[] = [];
    await writeSynthetic(model, directory, { samples: 10_000, firstSample: 3, onProgress: (n) => progress.push(n) });
    expect(progress).toEqual([8192, 10_000]);
    expect((await readdir(directory)).sort()).toEqual(["activations", "truth.safetensors"]);
    const stored = await StoredActivations.open(join(directory, "activations"), device, { shuffle: false, seed: 0 });
    expect(stored.rows).toBe(10_000);
    using batch = await stored.next(100);
    using expected = await new SyntheticActivations(model, 3).next(100);
    expect(await batch.readFloat32()).toEqual(await expected.readFloat32());
    stored.dispose();
    await expect(writeSynthetic(model, directory, { samples: 1 })).rejects.toMatchObject({ code: "ERR_CONFIG" });
  });

  test("an aborted writing leaves nothing behind", async () => {
    using model = await SyntheticModel.create(small, device);
    const directory = join(folder, "aborted");
    const signal = AbortSignal.abort();
    await expect(writeSynthetic(model, directory, { samples: 10, signal })).rejects.toMatchObject({
      code: "ERR_ABORTED",
    });
    expect(await readdir(directory)).toEqual([]);
  });

  test("what is no truth is refused", async () => {
    using model = await SyntheticModel.create(small, device);
    const path = join(folder, "spoilt.safetensors");
    await saveSyntheticModel(model, path);
    const bytes = await readFile(path);
    await writeFile(path, bytes.subarray(0, bytes.length - 4));
    await expect(loadSyntheticModel(path, device)).rejects.toMatchObject({ code: "ERR_FORMAT" });
    await writeFile(
      path,
      Buffer.from(bytes.toString("latin1").replace("synthetic data 1", "synthetic data 9"), "latin1"),
    );
    await expect(loadSyntheticModel(path, device)).rejects.toMatchObject({ code: "ERR_FORMAT" });
    bytes.writeFloatLE(Number.NaN, bytes.length - 8);
    await writeFile(path, bytes);
    await expect(loadSyntheticModel(path, device)).rejects.toMatchObject({ code: "ERR_NON_FINITE" });
    const empty = await mkdtemp(join(folder, "empty-"));
    await expect(loadSyntheticModel(empty, device)).rejects.toMatchObject({
      code: "ERR_NOT_FOUND",
      message: `there is no file ${join(empty, "truth.safetensors")}`,
    });
    await expect(loadSyntheticModel(join(folder, "none"), device)).rejects.toMatchObject({ code: "ERR_NOT_FOUND" });
  });
});
