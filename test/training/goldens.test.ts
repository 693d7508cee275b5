import { text } from "node:stream/consumers";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Device } from "../../lib/engine/device.js";
import { goldenCases, goldenShapes, loadGolden } from "../sae/goldens.js";
import { runInChild } from "./childProcess.js";
import { trainGolden, trainingDeviations } from "./goldenTraining.js";

/**
 * With MONOSEM_ALL_GOLDENS=1 every case is trained on every instruction set and on one and two threads (two minutes);
 * otherwise on this machine's best instruction set, one shape on one thread and the other on two, and elsewhere the first
 * step is compared.
 */
const all = process.env.MONOSEM_ALL_GOLDENS === "1";

const devices: Device[] = [];
beforeAll(async () => {
  for (const threads of [1, 2]) devices.push(await Device.open("cpu", { threads }));
});
afterAll(async () => {
  for (const device of devices) await device.close();
});

describe.each(goldenShapes)(
  "training from given weights equals PyTorch's in float64, %s (dIn x dSae x batch)",
  (shape) => {
    const [own, other] = shape === goldenShapes[0] ? [0, 1] : [1, 0];
    test.each(goldenCases)("%s", async (name) => {
      const golden = await loadGolden(shape, name);
      const run = await trainGolden(golden, devices[own]!);
      for (const [what, error] of Object.entries(trainingDeviations(golden, run))) {
        expect(error, what).toBeLessThan(golden.finalTolerance);
      }
      if (all) expect(await trainGolden(golden, devices[other]!), "with another number of threads").toEqual(run);
    });
  },
);

test("training does not depend on the number of threads, for any architecture", async () => {
  for (const architecture of [
    "relu",
    "topk-aux",
    "batchtopk-aux",
    "matryoshka",
    "gated",
    "soft-gated",
    "jumprelu-tanh",
  ]) {
    const golden = await loadGolden("16x64x32", architecture);
    const [one, two] = [await trainGolden(golden, devices[0]!), await trainGolden(golden, devices[1]!)];
    expect(one).toEqual(two);
  }
});

describe("on every instruction set of this machine, every case equals PyTorch's", () => {
  // the native module chooses once per process
  test.for(["avx512-amx", "avx512", "avx2", "neon", "baseline"])("%s", async (instructionSet, { skip }) => {
    const child = runInChild("./goldenTraining.ts", "reportFailures", [all ? "all" : "first"], {
      environment: { MONOSEM_ISA: instructionSet },
    });
    const report = JSON.parse(await text(child.stdout));
    skip(report.code === "ERR_UNSUPPORTED");
    expect(report).toEqual({ compared: expect.any(Number), failures: [] });
    expect(report.compared).toBeGreaterThan(goldenShapes.length * goldenCases.length);
  });
});
