import { mkdir, mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Device } from "../../lib/engine/device.js";
import { SafetensorsFile, writeSafetensors } from "../../lib/formats/safetensors.js";
import type { SaeParameters } from "../../lib/sae/architecture.js";
import { parseSaeConfig, type SaeConfig } from "../../lib/sae/config.js";
import { parameterLayout } from "../../lib/sae/parameterLayout.js";
import { Sae } from "../../lib/sae/sae.js";
import { testDevice } from "../testDevice.js";
import { relativeError } from "./goldens.js";

const fixtures = fileURLToPath(new URL("../fixtures/sae", import.meta.url));

let device: Device;
beforeAll(async () => {
  device = await Device.open(testDevice, { threads: 1 });
});
afterAll(() => device.close());

describe("folders that SAELens wrote load, and compute what SAELens computes", () => {
  test.each([
    "standard",
    "standard-layer-norm",
    "topk",
    "topk-rescaled",
    "topk-constant-norm",
    "gated",
    "gated-layer-norm",
    "jumprelu",
    "jumprelu-layer-norm",
    "jumprelu-bfloat16",
    "transcoder",
    "skip-transcoder",
    "jumprelu-transcoder",
    "jumprelu-skip-transcoder",
  ])("%s", async (name) => {
    const folder = join(fixtures, "from-saelens", name);
    const sae = await Sae.load(folder, device);
    expect(sae.metadata).toMatchObject({ hookName: "blocks.1.hook_resid_post", modelName: "gpt2-small" });
    await using expected = await SafetensorsFile.open(join(folder, "expected.safetensors"));
    const x = device.tensor(await expected.readFloat32("activations"), expected.entries.get("activations")!.shape);
    const latents = await device.kernels.densify(sae.encode(x)).readFloat32();
    expect(relativeError(latents, await expected.readFloat32("latents"))).toBeLessThan(1e-6);
    const reconstruction = await sae.reconstruct(x).readFloat32();
    expect(relativeError(reconstruction, await expected.readFloat32("reconstruction"))).toBeLessThan(1e-6);
  });
});

/**
 * The folders under to-saelens/ are what check_saelens.py gives to SAELens. When what `save` writes has changed on
 * purpose, run this test with MONOSEM_UPDATE_FIXTURES=1, and then `python check_saelens.py check`.
 */
describe("what is written is, byte for byte, what SAELens was checked with", () => {
  const shape = { dIn: 7, dSae: 19 };
  const transcoder = { ...shape, dOut: 4, transcoder: true, applyBDecToInput: false };
  const cases: [string, SaeConfig][] = [
    ["relu", { architecture: "relu", ...shape, applyBDecToInput: false }],
    ["topk", { architecture: "topk", ...shape, k: 4, applyBDecToInput: true }],
    ["gated", { architecture: "gated", ...shape, applyBDecToInput: true }],
    ["jumprelu", { architecture: "jumprelu", ...shape, applyBDecToInput: true }],
    ["batchtopk", { architecture: "batchtopk", ...shape, applyBDecToInput: true }],
    ["matryoshka", { architecture: "matryoshka", ...shape, applyBDecToInput: false }],
    [
      "topk-layer-norm",
      { architecture: "topk", ...shape, k: 4, applyBDecToInput: true, normalizeActivations: "layer-norm" },
    ],
    [
      "jumprelu-layer-norm",
      { architecture: "jumprelu", ...shape, applyBDecToInput: true, normalizeActivations: "layer-norm" },
    ],
    [
      "topk-constant-norm",
      { architecture: "topk", ...shape, k: 4, applyBDecToInput: true, normalizeActivations: "constant-norm" },
    ],
    ["transcoder", { architecture: "relu", ...transcoder }],
    ["skip-transcoder", { architecture: "relu", ...transcoder, skip: true }],
    ["jumprelu-transcoder", { architecture: "jumprelu", ...transcoder }],
    ["jumprelu-skip-transcoder", { architecture: "jumprelu", ...transcoder, skip: true }],
  ];
  const metadata = {
    modelName: "gpt2-small",
    hookName: "blocks.1.hook_resid_post",
    contextSize: 128,
    prependBos: true,
  };

  test.each(cases)("%s", async (name, config) => {
    const values = (size: number, seed: number) =>
      Float32Array.from({ length: size }, (_, i) => Math.sin(i * i + seed));
    const parameters = parameterLayout(parseSaeConfig(config)).map(({ name: parameter, shape: sizes }, i) => {
      const size = sizes.reduce((product, width) => product * width, 1);
      const numbers = values(size, i + 1);
      return [parameter, device.tensor(parameter === "threshold" ? numbers.map(Math.abs) : numbers, sizes)];
    });
    const sae = new Sae(config, Object.fromEntries(parameters) as SaeParameters, device, metadata);
    const committed = join(fixtures, "to-saelens", name);
    if (process.env.MONOSEM_UPDATE_FIXTURES === "1") await writeFixture(committed, sae, values(9 * 7, 5));

    const folder = await mkdtemp(join(tmpdir(), "monosem-"));
    await sae.save(folder);
    for (const file of ["cfg.json", "sae_weights.safetensors"]) {
      expect(await readFile(join(folder, file))).toEqual(await readFile(join(committed, file)));
    }
    await rm(folder, { recursive: true });
  });
});

/** `python check_saelens.py check` makes back/ from to-saelens/: SAELens loads each folder and saves it again. */
describe("what SAELens saves of what was written is the same SAE", () => {
  test.each([
    "relu",
    "topk",
    "topk-layer-norm",
    "topk-constant-norm",
    "gated",
    "jumprelu",
    "jumprelu-layer-norm",
    "batchtopk",
    "matryoshka",
    "transcoder",
    "skip-transcoder",
    "jumprelu-transcoder",
    "jumprelu-skip-transcoder",
  ])("%s", async (name) => {
    const ours = await Sae.load(join(fixtures, "to-saelens", name), device);
    const back = await Sae.load(join(fixtures, "back", name), device);
    expect(back.config).toEqual(ours.config);
    expect(back.metadata).toMatchObject(ours.metadata);
    await using expected = await SafetensorsFile.open(join(fixtures, "to-saelens", name, "expected.safetensors"));
    const x = device.tensor(await expected.readFloat32("activations"), [9, 7]);
    const latents = await device.kernels.densify(back.encode(x)).readFloat32();
    expect(relativeError(latents, await expected.readFloat32("latents"))).toBeLessThan(1e-5);
    const reconstruction = await back.reconstruct(x).readFloat32();
    expect(relativeError(reconstruction, await expected.readFloat32("reconstruction"))).toBeLessThan(1e-5);
  });
});

async function writeFixture(folder: string, sae: Sae, values: Float32Array): Promise<void> {
  await mkdir(folder, { recursive: true });
  await sae.save(folder);
  const x = device.tensor(values, [9, 7]);
  await writeSafetensors(join(folder, "expected.safetensors"), {
    activations: { shape: [9, 7], data: values },
    latents: { shape: [9, 19], data: await device.kernels.densify(sae.encode(x)).readFloat32() },
    reconstruction: { shape: [9, sae.config.dOut], data: await sae.reconstruct(x).readFloat32() },
  });
}
