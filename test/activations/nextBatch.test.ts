import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { ActivationSource } from "../../lib/activations/source.js";
import { Device } from "../../lib/engine/device.js";
import { evaluate } from "../../lib/sae/evaluation.js";
import { Sae } from "../../lib/sae/sae.js";
import { Trainer } from "../../lib/training/trainer.js";
import { reachableBytes } from "../reachableBytes.js";
import { testDevice } from "../testDevice.js";
import { ArraySource } from "../training/arraySource.js";
import { activations, dIn, sae, training } from "../training/smallRun.js";

let device: Device;
let other: Device;
beforeAll(async () => {
  device = await Device.open(testDevice, { threads: 1 });
  other = await Device.open(testDevice, { threads: 1 });
});
afterAll(async () => {
  await device.close();
  await other.close();
});

/** A source of which somebody has got `next` wrong. */
class Careless extends ArraySource {
  constructor(answer: () => unknown) {
    super(activations, dIn, device);
    this.next = answer as ActivationSource["next"] as never;
  }
}

const answers: [string, () => unknown, string, string][] = [
  [
    "no rows",
    async () => device.zeros([0, dIn]),
    "ERR_SHAPE_MISMATCH",
    "[rows, 8] with 1 to 32 rows.*found \\[0, 8\\]",
  ],
  ["more rows than asked for", async () => device.zeros([33, dIn]), "ERR_SHAPE_MISMATCH", "found \\[33, 8\\]"],
  ["rows of another width", async () => device.zeros([32, 9]), "ERR_SHAPE_MISMATCH", "found \\[32, 9\\]"],
  ["a list of numbers", async () => device.zeros([dIn]), "ERR_SHAPE_MISMATCH", "found \\[8\\]"],
  ["float64", async () => device.zeros([1, dIn], "f64"), "ERR_DTYPE_MISMATCH", "must give f32, found f64"],
  ["a Float32Array", async () => new Float32Array(256), "ERR_INVALID_ARGUMENT", "a Tensor .*found a Float32Array"],
  ["null", async () => null, "ERR_INVALID_ARGUMENT", "or undefined at its end, found null"],
  ["no promise", () => device.zeros([32, dIn]), "ERR_INVALID_ARGUMENT", "a promise, found a Tensor"],
  ["nothing, and no promise of it", () => undefined, "ERR_INVALID_ARGUMENT", "a promise, found undefined"],
  ["a tensor of another device", async () => other.zeros([32, dIn]), "ERR_DEVICE_MISMATCH", "on another"],
];

describe("a source that gives something else than it promises is named", () => {
  test.each(answers)("%s, in training", async (_, answer, code, found) => {
    const message = expect.stringMatching(
      new RegExp(
        `^next\\(32\\) of the source of activations \\(a Careless\\) .*${found.replace(/^\[rows/, "\\[rows")}`,
      ),
    );
    const source = new Careless(answer);
    const trainer = await Trainer.create({ sae, training, source, device });
    await expect(trainer.run().next()).rejects.toMatchObject({ code, message });
    const scaled = { ...sae, normalizeActivations: "expected-average-only-in" as const };
    await expect(Trainer.create({ sae: scaled, training, source, device })).rejects.toMatchObject({ code, message });
  });

  test.each(answers)("%s, in an evaluation", async (_, answer, code) => {
    using trained = Sae.create(sae, device, 0);
    const options = { tokens: 64, batchSize: 32 };
    await expect(evaluate(trained, new Careless(answer), options)).rejects.toMatchObject({ code });
  });

  test("what was refused is freed", async () => {
    using trained = Sae.create(sae, device, 0);
    const before = await reachableBytes(device);
    for (const [, answer] of answers) {
      await expect(evaluate(trained, new Careless(answer), { tokens: 64, batchSize: 32 })).rejects.toThrow();
    }
    expect(await reachableBytes(device)).toBe(before);
  });

  test.each<[unknown, RegExp]>([
    [undefined, /^Trainer\.create: source must be an ActivationSource .*, found undefined$/],
    [{}, /^Trainer\.create: source\.dIn must be .* a positive integer, found undefined$/],
    [{ dIn: 8, next: async () => {} }, /^Trainer\.create: source\.saveState must be a function .*, found undefined$/],
  ])("what is no source at all is refused before anything is made: %o", async (source, message) => {
    const creating = Trainer.create({ sae, training, source: source as ActivationSource, device });
    await expect(creating).rejects.toMatchObject({
      code: "ERR_INVALID_ARGUMENT",
      message: expect.stringMatching(message),
    });
  });
});
