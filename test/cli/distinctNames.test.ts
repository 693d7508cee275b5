import { expect, test } from "vitest";
import { distinctNames } from "../../lib/cli/distinctNames.js";

test("paths go by what tells them apart", () => {
  for (const [paths, names] of [
    [
      ["runs/a/sae", "runs/b/sae"],
      ["a", "b"],
    ],
    [
      ["/x/runs/a/1/sae", "/x/runs/b/1/sae/"],
      ["a", "b"],
    ],
    [
      ["a", "b"],
      ["a", "b"],
    ],
    [
      ["./runs/a", "runs/b/c"],
      ["a", "b/c"],
    ],
    [
      ["runs/a/1", "runs/b/2"],
      ["a/1", "b/2"],
    ],
    [["only/one/sae"], ["only/one/sae"]],
    // nothing would be left of one of them
    [
      ["runs", "runs/b"],
      ["runs", "runs/b"],
    ],
    [
      ["sae", "runs/sae"],
      ["sae", "runs/sae"],
    ],
    [
      ["a/a", "a/a/a"],
      ["a/a", "a/a/a"],
    ],
    [[], []],
  ] as const) {
    expect(distinctNames(paths)).toEqual(names);
  }
});
