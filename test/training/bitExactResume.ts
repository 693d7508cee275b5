import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect } from "vitest";
import type { Device } from "../../lib/engine/device.js";
import type { MonosemError } from "../../lib/errors.js";
import type { SaeTrainingConfig } from "../../lib/sae/config.js";
import { readLatestCheckpoint } from "../../lib/training/checkpoint.js";
import { Trainer } from "../../lib/training/trainer.js";
import { ArraySource } from "./arraySource.js";
import { activations, dIn, training } from "./smallRun.js";

/**
 * Expects a run that is stopped after each of these steps and resumed from its checkpoint to end with the very parameters,
 * moments, counters and state of one that goes through.
 *
 * @returns the arrays at the end, by name
 */
export async function expectBitExactResume(
  sae: SaeTrainingConfig,
  stops: readonly number[],
  steps: number,
  device: Device,
): Promise<Record<string, ArrayLike<number>>> {
  const directory = await mkdtemp(join(tmpdir(), "monosem-"));
  const run = async (name: string, ...ends: number[]): Promise<Record<string, ArrayLike<number>>> => {
    const output = join(directory, name);
    for (const end of ends) {
      const source = new ArraySource(activations, dIn, device);
      const schedule = { ...training, steps, logEvery: 1, checkpointEvery: steps };
      using trainer = await Trainer.create({ sae, training: schedule, source, device, output, resume: true });
      const stop = new AbortController();
      try {
        for await (const { step } of trainer.run({ signal: stop.signal })) if (step === end) stop.abort();
      } catch (error) {
        if ((error as MonosemError).code !== "ERR_ABORTED") throw error;
      }
      expect(trainer.step).toBe(end);
      trainer.sae.dispose();
    }
    const checkpoint = await readLatestCheckpoint(join(output, "checkpoints"));
    return Object.fromEntries(Object.entries(checkpoint!.arrays).map(([key, { data }]) => [key, data]));
  };
  try {
    const through = await run("through", steps);
    expect(await run("stopped", ...stops, steps)).toEqual(through);
    return through;
  } finally {
    await rm(directory, { recursive: true });
  }
}
