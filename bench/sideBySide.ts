/**
 * Two workers that speak the same protocol (one JSON object a line, see peers/torch_sae.py), run in turn in one session:
 * absolute times on a shared machine are noise, the ratio of neighbouring runs is not.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { createInterface, type Interface } from "node:readline";

export interface Runs {
  wallMs: number[];
  cpuMs: number[];
}

/** A child process that sets up and runs one piece of work on command. */
export class Worker {
  readonly #process: ChildProcess;
  readonly #answers: AsyncIterator<string>;
  readonly #lines: Interface;

  constructor(command: string, args: readonly string[]) {
    this.#process = spawn(command, args, { stdio: ["pipe", "pipe", "inherit"] });
    this.#lines = createInterface({ input: this.#process.stdout! });
    this.#answers = this.#lines[Symbol.asyncIterator]();
  }

  async #ask<Answer>(command: object): Promise<Answer> {
    this.#process.stdin!.write(`${JSON.stringify(command)}\n`);
    const answer = await this.#answers.next();
    if (answer.done) throw new Error(`the worker ended instead of answering ${JSON.stringify(command)}`);
    return JSON.parse(answer.value) as Answer;
  }

  setup(options: object): Promise<Record<string, unknown>> {
    return this.#ask({ setup: options });
  }

  run(times: number): Promise<Runs> {
    return this.#ask({ run: times });
  }

  peak(): Promise<{ peakMiB: number; importMiB: number }> {
    return this.#ask({ peak: true });
  }

  stop(): void {
    this.#lines.close();
    this.#process.kill();
  }
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

export interface Comparison {
  /** Medians in milliseconds; CPU time is user + system over all threads. */
  ours: { wallMs: number; cpuMs: number };
  theirs: { wallMs: number; cpuMs: number };
  /** Median over the rounds of theirs / ours: above 1, ours is faster. */
  wallRatio: number;
  cpuRatio: number;
  rounds: number;
}

/** Runs ours and theirs in turn for `rounds` rounds after a warm-up of each. */
export async function alternate(ours: Worker, theirs: Worker, rounds: number): Promise<Comparison> {
  await ours.run(2);
  await theirs.run(2);
  const runs = { ours: { wallMs: [], cpuMs: [] } as Runs, theirs: { wallMs: [], cpuMs: [] } as Runs };
  for (let round = 0; round < rounds; round++) {
    for (const [name, worker] of Object.entries({ ours, theirs }) as ["ours" | "theirs", Worker][]) {
      const { wallMs, cpuMs } = await worker.run(1);
      runs[name].wallMs.push(...wallMs);
      runs[name].cpuMs.push(...cpuMs);
    }
  }
  const ratios = (kind: keyof Runs) => runs.theirs[kind].map((theirTime, round) => theirTime / runs.ours[kind][round]!);
  return {
    ours: { wallMs: median(runs.ours.wallMs), cpuMs: median(runs.ours.cpuMs) },
    theirs: { wallMs: median(runs.theirs.wallMs), cpuMs: median(runs.theirs.cpuMs) },
    wallRatio: median(ratios("wallMs")),
    cpuRatio: median(ratios("cpuMs")),
    rounds,
  };
}
