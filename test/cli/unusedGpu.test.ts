import { expect, test } from "vitest";
import { unusedGpu } from "../../lib/cli/unusedGpu.js";

const fallback = { name: "cpu", reason: "no cuBLAS" };

test("that a GPU lies idle is told, with the reason", () => {
  expect(unusedGpu(fallback, ["null", "nvidia3", "nvidiactl"])).toMatch(/^the CPU computes, not the GPU: no cuBLAS; /);
});

test("nothing is told where there is none, or where it computes", () => {
  expect(unusedGpu(fallback, ["null", "nvidiactl"])).toBeUndefined();
  expect(unusedGpu({ name: "cuda:0", reason: "a GPU was found" }, ["nvidia0"])).toBeUndefined();
});
