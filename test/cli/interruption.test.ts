import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { withInterruption } from "../../lib/cli/interruption.js";

const exit = vi.spyOn(process, "exit").mockImplementation(() => undefined as never);
const write = vi.spyOn(process.stderr, "write").mockImplementation(() => true);

beforeEach(() => {
  vi.useFakeTimers({ toFake: ["performance"] });
  exit.mockClear();
  write.mockClear();
});
afterEach(() => {
  vi.useRealTimers();
});

/** Work during which signals come so many milliseconds after one another; whether it was told to stop. */
function interrupted(...signals: readonly [after: number, signal: "SIGINT" | "SIGTERM"][]): Promise<boolean> {
  return withInterruption(async (signal) => {
    for (const [after, name] of signals) {
      vi.advanceTimersByTime(after);
      process.emit(name, name);
    }
    return signal.aborted;
  });
}

test.each([["SIGINT"], ["SIGTERM"]] as const)(
  "%s asks the work to end, and says what ends it at once",
  async (name) => {
    expect(await interrupted([0, name])).toBe(true);
    expect(exit).not.toHaveBeenCalled();
    expect(write.mock.calls.join()).toContain("press Ctrl-C again");
    expect(await interrupted()).toBe(false);
  },
);

test("the same request may come twice: from whoever ends a group of processes and from npx within it", async () => {
  for (const name of ["SIGINT", "SIGTERM"] as const) expect(await interrupted([0, name], [100, name])).toBe(true);
  expect(exit).not.toHaveBeenCalled();
  expect(write).toHaveBeenCalledTimes(2);
});

test("a second Ctrl-C ends the process at once, a second SIGTERM does not", async () => {
  await interrupted([0, "SIGTERM"], [5000, "SIGTERM"]);
  expect(exit).not.toHaveBeenCalled();
  await interrupted([0, "SIGTERM"], [5000, "SIGINT"]);
  await interrupted([0, "SIGINT"], [1000, "SIGINT"]);
  expect(exit.mock.calls).toEqual([[130], [130]]);
});

test("nothing is left listening", async () => {
  const before = process.listenerCount("SIGINT") + process.listenerCount("SIGTERM");
  await interrupted([0, "SIGINT"]);
  expect(process.listenerCount("SIGINT") + process.listenerCount("SIGTERM")).toBe(before);
});
