import { once } from "node:events";
import { mkdtemp, readdir, readFile, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from "vitest";
import type { ActivationSource } from "../../lib/activations/source.js";
import { Device } from "../../lib/engine/device.js";
import { MonosemError, untilAborted } from "../../lib/errors.js";
import type { SaeTrainingConfig } from "../../lib/sae/config.js";
import { geometricMedian } from "../../lib/sae/geometricMedian.js";
import { Sae } from "../../lib/sae/sae.js";
import { checkedSections } from "../../lib/training/config.js";
import { DeadLatents } from "../../lib/training/deadLatents.js";
import { Trainer, type TrainerOptions, type TrainingProgress } from "../../lib/training/trainer.js";
import { relativeError } from "../sae/goldens.js";
import { testDevice } from "../testDevice.js";
import { ArraySource } from "./arraySource.js";
import { runInChild } from "./childProcess.js";
import { activations, dIn, rows, sae, training } from "./smallRun.js";

const parameterNames = ["encoder", "encoderBias", "decoder", "decoderBias"] as const;

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

function createTrainer(options: Partial<TrainerOptions> = {}): Promise<Trainer> {
  return Trainer.create({ sae, training, device, source: new ArraySource(activations, dIn, device), ...options });
}

async function runToEnd(trainer: Trainer, signal?: AbortSignal): Promise<TrainingProgress[]> {
  const progress: TrainingProgress[] = [];
  for await (const line of trainer.run(signal ? { signal } : {})) progress.push(line);
  return progress;
}

async function train(options: Partial<TrainerOptions> = {}): Promise<TrainingProgress[]> {
  return runToEnd(await createTrainer(options));
}

const output = (name: string): string => join(directory, name);

describe("a run", () => {
  test("learns: the loss falls and unit decoder rows stay unit", async () => {
    const trainer = await createTrainer({ training: { ...training, steps: 200, logEvery: 50 } });
    const progress = await runToEnd(trainer);
    expect(progress.at(-1)!.loss).toBeLessThan(progress[0]!.loss / 2);
    expect(progress.at(-1)!.l0).toBeLessThanOrEqual(3);
    const norms = await device.kernels.rowNorms(trainer.sae.parameters.decoder).readFloat32();
    for (const norm of norms) expect(norm).toBeCloseTo(1, 6);
  });

  test("looks for dead latents, which waits for the device, only where a loss is about them or a step is logged", async () => {
    const logEvery = 4;
    const steps = Array.from({ length: training.steps }, (_, step) => step);
    const looks = async (auxK: number): Promise<number[]> => {
      const stepsThatLooked = new Set<number>();
      let step = 0;
      const current = vi.spyOn(DeadLatents.prototype, "current").mockImplementation(() => {
        stepsThatLooked.add(step);
        return undefined;
      });
      const record = vi.spyOn(DeadLatents.prototype, "record").mockImplementation(() => {
        step++;
      });
      try {
        await train({ sae: { ...sae, auxK } as SaeTrainingConfig, training: { ...training, logEvery } });
      } finally {
        current.mockRestore();
        record.mockRestore();
      }
      return Array.from(stepsThatLooked, (after) => after - 1);
    };
    expect(await looks(4)).toEqual(steps);
    const logged = (await train({ training: { ...training, logEvery } })).map(({ step }) => step);
    expect((await looks(0)).length).toBe(logged.length);
    expect(logged.length).toBeLessThan(steps.length);
  });

  test("leaves an SAE, metrics, configuration and checkpoints", async () => {
    const progress = await train({ output: output("run"), metadata: { hookName: "blocks.1.hook_resid_post" } });
    expect((await readdir(output("run"))).sort()).toEqual(["checkpoints", "config.json", "metrics.jsonl", "sae"]);
    const lines = (await readFile(join(output("run"), "metrics.jsonl"), "utf8")).trimEnd().split("\n");
    expect(lines.map((line) => JSON.parse(line))).toEqual(progress);
    expect(progress.map(({ step, tokens }) => [step, tokens])).toEqual([4, 8, 12, 16, 20].map((s) => [s, s * 32]));
    expect(JSON.parse(await readFile(join(output("run"), "config.json"), "utf8"))).toEqual(
      checkedSections({ sae, training }, "the run"),
    );
    expect((await readdir(join(output("run"), "checkpoints"))).sort()).toEqual(["step-18", "step-20"]);
    const loaded = await Sae.load(join(output("run"), "sae"), device);
    expect(loaded.metadata.hookName).toBe("blocks.1.hook_resid_post");
  });

  test("does not depend on the number of threads", async () => {
    const one = await Device.open(testDevice, { threads: 1 });
    const source = new ArraySource(activations, dIn, one);
    await train({ output: output("two") });
    await runToEnd(await Trainer.create({ sae, training, device: one, source, output: output("one") }));
    await one.close();
    await expectSameResult(output("one"), output("two"));
  });

  test("logs the last step although it is off the grid, and at most what logEvery says", async () => {
    const progress = await train({ training: { ...training, steps: 6 } });
    expect(progress.map(({ step }) => step)).toEqual([4, 6]);
  });

  test("frees all memory but the SAE's, and the SAE's when it is disposed", async () => {
    const own = await Device.open(testDevice, { threads: 1 });
    const trainer = await createTrainer({ device: own, source: new ArraySource(activations, dIn, own) });
    await runToEnd(trainer);
    trainer.dispose();
    await own.synchronize(); // the device lets go of an operand a moment after a read of it has resolved
    expect(own.memory().currentBytes).toBeLessThan(4 * (2 * 24 * dIn + 24 + dIn) + 1024);
    trainer.sae.dispose();
    await own.synchronize();
    expect(own.memory().currentBytes).toBe(0);
    await own.close();
  });

  test("can be run once", async () => {
    const trainer = await createTrainer();
    await runToEnd(trainer);
    await expect(runToEnd(trainer)).rejects.toMatchObject({ code: "ERR_INVALID_ARGUMENT" });
  });
});

describe("resuming continues bit for bit", () => {
  const variants: [string, SaeTrainingConfig][] = [
    ["topk with AuxK", sae],
    [
      "topk, scaled inputs and geometric median",
      { ...sae, normalizeActivations: "expected-average-only-in", bDecInit: "geometric-median" },
    ],
    [
      "relu",
      {
        architecture: "relu",
        dIn,
        dSae: 24,
        l1Coefficient: 0.1,
        pEnd: 0.5,
        pAnnealStart: 2,
        pAnnealSteps: 12,
        pAnnealUpdates: 3,
        ghostGradients: false,
        applyBDecToInput: false,
        decoderUnitNorm: false,
        deadAfterTokens: 64,
        bDecInit: "zero",
        normalizeActivations: "none",
      },
    ],
  ];

  test.each(variants)("%s: 20 steps equal 10 aborted ones and 10 resumed ones", async (_, config) => {
    await train({ sae: config, output: output("whole") });
    const controller = new AbortController();
    const interrupted = await createTrainer({ sae: config, output: output("parts") });
    const aborted = (async () => {
      for await (const { step } of interrupted.run({ signal: controller.signal })) if (step === 8) controller.abort();
    })();
    await expect(aborted).rejects.toMatchObject({ code: "ERR_ABORTED", message: expect.stringContaining("step 8") });
    expect(await readdir(join(output("parts"), "checkpoints"))).toContain("step-8");
    await train({ sae: config, output: output("parts"), resume: true });
    await expectSameResult(output("parts"), output("whole"));
  });

  test("an abort does not wait for activations that take long, and the run can be resumed", async () => {
    await train({ output: output("whole") });
    const controller = new AbortController();
    const source: ActivationSource = new ArraySource(activations, dIn, device);
    const next = source.next.bind(source);
    let batches = 0;
    source.next = (batchSize, signal) => {
      if (batches++ < 8) return next(batchSize);
      setTimeout(() => controller.abort(), 20);
      return untilAborted(new Promise<never>(() => undefined), signal, "collecting");
    };
    const aborted = createTrainer({ source, output: output("parts") }).then((trainer) =>
      runToEnd(trainer, controller.signal),
    );
    await expect(aborted).rejects.toMatchObject({ code: "ERR_ABORTED", message: expect.stringContaining("step 8;") });
    await train({ output: output("parts"), resume: true });
    await expectSameResult(output("parts"), output("whole"));
  });

  test("a finished run can be extended, with a constant learning rate", async () => {
    await train({ output: output("whole") });
    await train({ output: output("parts"), training: { ...training, steps: 10 } });
    await train({ output: output("parts"), resume: true });
    await expectSameResult(output("parts"), output("whole"));
  });

  test("a damaged newest checkpoint costs the steps since the one before, and nothing else", async () => {
    await train({ output: output("whole") });
    await train({ output: output("parts") });
    await truncate(join(output("parts"), "checkpoints", "step-20", "training.safetensors"), 1000);
    await train({ output: output("parts"), resume: true });
    await expectSameResult(output("parts"), output("whole"));
  });

  test("a run that was killed by SIGKILL, wherever it stood, ends as if it had not been", async () => {
    const steps = 60;
    await train({ output: output("whole"), training: { ...training, steps } });
    for (const killAfter of [4, 24]) {
      const child = runInChild("./smallRun.ts", "trainAndReport", [output("parts"), steps]);
      const closed = once(child, "close");
      for await (const line of child.stdout) if (Number.parseInt(String(line), 10) >= killAfter) break;
      child.kill("SIGKILL");
      await closed;
    }
    await train({ output: output("parts"), training: { ...training, steps }, resume: true });
    await expectSameResult(output("parts"), output("whole"));
  });

  test("with nothing to resume the run starts", async () => {
    await train({ output: output("whole") });
    await train({ output: output("new"), resume: true });
    await expectSameResult(output("new"), output("whole"));
  });

  test("a finished run stays as it is", async () => {
    await train({ output: output("whole") });
    await train({ output: output("again") });
    expect(await train({ output: output("again"), resume: true })).toEqual([]);
    await expectSameResult(output("again"), output("whole"));
  });

  test("annealing that the run is too short for is refused, as in a configuration file", async () => {
    const k = { ...sae, initialK: 6, kAnnealSteps: training.steps } as SaeTrainingConfig;
    await expect(createTrainer({ sae: k })).rejects.toMatchObject({
      code: "ERR_CONFIG",
      message: expect.stringContaining(`sae.kAnnealSteps: must be less than the run's steps (${training.steps})`),
    });
    const { k: _, ...rest } = sae as SaeTrainingConfig & { k: number };
    const p = { ...rest, architecture: "relu", l1Coefficient: 1, pEnd: 0.5, pAnnealSteps: training.steps + 1 };
    await expect(createTrainer({ sae: p as SaeTrainingConfig })).rejects.toMatchObject({
      code: "ERR_CONFIG",
      message: expect.stringContaining("pAnnealSteps"),
    });
  });

  test("another configuration is refused by the key that differs", async () => {
    await train({ output: output("run") });
    const other = createTrainer({ output: output("run"), resume: true, sae: { ...sae, auxK: 2 } as typeof sae });
    await expect(other).rejects.toMatchObject({
      code: "ERR_CONFIG",
      message: expect.stringContaining("sae.auxK (4, now 2)"),
    });
    const shorter = createTrainer({ output: output("run"), resume: true, training: { ...training, steps: 5 } });
    await expect(shorter).rejects.toThrow(/at step 20 already/);
  });
});

describe("what can go wrong", () => {
  test("an output folder with something in it is not touched without resume", async () => {
    await writeFile(join(directory, "mine.txt"), "precious");
    await expect(createTrainer({ output: directory })).rejects.toMatchObject({
      code: "ERR_CONFIG",
      message: expect.stringContaining("not empty"),
    });
    expect(await readdir(directory)).toEqual(["mine.txt"]);
  });

  test("an output that is a file is refused", async () => {
    await writeFile(output("file"), "");
    await expect(createTrainer({ output: output("file") })).rejects.toMatchObject({ code: "ERR_IO" });
  });

  test("a full disk is an error that leaves no half-written file, and the run resumes", async () => {
    const child = runInChild("./smallRun.ts", "trainAndReport", [output("run"), 20], { fileSizeLimit: 8 }); // 4 kB
    const [report] = await Promise.all([text(child.stdout), once(child, "close")]);
    expect(report).toMatch(/ERR_IO: .*(EFBIG|too large)/);
    const left = await readdir(output("run"), { recursive: true });
    expect(left.filter((name) => name.endsWith(".tmp") || name.includes("step-"))).toEqual([]);
    await train({ output: output("run"), resume: true });
    await train({ output: output("whole") });
    await expectSameResult(output("run"), output("whole"));
  });

  test("more steps than a learning rate was planned for are refused, with what to do instead", async () => {
    const planned = { ...training, lrDecaySteps: 4 };
    await train({ output: output("run"), training: planned });
    const longer = createTrainer({ output: output("run"), training: { ...planned, steps: 30 }, resume: true });
    await expect(longer).rejects.toThrow(/another training\.steps \(20, now 30\), .* with sae\.init=.*run\/sae and/);
  });

  test("a disk without room for the last checkpoint still gets the SAE, which is smaller", async () => {
    const child = runInChild("./smallRun.ts", "trainAndReport", [output("run"), 5], { fileSizeLimit: 8 }); // 4 kB
    const [report] = await Promise.all([text(child.stdout), once(child, "close")]);
    expect(report).toMatch(/ERR_IO: cannot write .*step-5.* what it trained is in .*run\/sae/);
    const left = await readdir(output("run"), { recursive: true });
    expect(left.filter((name) => name.endsWith(".tmp") || name.includes("step-"))).toEqual([]);
    await train({ output: output("whole"), training: { ...training, steps: 5 } });
    const [weights, whole] = await Promise.all(
      ["run", "whole"].map((name) => readFile(join(output(name), "sae", "sae_weights.safetensors"))),
    );
    expect(weights).toEqual(whole);
    await train({ output: output("run"), resume: true });
    await train({ output: output("longer") });
    await expectSameResult(output("run"), output("longer"));
  });

  test("what a killed run was writing is swept when it resumes", async () => {
    await train({ output: output("run") });
    const before = await readdir(output("run"));
    await writeFile(join(output("run"), ".metrics.jsonl.123.0123456789ab.tmp"), "half");
    using trainer = await createTrainer({ output: output("run"), resume: true });
    trainer.dispose();
    expect(await readdir(output("run"))).toEqual(before);
  });

  test("one run at a time works in an output folder, from its creation to its end", async () => {
    const first = await createTrainer({ output: output("run") });
    for (const resume of [true, false]) {
      await expect(createTrainer({ output: output("run"), resume })).rejects.toMatchObject({
        code: "ERR_CONFIG",
        message: expect.stringContaining(`the output folder ${output("run")} is in use by this process itself`),
      });
    }
    await runToEnd(first);
    await train({ output: output("whole") });
    await expectSameResult(output("run"), output("whole"));
    (await createTrainer({ output: output("run"), resume: true })).dispose();
    expect(await readdir(output("run"))).toEqual(await readdir(output("whole")));
  });

  test("a run whose folder another has taken writes no checkpoint into it", async () => {
    const trainer = await createTrainer({ output: output("run") });
    await rm(join(output("run"), ".monosem.lock"));
    await expect(runToEnd(trainer)).rejects.toMatchObject({ code: "ERR_IO", message: /is no longer locked/ });
    expect(await readdir(output("run"))).not.toContain("checkpoints");
  });

  test("another process's run is not disturbed, and is resumed as soon as that process was killed", async () => {
    const child = runInChild("./smallRun.ts", "trainAndReport", [output("run"), 1_000_000]);
    const closed = once(child, "close");
    await once(child.stdout, "data");
    const resuming = createTrainer({ output: output("run"), resume: true });
    await expect(resuming).rejects.toMatchObject({
      code: "ERR_CONFIG",
      message: expect.stringContaining(`in use by process ${child.pid} on `),
    });
    await once(child.stdout, "data"); // it goes on
    child.kill("SIGKILL");
    await closed;
    using trainer = await createTrainer({
      output: output("run"),
      resume: true,
      training: { ...training, steps: 1_000_000 },
    });
    expect(trainer.step).toBeGreaterThan(0);
  });

  test("NaN among the activations stops the run and names the step", async () => {
    const poisoned = Float32Array.from(activations);
    poisoned[32 * dIn * 2 + 5] = Number.NaN; // in the third batch
    const trainer = await createTrainer({ source: new ArraySource(poisoned, dIn, device), output: output("run") });
    await expect(runToEnd(trainer)).rejects.toMatchObject({
      code: "ERR_NON_FINITE",
      message: expect.stringContaining("step 3"),
    });
    expect(await readdir(output("run"))).not.toContain("sae");
  });

  test("a diverging run stops with the step, and saves nothing", async () => {
    const wild = { ...training, lr: 1e30, clipGradNorm: null, lrWarmupSteps: 0, checkpointEvery: 1000 };
    const trainer = await createTrainer({
      training: wild,
      sae: { ...sae, decoderUnitNorm: false },
      output: output("run"),
    });
    await expect(runToEnd(trainer)).rejects.toMatchObject({
      code: "ERR_NON_FINITE",
      message: expect.stringMatching(/step \d+/),
    });
    expect(await readdir(output("run"))).not.toContain("sae");
  });

  test("activations that end early are an error, not a shorter run", async () => {
    const source = new ArraySource(activations, dIn, device, { repeat: false });
    await expect(train({ source })).rejects.toMatchObject({
      code: "ERR_CONFIG",
      message: expect.stringContaining("after 96 tokens, step 3 of 20"),
    });
  });

  test("activations of another width are refused", async () => {
    await expect(createTrainer({ source: new ArraySource(activations, 4, device) })).rejects.toMatchObject({
      code: "ERR_CONFIG",
    });
  });

  test("an SAE to start from must be of the configured kind", async () => {
    await train({ output: output("first") });
    const init = join(output("first"), "sae");
    await expect(createTrainer({ sae: { ...sae, init, dSae: 12 } })).rejects.toThrow(/has dSae 24, but sae.dSae is 12/);
    await expect(createTrainer({ sae: { ...sae, init, normalizeActivations: "layer-norm" } })).rejects.toThrow(
      /has normalizeActivations none, but sae\.normalizeActivations is layer-norm/,
    );
    await expect(createTrainer({ sae: { ...sae, init: output("nowhere") } })).rejects.toMatchObject({
      code: "ERR_NOT_FOUND",
    });
  });

  test("errors are MonosemErrors", async () => {
    await expect(createTrainer({ sae: { ...sae, init: output("nowhere") } })).rejects.toBeInstanceOf(MonosemError);
  });
});

describe("the decoder bias", () => {
  test("starts at the geometric median of the activations, in the scale that is trained in", async () => {
    const points = device.tensor(activations, [rows, dIn]);
    const median = await (await geometricMedian(points, device)).readFloat32();
    const meanNorm = (await device.kernels.rowNorms(points).readFloat32()).reduce((sum, norm) => sum + norm, 0) / rows;
    // a source that ends, so that the sample is each activation once
    const source = () => new ArraySource(activations, dIn, device, { repeat: false });
    const start = async (config: SaeTrainingConfig) =>
      (await createTrainer({ sae: config, source: source() })).sae.parameters.decoderBias.readFloat32();
    const plain = await start({ ...sae, bDecInit: "geometric-median" });
    expect(relativeError(plain, median)).toBeLessThan(1e-5);
    const scale = Math.sqrt(dIn) / meanNorm;
    const scaled = await start({
      ...sae,
      bDecInit: "geometric-median",
      normalizeActivations: "expected-average-only-in",
    });
    expect(
      relativeError(
        scaled,
        median.map((value) => value * scale),
      ),
    ).toBeLessThan(1e-5);
  });

  test("measuring the activations takes none of them away from training", async () => {
    const source = new ArraySource(activations, dIn, device);
    await createTrainer({ sae: { ...sae, bDecInit: "geometric-median" }, source });
    expect(source.position).toBe(0);
  });
});

describe("input scaling", () => {
  const scaled: SaeTrainingConfig = { ...sae, normalizeActivations: "expected-average-only-in" };

  test("trains on activations of mean norm sqrt(dIn) and folds the factor away, so mse is the activations' own", async () => {
    const large = activations.map((value) => 50 * value);
    const run = async (values: Float32Array) => {
      const trainer = await createTrainer({ sae: scaled, source: new ArraySource(values, dIn, device) });
      return { progress: await runToEnd(trainer), trained: trainer.sae };
    };
    const small = await run(activations);
    const big = await run(large);
    for (const [i, line] of big.progress.entries()) {
      expect(line.loss / small.progress[i]!.loss).toBeCloseTo(1, 4);
      expect(line.mse / small.progress[i]!.mse / 2500).toBeCloseTo(1, 4);
    }
    const x = device.tensor(large, [rows, dIn]);
    const expected = await small.trained.reconstruct(device.tensor(activations, [rows, dIn])).readFloat32();
    const found = await big.trained.reconstruct(x).readFloat32();
    expect(
      relativeError(
        found.map((value) => value / 50),
        expected,
      ),
    ).toBeLessThan(1e-4);
  });

  test("an SAE to start from is taken in the activations' scale: training it for no step returns it", async () => {
    await train({ output: output("first"), sae: scaled });
    const init = join(output("first"), "sae");
    const none = { ...training, steps: 1, lr: 1e-30, lrWarmupSteps: 0, l1WarmupSteps: 0 };
    const trainer = await createTrainer({ sae: { ...scaled, init }, training: none });
    await runToEnd(trainer);
    const before = await Sae.load(init, device);
    for (const name of parameterNames) {
      const [a, b] = [await trainer.sae.parameters[name]!.readFloat32(), await before.parameters[name]!.readFloat32()];
      expect(relativeError(a, b), name).toBeLessThan(name === "decoder" ? 1 : 1e-6); // unit rows are another norm
    }
  });

  test("zero activations have no scale", async () => {
    const source = new ArraySource(new Float32Array(rows * dIn), dIn, device);
    await expect(createTrainer({ sae: scaled, source })).rejects.toMatchObject({ code: "ERR_CONFIG" });
  });
});

async function expectSameResult(a: string, b: string): Promise<void> {
  for (const file of ["sae/sae_weights.safetensors", "sae/cfg.json", "metrics.jsonl"]) {
    const [left, right] = await Promise.all([a, b].map((folder) => readFile(join(folder, file))));
    expect(left!.equals(right!), file).toBe(true);
  }
}
