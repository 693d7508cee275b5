/** Trains the golden cases, for tests that compare the result in this process and in others. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Device } from "../../lib/engine/device.js";
import { parseSaeConfig } from "../../lib/sae/config.js";
import { Sae } from "../../lib/sae/sae.js";
import { Trainer, type TrainingProgress } from "../../lib/training/trainer.js";
import { stepDeviations } from "../sae/goldenStep.js";
import { type Golden, goldenCases, goldenShapes, loadGolden, relativeError } from "../sae/goldens.js";
import { testDevice } from "../testDevice.js";
import { ArraySource } from "./arraySource.js";

export interface GoldenRun {
  /** Trained parameters by name, and what training leaves besides (a threshold). */
  readonly parameters: Readonly<Record<string, Float32Array>>;
  readonly progress: readonly TrainingProgress[];
  /** The trained SAE's latents of the first batch. */
  readonly latents: Float32Array;
}

/** From the golden's initial weights through all its steps. */
export async function trainGolden(golden: Golden, device: Device): Promise<GoldenRun> {
  const { sae: config, hooks } = golden;
  const { steps, lr, lrDecaySteps } = golden.training;
  // Golden runs that end in the middle of their decay have the rates of a decay over all steps, from a lower rate.
  const part = Math.min(1, steps / lrDecaySteps);
  const training = { ...golden.training, lr: lr * part, lrDecaySteps: lrDecaySteps * part };
  const width = hooks.reduce((sum, hook) => sum + hook.width, 0);
  const source = new ArraySource(golden.activations, width, device, { hooks });
  using start = new Sae(parseSaeConfig(config), golden.initialParameters(device), device);
  const trainer = await createTrainer();
  const progress: TrainingProgress[] = [];
  for await (const line of trainer.run()) progress.push(line);
  using trained = trainer.sae;
  trainer.dispose();

  const parameters: Record<string, Float32Array> = {};
  for (const [name, tensor] of Object.entries(trained.parameters)) parameters[name] = await tensor!.readFloat32();
  using x = device.tensor(golden.x, [training.batchSize, config.dIn]);
  using codes = trained.encode(x);
  using dense = device.kernels.densify(codes);
  return { parameters, progress, latents: await dense.readFloat32() };

  async function createTrainer(): Promise<Trainer> {
    if (config.normalizeActivations === "expected-average-only-in") {
      // the weights are in the activations' scale, as a saved SAE's are
      const init = await mkdtemp(join(tmpdir(), "monosem-"));
      try {
        await start.save(init);
        return await Trainer.create({ sae: { ...config, init }, training, source, device });
      } finally {
        await rm(init, { recursive: true });
      }
    }
    const created = await Trainer.create({ sae: config, training, source, device });
    for (const [name, tensor] of Object.entries(created.sae.parameters)) {
      device.kernels.scale(start.parameters[name]!, 1, { out: tensor! });
    }
    return created;
  }
}

/** How far a run is from its golden: relative errors, and by how many the dead latents are too many or too few. */
export function trainingDeviations(golden: Golden, run: GoldenRun): Record<string, number> {
  const found: Record<string, number> = {};
  const differ = (name: string, error: number): void => {
    if (!(error <= (found[name] ?? 0))) found[name] = error;
  };
  for (const [name, values] of Object.entries(run.parameters)) {
    differ(name, relativeError(values, golden.array(`final.${name}`)));
  }
  if (golden.has("inference")) differ("latents by threshold", relativeError(run.latents, golden.array("inference")));
  const [norms, dead] = [golden.series("gradientNorms"), golden.series("deadLatents")];
  run.progress.forEach(({ losses, deadFraction, gradientNorm }, i) => {
    for (const term of new Set([...Object.keys(golden.firstLosses), ...Object.keys(losses)])) {
      const expected = golden.series(`losses.${term}`)[i]!;
      differ(`loss ${term}`, Math.abs((losses[term] ?? Number.NaN) - expected) / Math.max(1, Math.abs(expected)));
    }
    differ("gradient norm", Math.abs(gradientNorm / norms[i]! - 1));
    differ("dead latents", Math.abs(Math.round(deadFraction * golden.sae.dSae) - dead[i]!));
  });
  differ("logged steps", Math.abs(run.progress.length - norms.length));
  return found;
}

/** A golden that is missed, as `reportFailures` prints it. */
export interface GoldenFailure {
  readonly shape: string;
  readonly name: string;
  readonly what: string;
  readonly error: number;
}

/**
 * For a process of its own, on another instruction set: compares all cases (the first step or the whole training) and
 * prints how many there were and which of them failed, as JSON; or the code of the error that prevented it.
 */
export async function reportFailures(steps: "first" | "all"): Promise<void> {
  const failures: GoldenFailure[] = [];
  let compared = 0;
  try {
    const device = await Device.open(testDevice, { threads: 2 });
    for (const shape of goldenShapes) {
      for (const name of goldenCases) {
        const golden = await loadGolden(shape, name);
        const [found, tolerance] =
          steps === "first"
            ? [await stepDeviations(golden, device), golden.stepTolerance]
            : [trainingDeviations(golden, await trainGolden(golden, device)), golden.finalTolerance];
        for (const [what, error] of Object.entries(found)) {
          compared++;
          if (!(error < tolerance)) failures.push({ shape, name, what, error });
        }
      }
    }
    await device.close();
    process.stdout.write(JSON.stringify({ compared, failures }));
  } catch (error) {
    process.stdout.write(JSON.stringify({ code: (error as { code?: string }).code, message: String(error) }));
  }
}
