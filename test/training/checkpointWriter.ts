/** Run in a process of its own, to be killed: writes checkpoints first, first + 1, ... and prints each when done. */
import { writeCheckpoint } from "../../lib/training/checkpoint.js";

export async function writeForever(directory: string, first: number): Promise<void> {
  for (let step = first; ; step++) {
    await writeCheckpoint(directory, {
      step,
      tokens: step,
      skippedSteps: 0,
      inputScales: { "": { input: [1], output: [1] } },
      configuration: {},
      arrays: { encoder: { shape: [50_000], data: new Float32Array(50_000).fill(step) } },
      source: { state: step, tensors: {} },
    });
    process.stdout.write(`${step}\n`);
  }
}
