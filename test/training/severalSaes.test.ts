import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { Device } from "../../lib/engine/device.js";
import type { SaeTrainingConfig } from "../../lib/sae/config.js";
import { Sae } from "../../lib/sae/sae.js";
import { Trainer, type TrainerOptions, type TrainingProgress } from "../../lib/training/trainer.js";
import { testDevice } from "../testDevice.js";
import { ArraySource } from "./arraySource.js";
import { activations, dIn, rows, sae, training } from "./smallRun.js";

let device: Device;
let directory: string;
beforeAll(async () => {
  device = await Device.open(testDevice, { threads: 2 });
});
afterAll(() => device.close());
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "monosem-"));
});
afterEach(() => rm(directory, { recursive: true }));

const output = (name: string): string => join(directory, name);

/** Two hooks side by side: 5 columns that are encoded by one SAE, 3 by another. */
const hooks = [
  { name: "left", width: 5 },
  { name: "right", width: 3 },
];
const twoHooks = (): ArraySource => new ArraySource(activations, dIn, device, { hooks });

/** The columns of one hook, as a source of its own. */
function alone(name: string): ArraySource {
  const from = name === "left" ? 0 : 5;
  const { width } = hooks.find((hook) => hook.name === name)!;
  const own = Array.from({ length: rows }, (_, r) => activations.slice(r * dIn + from, r * dIn + from + width));
  return new ArraySource(Float32Array.from(own.flatMap((row) => [...row])), width, device);
}

async function train(options: Pick<TrainerOptions, "sae" | "source"> & Partial<TrainerOptions>): Promise<{
  trainer: Trainer;
  progress: TrainingProgress[];
}> {
  const trainer = await Trainer.create({ training, device, ...options });
  const progress: TrainingProgress[] = [];
  for await (const line of trainer.run()) progress.push(line);
  return { trainer, progress };
}

async function weightsOf({ parameters }: Sae): Promise<Record<string, Float32Array>> {
  const values = Object.entries(parameters).map(async ([name, tensor]) => [name, await tensor!.readFloat32()] as const);
  return Object.fromEntries(await Promise.all(values));
}

describe("several SAEs on one stream", () => {
  const relu = { ...sae, architecture: "relu", l1Coefficient: 0.1 } as unknown as SaeTrainingConfig;

  test("each becomes what it would be alone, to the bit", async () => {
    const list = [
      { ...sae, name: "narrow", k: 2 },
      { ...sae, name: "wide", dSae: 40, seed: 9, normalizeActivations: "expected-average-only-in" as const },
      { ...relu, name: "l1" },
    ];
    const { trainer, progress } = await train({ sae: list, source: new ArraySource(activations, dIn, device) });
    expect(progress.filter(({ step }) => step === 20).map(({ name }) => name)).toEqual(["narrow", "wide", "l1"]);
    for (const [i, config] of list.entries()) {
      const single = await train({ sae: config, source: new ArraySource(activations, dIn, device) });
      expect(await weightsOf(trainer.saes[i]!), config.name).toEqual(await weightsOf(single.trainer.sae));
      const lines = progress.filter(({ name }) => name === config.name).map(({ name: _, ...line }) => line);
      expect(lines).toEqual(single.progress);
    }
  });

  test("of different hooks", async () => {
    const list = [
      { ...sae, name: "a", dIn: 5, hook: "left", bDecInit: "geometric-median" as const },
      { ...sae, name: "b", dIn: 3, hook: "right", normalizeActivations: "layer-norm" as const },
    ];
    const { trainer } = await train({ sae: list, source: twoHooks() });
    expect(trainer.saes.map(({ metadata }) => metadata.hookName)).toEqual(["left", "right"]);
    for (const [i, { hook, ...config }] of list.entries()) {
      const single = await train({ sae: config, source: alone(hook) });
      expect(await weightsOf(trainer.saes[i]!), hook).toEqual(await weightsOf(single.trainer.sae));
    }
  });

  test("write a folder each, share their checkpoints and resume bit for bit", async () => {
    const list = [
      { ...sae, name: "a" },
      { ...relu, name: "b" },
    ];
    const source = (): ArraySource => new ArraySource(activations, dIn, device);
    await train({ sae: list, source: source(), output: output("whole") });
    await train({ sae: list, source: source(), output: output("half"), training: { ...training, steps: 9 } });
    await train({ sae: list, source: source(), output: output("half"), resume: true });
    expect((await readdir(output("whole"))).sort()).toEqual(["a", "b", "checkpoints", "config.json"]);
    for (const path of [
      "a/sae/sae_weights.safetensors",
      "b/sae/sae_weights.safetensors",
      "a/metrics.jsonl",
      "b/metrics.jsonl",
    ]) {
      expect(await readFile(join(output("half"), path)), path).toEqual(await readFile(join(output("whole"), path)));
    }
    using loaded = await Sae.load(join(output("whole"), "b", "sae"), device);
    expect(loaded.config.architecture).toBe("relu");
  });

  test.each([
    ["without names", [sae, sae], /a name of its own/],
    [
      "of one name",
      [
        { ...sae, name: "a" },
        { ...sae, name: "a" },
      ],
      /a name of its own/,
    ],
    ["with a name that leaves the folder", [{ ...sae, name: "../a" }], /sae\.0\.name "\.\.\/a" becomes a folder/],
    ["with a reserved name", [{ ...sae, name: "checkpoints" }], /sae\.0\.name "checkpoints" is reserved/],
    ["none at all", [], /a name of its own/],
    [
      "widths that are not the activations', by the place in the list",
      [
        { ...sae, name: "a" },
        { ...sae, name: "b", dIn: 100 },
      ],
      /^sae\.1\.dIn is 100, but the activations are 8 wide$/,
    ],
  ])("%s are refused", async (_, list, message) => {
    const source = new ArraySource(activations, dIn, device);
    await expect(Trainer.create({ sae: list, training, source, device })).rejects.toThrow(message);
  });
});

describe("a transcoder", () => {
  const transcoder: SaeTrainingConfig = {
    ...sae,
    dIn: 5,
    dOut: 3,
    transcoder: true,
    applyBDecToInput: false,
    hook: "left",
    targetHook: "right",
  };

  test("learns to reconstruct the other hook; a linear map is learnt by the skip matrix", async () => {
    const linear = activations.slice();
    for (let row = 0; row < rows * dIn; row += dIn) {
      for (let i = 0; i < 3; i++) linear[row + 5 + i] = linear[row + i]! - 2 * linear[row + i + 1]!;
    }
    const source = (): ArraySource => new ArraySource(linear, dIn, device, { hooks });
    const longer = { ...training, steps: 400, logEvery: 100, lr: 1e-2 };
    const plain = await train({ sae: transcoder, source: source(), training: longer });
    expect(plain.progress.at(-1)!.loss).toBeLessThan(plain.progress[0]!.loss);
    const skip = await train({ sae: { ...transcoder, skip: true }, source: source(), training: longer });
    expect(skip.progress.at(-1)!.loss).toBeLessThan(0.1 * plain.progress.at(-1)!.loss);
  });

  test("is saved, with its hooks, and loaded to the bit; its output is what training measured", async () => {
    const config = { ...transcoder, skip: true, normalizeActivations: "expected-average-only-in" as const };
    const { trainer, progress } = await train({ sae: config, source: twoHooks(), output: output("run") });
    using loaded = await Sae.load(join(output("run"), "sae"), device);
    expect(loaded.config).toMatchObject({ transcoder: true, skip: true, dIn: 5, dOut: 3, applyBDecToInput: false });
    expect(loaded.metadata).toMatchObject({ hookName: "left", hookNameOut: "right" });
    expect(await weightsOf(loaded)).toEqual(await weightsOf(trainer.sae));

    const x = await (await alone("left").next(rows))!.readFloat32();
    const y = await (await alone("right").next(rows))!.readFloat32();
    const output_ = await loaded.reconstruct(device.tensor(x, [rows, 5])).readFloat32();
    const mse = output_.reduce((sum, value, i) => sum + (value - y[i]!) ** 2, 0) / rows;
    expect(mse).toBeCloseTo(progress.at(-1)!.mse, 0); // one step apart, and of a third of the rows
  });

  test("needs a target, and an SAE must not have one", async () => {
    const { targetHook: _, ...without } = transcoder;
    await expect(train({ sae: without, source: twoHooks() })).rejects.toThrow(/needs a targetHook/);
    await expect(
      train({ sae: { ...sae, transcoder: false, dIn: 5, hook: "left", targetHook: "right" }, source: twoHooks() }),
    ).rejects.toThrow(/is not a transcoder/);
  });

  test("cannot subtract the decoder bias or use layer norm", async () => {
    await expect(train({ sae: { ...transcoder, applyBDecToInput: true }, source: twoHooks() })).rejects.toThrow(
      /sae\.applyBDecToInput: must be false/,
    );
    await expect(
      train({ sae: { ...transcoder, normalizeActivations: "layer-norm" }, source: twoHooks() }),
    ).rejects.toThrow(/layer-norm/);
  });
});

describe("a crosscoder", () => {
  test.each([
    ["named by the SAE", { hook: ["left", "right"] }],
    ["being all that the source has", {}],
  ])("scales each hook by itself and is saved with its hooks and their widths: hooks %s", async (_, named) => {
    const config = {
      ...sae,
      ...named,
      decoderUnitNorm: false,
      normalizeActivations: "expected-average-only-in" as const,
    };
    const { trainer } = await train({ sae: config, source: twoHooks(), output: output("run") });
    expect(trainer.sae.config.hookWidths).toEqual([5, 3]);
    using loaded = await Sae.load(join(output("run"), "sae"), device);
    expect(loaded.config.hookWidths).toEqual([5, 3]);
    expect(loaded.metadata.hookNames).toEqual(["left", "right"]);
    expect(await weightsOf(loaded)).toEqual(await weightsOf(trainer.sae));
  });

  test("of another width is refused with the widths of its hooks", async () => {
    const list = [{ ...sae, name: "a", dIn: 7, hook: ["left", "right"] }];
    await expect(train({ sae: list, source: twoHooks() })).rejects.toThrow(
      "sae.0.dIn is 7, but the activations are 5 + 3 = 8 wide",
    );
  });

  test("of hooks that the activations do not have is refused by name", async () => {
    await expect(train({ sae: { ...sae, hook: ["left", "middle"] }, source: twoHooks() })).rejects.toThrow(
      /no hook "middle"; they have left, right/,
    );
  });
});
