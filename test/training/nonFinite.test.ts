import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { Device } from "../../lib/engine/device.js";
import { badStepsInARow } from "../../lib/training/config.js";
import { measureInputs } from "../../lib/training/inputStatistics.js";
import { Trainer, type TrainerOptions, type TrainingProgress } from "../../lib/training/trainer.js";
import { testDevice } from "../testDevice.js";
import { ArraySource } from "./arraySource.js";
import { activations, dIn, sae, training } from "./smallRun.js";

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

/** Batches of 32 rows; those that are named hold a bad number. Three batches make the source, which then repeats. */
function poisoned(value: number, ...batches: number[]): ArraySource {
  const repeated = Float32Array.from({ length: 40 * 32 * dIn }, (_, i) => activations[i % activations.length]!);
  for (const batch of batches) repeated[(batch * 32 + 7) * dIn + 3] = value;
  return new ArraySource(repeated, dIn, device);
}

async function train(
  options: Pick<TrainerOptions, "source"> & Partial<TrainerOptions>,
): Promise<{ trainer: Trainer; progress: TrainingProgress[] }> {
  const trainer = await Trainer.create({ sae, training, device, ...options });
  const progress: TrainingProgress[] = [];
  for await (const line of trainer.run()) progress.push(line);
  return { trainer, progress };
}

const withPolicy = (onNonFinite: "stop" | "skip" | "rollback") => ({ ...training, onNonFinite });

describe.each([
  ["NaN", Number.NaN],
  ["infinity", Number.POSITIVE_INFINITY],
  ["a number whose square is infinite", 1e30],
])("%s among the activations", (_, value) => {
  test.each([[4], [5]])("stops the run and names the step (%i finished before)", async (batch) => {
    await expect(train({ source: poisoned(value, batch) })).rejects.toMatchObject({
      code: "ERR_NON_FINITE",
      message: expect.stringContaining(`at step ${batch + 1}`),
    });
  });

  test("with skip costs that step and nothing else", async () => {
    const options = { training: withPolicy("skip"), output: join(directory, "run") };
    const { trainer, progress } = await train({ source: poisoned(value, 5, 7), ...options });
    expect(progress.at(-1)).toMatchObject({ step: 20, skippedSteps: 2 });
    for (const tensor of Object.values(trainer.sae.parameters)) {
      expect((await tensor!.readFloat32()).every(Number.isFinite)).toBe(true);
    }
    const lines = (await readFile(join(directory, "run", "metrics.jsonl"), "utf8")).trimEnd().split("\n");
    // the log's line of step 8, whose batch was bad, is missing
    expect(lines.map((line) => (JSON.parse(line) as { step: number }).step)).toEqual([4, 12, 16, 20]);
  });

  test("with rollback goes back to the last checkpoint and on with the next activations", async () => {
    const options = { training: withPolicy("rollback"), output: join(directory, "run") };
    const { trainer, progress } = await train({ source: poisoned(value, 9), ...options });
    expect(progress.at(-1)).toMatchObject({ step: 20, tokens: 20 * 32, skippedSteps: 1 });
    expect((await trainer.sae.parameters.decoder.readFloat32()).every(Number.isFinite)).toBe(true);
    const lines = (await readFile(join(directory, "run", "metrics.jsonl"), "utf8")).trimEnd().split("\n");
    expect(lines.map((line) => (JSON.parse(line) as { step: number }).step)).toEqual([4, 8, 12, 16, 20]);
  });
});

test("steps that are skipped leave the weights and Adam's moments to the bit", async () => {
  // the bad batch comes last: the run ends with the weights of the step before
  const before = await train({ source: poisoned(Number.NaN), training: { ...withPolicy("skip"), steps: 7 } });
  const after = await train({ source: poisoned(Number.NaN, 7), training: { ...withPolicy("skip"), steps: 8 } });
  for (const [name, tensor] of Object.entries(after.trainer.sae.parameters)) {
    expect(await tensor!.readFloat32(), name).toEqual(await before.trainer.sae.parameters[name]!.readFloat32());
  }
});

describe.each(["skip", "rollback"] as const)("activations that stay bad end a run with %s, too", (policy) => {
  const since = policy === "skip" ? "in a row" : "since the last checkpoint";
  const end = `; onNonFinite "${policy}" gave up after ${badStepsInARow + 1} bad steps ${since}`;
  const bad = () => poisoned(Number.NaN, ...Array.from({ length: 30 }, (_, i) => i + 7));
  const options = () => ({ training: { ...withPolicy(policy), steps: 100 }, output: join(directory, "run") });

  test("which says that it gave up, after how many steps", async () => {
    const step = policy === "skip" ? "13" : "\\d+";
    await expect(train({ source: bad(), ...options() })).rejects.toMatchObject({
      code: "ERR_NON_FINITE",
      message: expect.stringMatching(
        new RegExp(`^training stopped being finite at step ${step}: .*If the activations are finite.*${end}$`),
      ),
    });
  });

  test("and where the activations come from, where the source knows it", async () => {
    const asked: number[] = [];
    const findNonFinite = async (rows: number) => {
      asked.push(rows);
      return "row 7 of a file";
    };
    await expect(train({ source: Object.assign(bad(), { findNonFinite }), ...options() })).rejects.toMatchObject({
      message: expect.stringMatching(new RegExp(`at step \\d+: row 7 of a file holds NaN or infinity${end}$`)),
    });
    expect(asked).toHaveLength(1); // looking takes time, which a run that goes on does not take
  });
});

test.each([[Number.NaN], [Number.NEGATIVE_INFINITY], [1e30]])(
  "a batch that holds %d is left out of the measurement at the start of a run that skips such batches",
  async (value) => {
    // the second of three batches, each time round
    const source = poisoned(value, ...Array.from({ length: 13 }, (_, i) => 3 * i + 1));
    const columns = { from: 2, width: 3 };
    const options = { batchSize: 32, columns: [columns], sample: true, skipNonFinite: true };
    using measured = await measureInputs(source, device, options);
    const good = [...activations.slice(0, 32 * dIn), ...activations.slice(64 * dIn)];
    const norms = Array.from({ length: 64 }, (_, row) => Math.hypot(...good.slice(row * dIn + 2, row * dIn + 5)));
    // of 40 batches 14 are the first and 13 the third: their mean but for a few percent
    const mean = norms.reduce((sum, norm) => sum + norm, 0) / norms.length;
    expect(Math.abs(measured.meanNorm(columns) / mean - 1)).toBeLessThan(0.02);
    const sample = await measured.sample!.readFloat32();
    expect([...sample.slice(0, good.length)]).toEqual(good);
    expect(source.position).toBe(0);
  },
);

describe.each([
  ["input scale", { ...sae, normalizeActivations: "expected-average-only-in" as const }],
  ["geometric median", { ...sae, bDecInit: "geometric-median" as const }],
])("measuring the %s at the start", (_, config) => {
  test("fails where no batch is left, and with stop at the first, counting right", async () => {
    const create = (onNonFinite: "stop" | "skip", ...batches: number[]) =>
      Trainer.create({
        sae: config,
        training: withPolicy(onNonFinite),
        source: poisoned(Number.NaN, ...batches),
        device,
      });
    await expect(create("skip", ...Array(40).keys())).rejects.toMatchObject({
      code: "ERR_NON_FINITE",
      message: expect.stringMatching(/every batch of 32 activations/),
    });
    await expect(create("stop", 2)).rejects.toMatchObject({
      code: "ERR_NON_FINITE",
      message: expect.stringMatching(/the first 96 activations/),
    });
  });
});

test("a bad batch is one failure, however many SAEs see it, and costs each of them that step alone", async () => {
  const list = Array.from({ length: 8 }, (_, seed) => ({ ...sae, name: `seed-${seed}`, seed }));
  const options = { training: withPolicy("skip"), source: poisoned(Number.NaN, 5, 7) };
  const { trainer, progress } = await train({ sae: list, ...options });
  expect(progress.at(-1)).toMatchObject({ step: 20, skippedSteps: 2 });
  const alone = await train({ sae: list[3]!, training: withPolicy("skip"), source: poisoned(Number.NaN, 5, 7) });
  expect(await trainer.saes[3]!.parameters.decoder.readFloat32()).toEqual(
    await alone.trainer.sae.parameters.decoder.readFloat32(),
  );
});

test("rollback without a checkpoint to go back to is an error that says so", async () => {
  const rollback = withPolicy("rollback");
  const early = train({ source: poisoned(Number.NaN, 3), training: rollback, output: join(directory, "run") });
  const none = 'onNonFinite "rollback" had no checkpoint to go back to';
  await expect(early).rejects.toMatchObject({
    code: "ERR_NON_FINITE",
    message: expect.stringMatching(new RegExp(`at step 4: .*; ${none}: the first is that of step 6$`)),
  });
  await expect(train({ source: poisoned(Number.NaN, 9), training: rollback })).rejects.toMatchObject({
    message: expect.stringMatching(new RegExp(`at step 10: .*; ${none}: a run without output writes none$`)),
  });
});

test.each([[null], [1]])(
  "targets that are not numbers are found by the loss, with clipping at %s",
  async (clipGradNorm) => {
    const rows = activations.slice();
    rows[(32 + 7) * dIn + 6] = Number.NaN; // in the second batch, where only the transcoder's target is
    const hooks = [
      { name: "left", width: 5 },
      { name: "right", width: 3 },
    ];
    const source = new ArraySource(rows, dIn, device, { hooks });
    const transcoder = {
      ...sae,
      dIn: 5,
      dOut: 3,
      transcoder: true,
      applyBDecToInput: false,
      hook: "left",
      targetHook: "right",
    };
    await expect(train({ sae: transcoder, source, training: { ...training, clipGradNorm } })).rejects.toMatchObject({
      code: "ERR_NON_FINITE",
      message: expect.stringContaining("at step 2"),
    });
  },
);
