import { existsSync, mkdirSync, readdirSync, readFileSync, truncateSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { expect, test } from "vitest";
import { Device } from "../../lib/engine/device.js";
import { float32FromFloat16 } from "../../lib/formats/halfPrecision.js";
import { SafetensorsFile, writeSafetensors } from "../../lib/formats/safetensors.js";
import { Sae } from "../../lib/sae/sae.js";
import { testDevice } from "../testDevice.js";
import { runCli, runCliWithAbsTopk, runCliWithSmallFiles, temporaryFolder } from "./runCli.js";
import { dIn, dSae, numbers, writeAbsTopkSae, writeActivations, writeSae } from "./saeFiles.js";

/** What the library encodes, [rows, dSae]. */
async function latentsOf(directory: string, rows: number): Promise<Float32Array> {
  const device = await Device.open(testDevice, { threads: 1 });
  using sae = await Sae.load(directory, device);
  using x = device.tensor(numbers(rows * dIn), [rows, dIn]);
  using codes = sae.encode(x);
  const dense = await device.kernels.densify(codes).readFloat32();
  await device.close();
  return dense;
}

/** A sparse file as a matrix, [rows, dSae]. */
async function denseFrom(path: string): Promise<Float32Array> {
  await using file = await SafetensorsFile.open(path);
  const indices = (await file.read("indices")).data as Int32Array;
  const values = await file.readFloat32("values");
  const rowOffsets = Array.from((await file.read("rowOffsets")).data as BigInt64Array, Number);
  const densified = new Float32Array((rowOffsets.length - 1) * dSae);
  for (let row = 0; row < rowOffsets.length - 1; row++) {
    for (let entry = rowOffsets[row]!; entry < rowOffsets[row + 1]!; entry++) {
      densified[row * dSae + indices[entry]!] = values[entry]!;
    }
  }
  return densified;
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
  const rowOffsets = Array.from((await file.read("rowOffsets")).data as BigInt64Array, Number);
  expect(rowOffsets).toHaveLength(rows + 1);
  for (let row = 0; row < rows; row++) {
    const ofRow = indices.subarray(rowOffsets[row], rowOffsets[row + 1]);
    expect([...ofRow]).toEqual([...ofRow].sort((a, b) => a - b));
  }
  expect((await file.readFloat32("values")).every((value) => value > 0)).toBe(true);
  expect(await denseFrom(sparse)).toEqual(expected);
  expect(readdirSync(folder).filter((name) => name.includes("tmp"))).toEqual([]);
});

test("negative latents of an architecture from outside are written as all others", async () => {
  const folder = await temporaryFolder();
  const [sae, activations] = [await writeAbsTopkSae(folder), await writeActivations(folder, 9)];
  const [sparse, dense] = [join(folder, "sparse"), join(folder, "dense")];
  const encode = (...more: string[]): ReturnType<typeof runCli> =>
    runCliWithAbsTopk("encode", "--sae", sae, "--activations", activations, ...more);
  expect(await encode("--output", sparse)).toMatchObject({
    exitCode: 0,
    stdout: expect.stringContaining("36 active latents (4.00 per row)"),
  });
  expect(await encode("--output", dense, "--dense")).toMatchObject({ exitCode: 0 });
  await using file = await SafetensorsFile.open(dense);
  const latents = await file.readFloat32("latents");
  expect(latents.filter((value) => value < 0).length).toBeGreaterThan(0);
  expect(await denseFrom(sparse)).toEqual(latents);
});

test("a folder of shards is read as one file of all their rows", async () => {
  const folder = await temporaryFolder();
  const sae = await writeSae(folder);
  const shards = join(folder, "shards");
  mkdirSync(shards);
  const data = numbers(7 * dIn);
  const write = (name: string, first: number, rows: number): Promise<void> => {
    const part = data.slice(first * dIn, (first + rows) * dIn);
    return writeSafetensors(join(shards, name), { x: { shape: [rows, dIn], data: part } });
  };
  await write("0.safetensors", 0, 4);
  await write("1.safetensors", 4, 3);
  const output = join(folder, "out");
  const encode = (path: string): ReturnType<typeof runCli> =>
    runCli("encode", "--sae", sae, "--activations", shards, "--tensor", "x", "--output", path, "--batch-size", "3");
  expect(await encode(output)).toMatchObject({ exitCode: 0, stdout: expect.stringMatching(/^7 rows, /) });
  expect(await denseFrom(output)).toEqual(await latentsOf(sae, 7));
  expect(await encode(join(shards, "1.safetensors"))).toMatchObject({
    exitCode: 1,
    stderr: expect.stringContaining("is a file of the activations themselves"),
  });
  data[5 * dIn] = Number.NaN;
  await write("1.safetensors", 4, 3);
  expect((await encode(output)).stderr).toMatch(/monosem: row 1 \(the first is 0\) of .*1\.safetensors holds NaN\n$/);
});

test("activations in half precision are widened", async () => {
  const folder = await temporaryFolder();
  const sae = await writeSae(folder);
  const halves = Uint16Array.from({ length: 2 * dIn }, (_, index) => 0x3c00 + 64 * index);
  const [wide, narrow] = [join(folder, "wide"), join(folder, "narrow")];
  await writeSafetensors(wide, { activations: { shape: [2, dIn], data: float32FromFloat16(halves) } });
  await writeSafetensors(narrow, { activations: { shape: [2, dIn], data: halves, dtype: "F16" } });
  const encoded = async (activations: string): Promise<Float32Array> => {
    const output = `${activations}.encoded`;
    await runCli("encode", "--sae", sae, "--activations", activations, "--output", output);
    return await denseFrom(output);
  };
  expect(await encoded(narrow)).toEqual(await encoded(wide));
});

test("the activations themselves are never written over", async () => {
  const folder = await temporaryFolder();
  const sae = await writeSae(folder);
  const activations = await writeActivations(folder, 3);
  const before = readFileSync(activations);
  const aliased = join(folder, ".", "..", basename(folder), basename(activations));
  const run = await runCli("encode", "--sae", sae, "--activations", activations, "--output", aliased);
  expect(run).toMatchObject({
    exitCode: 1,
    stderr: expect.stringContaining("is a file of the activations themselves"),
  });
  expect(readFileSync(activations).equals(before)).toBe(true);
});

test("several processes may write one file at once, and files of other names beside it are left alone", async () => {
  const folder = await temporaryFolder();
  const [sae, activations] = [await writeSae(folder), await writeActivations(folder, 200)];
  const output = join(folder, "out");
  const before = ["indices", "values", "rowOffsets"].map((name) => `${output}.${name}.tmp`);
  for (const path of before) writeFileSync(path, "mine");
  const encode = (): ReturnType<typeof runCli> =>
    runCli("encode", "--sae", sae, "--activations", activations, "--output", output, "--batch-size", "1");
  for (const run of await Promise.all([encode(), encode(), encode()])) expect(run).toMatchObject({ exitCode: 0 });
  expect(await denseFrom(output)).toEqual(await latentsOf(sae, 200));
  for (const path of before) expect(readFileSync(path, "utf8")).toBe("mine");
  expect(readdirSync(folder)).toHaveLength(3 + before.length);
});

test.runIf(process.platform !== "win32")(
  "a file that may not grow so far is an error that names the output",
  async () => {
    const folder = await temporaryFolder();
    const [sae, activations] = [await writeSae(folder), await writeActivations(folder, 500)];
    const output = join(folder, "out");
    const run = await runCliWithSmallFiles(
      ...["encode", "--sae", sae, "--activations", activations, "--output", output],
    );
    expect(run.exitCode).toBe(1);
    expect(run.stderr).toMatch(new RegExp(`monosem: cannot write ${output}: EFBIG: file too large\n$`));
    expect(readdirSync(folder).sort()).toEqual(["activations.safetensors", "sae"]);
  },
);

test("the line at the end shows a name as it is, without what a terminal would obey", async () => {
  const folder = await temporaryFolder();
  const [sae, activations] = [await writeSae(folder), await writeActivations(folder, 3)];
  const output = join(folder, "o\u001b[31mut");
  const run = await runCli("encode", "--sae", sae, "--activations", activations, "--output", output);
  expect(run.stdout).toMatch(/-> .*o\\u\{1b\}\[31mut\n$/);
  expect(existsSync(output)).toBe(true);
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

  const nowhere = await encode(join(folder, "missing.safetensors"), "--output", join(folder, "nodir", "out"));
  expect(nowhere.stderr).toBe(
    `monosem: cannot write ${join(folder, "nodir", "out")}: the folder ${join(folder, "nodir")} does not exist\n`,
  );
  const missing = await encode(join(folder, "missing.safetensors"));
  expect(missing.stderr).toMatch(/^monosem: .*missing\.safetensors.*\n$/);

  const activations = await writeActivations(folder, 5, (data) => {
    data[3 * dIn + 1] = Number.NaN;
  });
  expect((await encode(activations)).stderr).toMatch(
    /monosem: row 3 \(the first is 0\) of .*activations\.safetensors holds NaN\n$/,
  );
  expect((await encode(activations, "--tensor", "other")).stderr).toMatch(/^monosem: .*other.*\n$/);

  truncateSync(activations, 100);
  expect((await encode(activations)).stderr).toMatch(/^monosem: .*activations\.safetensors.*\n$/);
  expect(existsSync(output)).toBe(false);
  expect(readdirSync(folder).sort()).toEqual(["activations.safetensors", "sae"]);
});

test("a precision that the CPU does not have is said to be none, and changes nothing", async () => {
  const folder = await temporaryFolder();
  const files = [
    "--sae",
    await writeSae(folder),
    "--activations",
    await writeActivations(folder, 5),
    "--device",
    "cpu",
  ];
  const [plain, asked] = [join(folder, "plain.safetensors"), join(folder, "asked.safetensors")];
  const said = "the CPU computes in float32, not in bfloat16\n";
  expect((await runCli("encode", ...files, "--output", plain)).stderr).not.toContain(said);
  const { exitCode, stderr } = await runCli("encode", ...files, "--output", asked, "--precision", "bfloat16");
  expect(stderr).toContain(said);
  expect(exitCode).toBe(0);
  expect(readFileSync(asked)).toEqual(readFileSync(plain));
});
