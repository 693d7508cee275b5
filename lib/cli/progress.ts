import { MultiBar, type Options, SingleBar } from "cli-progress";
import { visibleText } from "../analysis/visibleText.js";

/** Tells a person how far a long operation is: a bar on a terminal, a line now and then elsewhere. */
export interface Progress {
  /** `done` of the total so far; `facts` are shown beside it. */
  update(done: number, facts?: string): void;
  /** Ends the bar and leaves its last state on the screen. Idempotent. */
  stop(): void;
}

/** A number of units, at most so many where the data may end before, undefined when nobody knows. */
export type Total = number | { readonly atMost: number } | undefined;

const MILLISECONDS_BETWEEN_LINES = 5000;

/**
 * Starts a progress display on the standard error stream, so that the standard output holds results only.
 *
 * @param total in `unit`
 */
export function startProgress(title: string, total: Total, unit: string): Progress {
  const stream = process.stderr;
  return stream.isTTY ? progressBar(stream, title, total, unit) : progressLines(stream, title, total, unit);
}

function progressBar(stream: NodeJS.WriteStream, title: string, total: Total, unit: string): Progress {
  const most = typeof total === "object" ? total.atMost : total;
  const bar = new SingleBar({
    ...barOptions(stream),
    // The title is no part of the format: a name in it could look like a placeholder.
    format:
      most === undefined
        ? `{title}  {value} ${unit}  {facts}`
        : `{title} {bar} ${most === total ? "{percentage}%" : `{value} of at most {total} ${unit}`}  {eta_formatted}  {facts}`,
  });
  bar.start(most ?? 0, 0, { title: visibleText(title), facts: "" });
  return {
    update: (done, facts = "") => bar.update(done, { facts: visibleText(facts) }),
    stop: () => bar.stop(),
  };
}

function barOptions(stream: NodeJS.WriteStream): Options {
  return {
    stream,
    barsize: 24,
    barCompleteChar: "━",
    barIncompleteChar: "─",
    hideCursor: true,
    fps: 10,
    etaBuffer: 50,
  };
}

/** The same for an operation of several stages, whose names are not known beforehand: a display for each. */
export class StagedProgress {
  readonly #before: string;
  #stage: string | undefined;
  #progress: Progress | undefined;

  /** @param before - stands before the name of each stage */
  constructor(before = "") {
    this.#before = before;
  }

  /** Another stage than before ends the display of the last one. */
  update(stage: string, done: number, total: Total, unit: string, facts = ""): void {
    if (stage !== this.#stage) {
      this.#progress?.stop();
      this.#stage = stage;
      this.#progress = startProgress(`${this.#before}${stage}`, total, unit);
    }
    this.#progress?.update(done, facts);
  }

  /** Ends the last stage's display. Idempotent. */
  stop(): void {
    this.#progress?.stop();
  }
}

/** The same for several things that go on side by side: a row for each. */
export interface ProgressTable {
  update(name: string, done: number, facts: string): void;
  /** Ends the table and leaves its last state on the screen. Idempotent. */
  stop(): void;
}

/** @param names of the rows */
export function startProgressTable(names: readonly string[], total: number, unit: string): ProgressTable {
  const stream = process.stderr;
  const shown = names.map((name) => visibleText(name));
  const width = Math.max(...shown.map(({ length }) => length));
  if (!stream.isTTY) {
    const rows = new Map(names.map((name, i) => [name, progressLines(stream, shown[i]!.padEnd(width), total, unit)]));
    return {
      update: (name, done, facts) => rows.get(name)!.update(done, facts),
      stop: () => {
        for (const row of rows.values()) row.stop();
      },
    };
  }
  const bars = new MultiBar({ ...barOptions(stream), format: "{name} {bar} {percentage}%  {eta_formatted}  {facts}" });
  const rows = new Map(
    names.map((name, i) => [name, bars.create(total, 0, { name: shown[i]!.padEnd(width), facts: "" })]),
  );
  return {
    update: (name, done, facts) => rows.get(name)!.update(done, { facts: visibleText(facts) }),
    stop: () => bars.stop(),
  };
}

function progressLines(stream: NodeJS.WriteStream, title: string, total: Total, unit: string): Progress {
  let lastTime = Number.NEGATIVE_INFINITY;
  let shown: string | undefined;
  let latest: string | undefined;
  const show = (): void => {
    if (latest === undefined || latest === shown) return;
    stream.write(`${latest}\n`);
    shown = latest;
    lastTime = performance.now();
  };
  return {
    update(done, facts = "") {
      latest = `${visibleText(title)}: ${amountText(done, total)} ${unit}${facts === "" ? "" : `  ${visibleText(facts)}`}`;
      if (performance.now() - lastTime >= MILLISECONDS_BETWEEN_LINES) show();
    },
    stop: show,
  };
}

/** Whole contexts or batches may take the last step a little past what was asked for at most. */
function amountText(done: number, total: Total): string {
  if (total === undefined) return String(done);
  return typeof total === "number" ? `${done}/${total}` : `${done} of at most ${Math.max(done, total.atMost)}`;
}
