import { type FileHandle, open, readFile } from "node:fs/promises";
import { MonosemError } from "../errors.js";
import { writeFileAtomically } from "../formats/atomicFile.js";

/** One line of metrics.jsonl; `step` counts finished steps. NaN and infinity are written as null. */
export interface MetricsLine {
  readonly step: number;
}

/**
 * metrics.jsonl: one JSON object per line, appended. It holds nothing that depends on the machine's speed, so that a
 * resumed run leaves the same bytes as an uninterrupted one.
 */
export class MetricsLog {
  readonly #path: string;
  readonly #handle: FileHandle;

  private constructor(path: string, handle: FileHandle) {
    this.#path = path;
    this.#handle = handle;
  }

  /**
   * Opens the log of a run that continues after `step`: lines of later steps, and a torn last line, are cut off first.
   * So is the extra line that a shorter run wrote at its end, off the grid of `logEvery`.
   *
   * @param run the step to continue after, and how the run logs
   */
  static async open(path: string, run: { step: number; steps: number; logEvery: number }): Promise<MetricsLog> {
    const kept = (await readLines(path)).filter((line) => {
      const logged = stepOf(line);
      return logged !== undefined && logged <= run.step && isLogged(logged, run);
    });
    await writeFileAtomically(path, kept.map((line) => `${line}\n`).join(""));
    return new MetricsLog(path, await open(path, "a").catch((error) => refuse(path, error)));
  }

  async append(line: MetricsLine): Promise<void> {
    await this.#handle.appendFile(`${JSON.stringify(line)}\n`).catch((error) => refuse(this.#path, error));
  }

  /** Everything appended so far is on the disk when this resolves. */
  async flush(): Promise<void> {
    await this.#handle.sync().catch((error) => refuse(this.#path, error));
  }

  async close(): Promise<void> {
    await this.#handle.close();
  }
}

/** Every `logEvery`th step is logged, and the last one. */
export function isLogged(finishedSteps: number, run: { steps: number; logEvery: number }): boolean {
  return finishedSteps % run.logEvery === 0 || finishedSteps === run.steps;
}

async function readLines(path: string): Promise<string[]> {
  try {
    return (await readFile(path, "utf8")).split("\n").filter((line) => line !== "");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return [];
    throw refuse(path, error);
  }
}

function stepOf(line: string): number | undefined {
  try {
    const { step } = JSON.parse(line) as { step?: unknown };
    return typeof step === "number" ? step : undefined;
  } catch {
    return undefined;
  }
}

function refuse(path: string, error: unknown): never {
  throw new MonosemError("ERR_IO", `cannot write ${path}: ${(error as Error).message}`, { cause: error });
}
