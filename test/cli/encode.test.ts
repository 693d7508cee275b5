import { existsSync, readdirSync, readFileSync, truncateSync } from "node:fs";
import { basename, join } from "node:path";
import { expect, test } from "vitest";
import { Device } from "../../lib/engine/device.js";
import { SafetensorsFile } from "../../lib/formats/safetensors.js";
import { Sae } from "../../lib/sae/sae.js";
import { runCli, temporaryFolder } from "./runCli.js";
import { dIn, dSae, numbers, writeActivations, writeSae } from "./saeFiles.js";

/** What the library encodes, [rows, dSae]. */
async function latentsOf(directory: string, rows: number): Promise<Float32Array> {
  const device = await Device.open("cpu", { threads: 1 });
  using sae = await Sae.load(directory, device);
  using x = device.tensor(numbers(rows * dIn), [rows, dIn]);
  using codes = sae.encode(x);
  const dense = await device.kernels.densify(codes).readFloat32();
  await device.close();
  return dense;
}

test("writes latents dense or sparse, the same ones, whatever the batch size", async () => {
  const folder = await temporaryFolder();
  const rows = 7;
  const sae = await writeSae(folder);
  const activations = await writeActivations(folder, rows);
  const expected = await latentsOf(sae, rows);

  const dense = join(folder, "dense.safetensors");
  const first = await runCli("encode", "--sae", sae, "--activations", activations, "--output", dense, "--dense");
  expect(first).toMatchObject({ exitCode: 0 });
  await using denseFile = await SafetensorsFile.open(dense);
  expect(denseFile.entries.get("latents")).toMatchObject({ dtype: "F32", shape: [rows, dSae] });
  expect(await denseFile.readFloat32("latents")).toEqual(expected);

  const sparse = join(folder, "sparse.safetensors");
  const options = ["--output", sparse, "--batch-size", "3", "--threads", "1"];
  const second = await runCli("encode", "--sae", sae, "--activations", activations, ...options);
  expect(second).toMatchObject({ exitCode: 0, stdout: expect.stringMatching(/^7 rows, \d+ active latents/) });
  await using file = await SafetensorsFile.open(sparse);
  expect(file.metadata).toMatchObject({ dSae: String(dSae) });
  expect(file.entries.get("indices")?.dtype).toBe("I32");
  const indices = (await file.read("indices")).data as Int32Array;
  const values = await file.readFloat32("values");
  const rowOffsets = Array.from((await file.read("rowOffsets")).data as BigInt64Array, Number);
  expect(rowOffsets).toHaveLength(rows + 1);
  const densified = new Float32Array(rows * dSae);
  for (let row = 0; row < rows; row++) {
    const ofRow = indices.subarray(rowOffsets[row], rowOffsets[row + 1]);
    expect([...ofRow]).toEqual([...ofRow].sort((a, b) => a - b));
    ofRow.forEach((latent, i) => {
      densified[row * dSae + latent] = values[rowOffsets[row]! + i]!;
    });
  }
  expect(values.every((value) => value > 0)).toBe(true);
  expect(densified).toEqual(expected);
  expect(readdirSync(folder).filter((name) => name.includes("tmp"))).toEqual([]);
});

test("the activations themselves are never written over", async () => {
  const folder = await temporaryFolder();
  const sae = await writeSae(folder);
  const activations = await writeActivations(folder, 3);
  const before = readFileSync(activations);
  const aliased = join(folder, ".", "..", basename(folder), basename(activations));
  const run = await runCli("encode", "--sae", sae, "--activations", activations, "--output", aliased);
  expect(run).toMatchObject({ exitCode: 1, stderr: expect.stringContaining("is the file of activations itself") });
  expect(readFileSync(activations).equals(before)).toBe(true);
});

test("no rows make an empty file", async () => {
  const folder = await temporaryFolder();
  const [sae, activations, output] = [await writeSae(folder), await writeActivations(folder, 0), join(folder, "out")];
  const result = await runCli("encode", "--sae", sae, "--activations", activations, "--output", output);
  expect(result).toMatchObject({ exitCode: 0 });
  await using file = await SafetensorsFile.open(output);
  expect((await file.read("rowOffsets")).data).toEqual(BigInt64Array.of(0n));
});

test("bad input is refused by name and leaves nothing behind", async () => {
  const folder = await temporaryFolder();
  const sae = await writeSae(folder);
  const output = join(folder, "out.safetensors");
  const encode = (activations: string, ...more: string[]): ReturnType<typeof runCli> =>
    runCli("encode", "--sae", sae, "--activations", activations, "--output", output, ...more);

  const missing = await encode(join(folder, "missing.safetensors"));
  expect(missing.stderr).toMatch(/^monosem: .*missing\.safetensors.*\n$/);

  const activations = await writeActivations(folder, 5, (data) => {
    data[3 * dIn + 1] = Number.NaN;
  });
  expect((await encode(activations)).stderr).toMatch(
    /\nmonosem: row 3 of "activations" in .* holds NaN\n$|^monosem: row 3/,
  );
  expect((await encode(activations, "--tensor", "other")).stderr).toMatch(/^monosem: .*other.*\n$/);

  truncateSync(activations, 100);
  expect((await encode(activations)).stderr).toMatch(/^monosem: .*activations\.safetensors.*\n$/);
  expect(existsSync(output)).toBe(false);
  expect(readdirSync(folder).sort()).toEqual(["activations.safetensors", "sae"]);
});
