import { SingleBar } from "cli-progress";
import { visibleText } from "../analysis/visibleText.js";

/** Tells a person how far a long operation is: a bar on a terminal, a line now and then elsewhere. */
export interface Progress {
  /** `done` of the total so far; `facts` are shown beside it. */
  update(done: number, facts?: string): void;
  /** Ends the bar and leaves its last state on the screen. Idempotent. */
  stop(): void;
}

const MILLISECONDS_BETWEEN_LINES = 5000;

/**
 * Starts a progress display on the standard error stream, so that the standard output holds results only.
 *
 * @param total in `unit`; undefined when nobody knows
 */
export function startProgress(title: string, total: number | undefined, unit: string): Progress {
  const stream = process.stderr;
  return stream.isTTY ? progressBar(stream, title, total, unit) : progressLines(stream, title, total, unit);
}

function progressBar(stream: NodeJS.WriteStream, title: string, total: number | undefined, unit: string): Progress {
  const bar = new SingleBar({
    stream,
    format:
      total === undefined
        ? `${title}  {value} ${unit}  {facts}`
        : `${title} {bar} {percentage}%  {eta_formatted}  {facts}`,
    barsize: 24,
    barCompleteChar: "━",
    barIncompleteChar: "─",
    hideCursor: true,
    fps: 10,
    etaBuffer: 50,
  });
  bar.start(total ?? 0, 0, { facts: "" });
  return {
    update: (done, facts = "") => bar.update(done, { facts: visibleText(facts) }),
    stop: () => bar.stop(),
  };
}

function progressLines(stream: NodeJS.WriteStream, title: string, total: number | undefined, unit: string): Progress {
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
      const amount = total === undefined ? `${done} ${unit}` : `${done}/${total} ${unit}`;
      latest = `${title}: ${amount}${facts === "" ? "" : `  ${visibleText(facts)}`}`;
      if (performance.now() - lastTime >= MILLISECONDS_BETWEEN_LINES) show();
    },
    stop: show,
  };
}
