import { expect, test } from "vitest";
import { z } from "zod";
import { checkedBy, quotedValue } from "../lib/schemaMessages.js";

const schema = z.strictObject({
  width: z.int().positive(),
  names: z.array(z.string()).min(1).optional(),
  kind: z.enum(["a", "b"]).default("a"),
  inner: z.strictObject({ on: z.boolean() }).optional(),
});

test("what a schema accepts comes back with its defaults", () => {
  expect(checkedBy(schema, { width: 3 })).toEqual({ success: true, data: { width: 3, kind: "a" } });
});

test.each([
  [{ width: 0 }, "width: must be greater than 0 (found 0)"],
  [{}, "width: must be a number (missing)"],
  [{ width: 1.5 }, "width: must be an integer (found 1.5)"],
  [{ width: 1, names: [] }, "names: must not be empty (found [])"],
  [{ width: 1, names: [2] }, "names.0: must be text (found 2)"],
  [{ width: 1, kind: "c" }, 'kind: must be "a" or "b" (found "c")'],
  [{ width: 1, inner: { on: 1 } }, "inner.on: must be true or false (found 1)"],
  [{ width: 1, inner: { on: true, off: 1, up: 2 } }, "inner.off: unknown key; inner.up: unknown key"],
  [[], "must be an object"],
  [null, "must be an object"],
  [{ width: "x".repeat(1000) }, `width: must be a number (found "${"x".repeat(99)}...)`],
])("%j: %s", (value, problem) => {
  expect(checkedBy(schema, value)).toEqual({ success: false, problems: [problem] });
});

test("of many problems the first are said, and no name is longer than a line", () => {
  const keys = Array.from({ length: 1000 }, (_, i) => `${i}`.repeat(1000));
  const superfluous = Object.fromEntries(keys.map((key) => [key, 1]));
  for (const value of [
    { width: 1, names: keys.map(() => 1) },
    { width: 1, ...superfluous },
  ]) {
    const checked = checkedBy(schema, value);
    const message = checked.success ? "" : checked.problems.join("; ");
    expect(message).toMatch(/and 990 more (problems|unknown keys)$/);
    expect(message.length).toBeLessThan(1500);
  }
});

test("a value in a message is short, whatever it is", () => {
  expect(quotedValue([1n, "x".repeat(1000)])).toBe(`["1","${"x".repeat(94)}...`);
  expect(quotedValue(undefined)).toBe("nothing");
});
