import { expect, test } from "vitest";
import { type LearningRateSchedule, learningRate, warmup } from "../../lib/training/schedules.js";

const constant: LearningRateSchedule = { lr: 2, lrSchedule: "constant", lrWarmupSteps: 0, lrDecaySteps: 0 };
const rates = (schedule: LearningRateSchedule, steps: number): number[] =>
  Array.from({ length: steps }, (_, step) => learningRate(schedule, step, steps));

test("a constant learning rate stays", () => {
  expect(rates(constant, 4)).toEqual([2, 2, 2, 2]);
});

test("warm-up takes step t, counted from 0, to min(1, (t + 1) / warmupSteps)", () => {
  expect([0, 1, 2, 3, 4, 5].map((step) => warmup(step, 4))).toEqual([0.25, 0.5, 0.75, 1, 1, 1]);
  expect(warmup(0, 0)).toBe(1);
  expect(warmup(0, 1)).toBe(1);
  expect(rates({ ...constant, lrWarmupSteps: 4 }, 6)).toEqual([0.5, 1, 1.5, 2, 2, 2]);
});

test("the last lrDecaySteps steps fall linearly: undiminished first, 1 / lrDecaySteps last", () => {
  expect(rates({ ...constant, lrDecaySteps: 4 }, 6)).toEqual([2, 2, 2, 1.5, 1, 0.5]);
});

test("the cosine falls from lr to lr / 10 between warm-up and decay", () => {
  const result = rates({ ...constant, lrSchedule: "cosine" }, 10);
  expect(result[0]).toBe(2);
  expect(result[5]).toBeCloseTo(2 * 0.55, 12);
  for (let step = 1; step < 10; step++) expect(result[step]!).toBeLessThan(result[step - 1]!);
  const framed = rates({ ...constant, lrSchedule: "cosine", lrWarmupSteps: 3, lrDecaySteps: 3 }, 12);
  expect(framed.slice(0, 4)).toEqual([2 / 3, 4 / 3, 2, 2].map((rate) => expect.closeTo(rate, 12)));
  expect(framed[9]).toBeCloseTo(0.2, 12);
  expect(framed[11]).toBeCloseTo(0.2 / 3, 12);
});
