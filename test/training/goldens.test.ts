import { text } from "node:stream/consumers";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Device } from "../../lib/engine/device.js";
import { goldenCases, goldenShapes, loadGolden } from "../sae/goldens.js";
import { runInChild } from "./childProcess.js";
import { trainGolden, trainingDeviations } from "./goldenTraining.js";

let one: Device;
let two: Device;
beforeAll(async () => {
  one = await Device.open("cpu", { threads: 1 });
  two = await Device.open("cpu", { threads: 2 });
});
afterAll(async () => {
  await one.close();
  await two.close();
});

describe.each(goldenShapes)(
  "training from given weights equals PyTorch's in float64, %s (dIn x dSae x batch)",
  (shape) => {
    test.each(goldenCases)("%s", async (name) => {
      const golden = await loadGolden(shape, name);
      const run = await trainGolden(golden, two);
      for (const [what, error] of Object.entries(trainingDeviations(golden, run))) {
        expect(error, what).toBeLessThan(golden.finalTolerance);
      }
      if (shape === goldenShapes.at(-1)) {
        expect(await trainGolden(golden, one), "on one thread, bit for bit").toEqual(run);
      }
    });
  },
);

/** With MONOSEM_ALL_GOLDENS=1 the whole training of every case, which takes a quarter of a minute per instruction set. */
const steps = process.env.MONOSEM_ALL_GOLDENS === "1" ? "all" : "first";

describe(`on every instruction set of this machine, every case (${steps} steps)`, () => {
  // the native module chooses once per process
  test.for(["avx512-amx", "avx512", "avx2", "neon", "baseline"])("%s", async (instructionSet, { skip }) => {
    const child = runInChild("./goldenTraining.ts", "reportFailures", [steps], {
      environment: { MONOSEM_ISA: instructionSet },
    });
    const report = JSON.parse(await text(child.stdout));
    skip(report.code === "ERR_UNSUPPORTED");
    expect(report).toEqual({ compared: expect.any(Number), failures: [] });
    expect(report.compared).toBeGreaterThan(goldenShapes.length * goldenCases.length);
  });
});
