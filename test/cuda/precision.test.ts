import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { Device, type Precision } from "../../lib/engine/device.js";
import type { Tensor } from "../../lib/engine/tensor.js";
import { SafetensorsFile } from "../../lib/formats/safetensors.js";
import type { SaeTrainingConfig } from "../../lib/sae/config.js";
import { pseudoInverse } from "../../lib/sae/initialise.js";
import { Sae } from "../../lib/sae/sae.js";
import { parseConfig } from "../../lib/training/config.js";
import { Trainer } from "../../lib/training/trainer.js";
import { runCli, temporaryFolder } from "../cli/runCli.js";
import { writeActivations, writeSae } from "../cli/saeFiles.js";
import { testDevice } from "../testDevice.js";
import { ArraySource } from "../training/arraySource.js";
import { expectBitExactResume } from "../training/bitExactResume.js";
import { activations, dIn, sae, training } from "../training/smallRun.js";

/** Of other architectures than the small run's, by their options; a configuration gives the rest. */
const others: Readonly<Record<string, object>> = {
  relu: { l1Coefficient: 0.05 },
  batchtopk: { k: 3, auxK: 4, deadAfterTokens: 64 },
  matryoshka: { k: 3, widths: [6], auxK: 4, deadAfterTokens: 64 },
  gated: { l1Coefficient: 0.05 },
  jumprelu: { l0Coefficient: 0.1, targetL0: 3, bandwidth: 0.5, initialThreshold: 0.1 },
};
const saes = new Map<string, SaeTrainingConfig>([["topk", sae]]);
for (const [architecture, options] of Object.entries(others)) {
  const config = { sae: { architecture, dIn, dSae: 24, ...options }, data: { activations: "none" }, output: "none" };
  saes.set(architecture, parseConfig({ ...config, training: { steps: 1 } }).sae as SaeTrainingConfig);
}

describe.each(["tf32", "bfloat16"] as const)("training in %s", (precision: Precision) => {
  test("learns", async () => {
    await using device = await Device.open(testDevice, { precision });
    const source = new ArraySource(activations, dIn, device);
    const schedule = { ...training, steps: 200, logEvery: 50 };
    using trainer = await Trainer.create({ sae, training: schedule, source, device });
    const losses: number[] = [];
    for await (const { loss } of trainer.run()) losses.push(loss);
    expect(losses.at(-1)!).toBeLessThan(losses[0]! / 2);
    trainer.sae.dispose();
  });

  test("what is to be exact is: products that ask for it, pseudo-inverses, dense decodes, given pre-activations", async () => {
    await using device = await Device.open(testDevice, { precision });
    const { kernels } = device;
    const numbers = (shape: readonly [number, number]): Tensor =>
      device.tensor(
        Float32Array.from({ length: shape[0] * shape[1] }, (_, i) => Math.sin(i * i + 1)),
        shape,
      );
    const factor = numbers([30, 7]);
    const ones = device.zeros([1, 7]);
    kernels.fill(ones, 1);
    const rows = await factor.readFloat32();
    const sums = Array.from({ length: 30 }, (_, i) => rows.subarray(7 * i, 7 * i + 7).reduce((sum, x) => sum + x, 0));
    const exact = await kernels.linear(factor, ones, { exact: true }).readFloat32();
    for (const [i, sum] of sums.entries()) expect(exact[i]).toBeCloseTo(sum, 5);

    using model = Sae.create(saes.get("relu")!, device, 2);
    const inverse = await pseudoInverse(model.parameters.decoder, device);
    const product = kernels.linear(kernels.transpose(inverse), kernels.transpose(model.parameters.decoder), {
      exact: true,
    });
    for (const [i, x] of (await product.readFloat32()).entries()) expect(x).toBeCloseTo(i % (dIn + 1) === 0 ? 1 : 0, 4);

    const x = device.tensor(activations.subarray(0, 9 * dIn), [9, dIn]);
    const given = numbers([9, model.config.dSae]);
    const latents = await kernels.densify(model.encodePreActivations(given, x)).readFloat32();
    expect(latents).toEqual((await given.readFloat32()).map((z) => Math.max(z, 0)));
  });

  // What rounded copies a step leaves for the next, a checkpoint does not hold.
  test.each([...saes.keys()])("%s: a run that is resumed ends with the same bits", async (architecture) => {
    await using device = await Device.open(testDevice, { precision });
    await expectBitExactResume(saes.get(architecture)!, [3, 8], 12, device);
  });
});

test("a run is not resumed in another precision", async () => {
  const folder = await temporaryFolder();
  const output = join(folder, "run");
  const run = async (precision: Precision, resume: boolean): Promise<void> => {
    await using device = await Device.open(testDevice, { precision });
    const source = new ArraySource(activations, dIn, device);
    const steps = resume ? 4 : 2;
    const schedule = { ...training, steps, lrWarmupSteps: 0, l1WarmupSteps: 0, checkpointEvery: 2 };
    using trainer = await Trainer.create({ sae, training: schedule, source, device, output, resume });
    for await (const _ of trainer.run());
    trainer.sae.dispose();
  };
  await run("bfloat16", false);
  await expect(run("float32", true)).rejects.toThrow(/was started with another precision/);
  await run("bfloat16", true);
});

test("the command line computes as --precision says, in float32 without it", async () => {
  const folder = await temporaryFolder();
  const files = ["--sae", await writeSae(folder), "--activations", await writeActivations(folder, 7)];
  const latents = async (...flags: string[]): Promise<Float32Array> => {
    const output = join(folder, `${flags.join("")}.safetensors`);
    const all = [...files, "--device", testDevice, "--dense", "--output", output, ...flags];
    expect(await runCli("encode", ...all)).toMatchObject({ exitCode: 0 });
    await using file = await SafetensorsFile.open(output);
    return file.readFloat32("latents");
  };
  const exact = await latents();
  expect(await latents("--precision", "float32")).toEqual(exact);
  const rounded = await latents("--precision", "bfloat16");
  expect(rounded).not.toEqual(exact);
  const largest = Math.max(...exact);
  for (const [i, latent] of rounded.entries()) expect(Math.abs(latent - exact[i]!)).toBeLessThan(0.02 * largest);
});
