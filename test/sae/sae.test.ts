import { mkdtemp, readFile, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { Device } from "../../lib/engine/device.js";
import { SafetensorsFile, type SafetensorsInput, writeSafetensors } from "../../lib/formats/safetensors.js";
import { type NewSaeConfig, parseSaeConfig, type SaeConfig } from "../../lib/sae/config.js";
import { pseudoInverse } from "../../lib/sae/initialise.js";
import { Sae } from "../../lib/sae/sae.js";
import { testDevice } from "../testDevice.js";
import { relativeError } from "./goldens.js";

const parameterNames = ["encoder", "encoderBias", "decoder", "decoderBias"] as const;

let device: Device;
let directory: string;
let folder: string;
beforeAll(async () => {
  device = await Device.open(testDevice, { threads: 2 });
});
afterAll(() => device.close());
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "monosem-"));
  folder = join(directory, "sae");
});
afterEach(() => rm(directory, { recursive: true }));

const topk: SaeConfig = { architecture: "topk", dIn: 5, dSae: 12, k: 3, applyBDecToInput: true };
const relu: SaeConfig = { architecture: "relu", dIn: 5, dSae: 12, applyBDecToInput: false };

/** An SAE whose biases and decoder norms are not all the same, so that a mistake in any of them shows. */
function uneven(config: SaeConfig): Sae {
  const sae = Sae.create(config, device, 5);
  const { encoderBias, decoder, decoderBias } = sae.parameters;
  encoderBias!.write(Float32Array.from({ length: config.dSae }, (_, i) => Math.sin(3 * i) / 5));
  decoderBias.write(Float32Array.from({ length: config.dIn }, (_, i) => Math.cos(5 * i)));
  const factors = device.tensor(
    Float32Array.from({ length: config.dSae }, (_, i) => 0.5 + i / 7),
    [config.dSae],
  );
  device.kernels.scaleRows(decoder, factors, { out: decoder });
  return sae;
}

const inputs = (rows: number, dIn: number) =>
  device.tensor(
    Float32Array.from({ length: rows * dIn }, (_, i) => Math.sin(i * i + 1) * 2),
    [rows, dIn],
  );

describe("initialisation", () => {
  test("decoder rows have the architecture's norm, the encoder is the decoder, the biases are zero", async () => {
    for (const [config, norm] of [
      [topk, 1],
      [relu, 0.1],
    ] as const) {
      const { encoder, encoderBias, decoder, decoderBias } = Sae.create(config, device, 1).parameters;
      for (const found of await device.kernels.rowNorms(decoder).readFloat32()) expect(found).toBeCloseTo(norm, 6);
      expect(await encoder.readFloat32()).toEqual(await decoder.readFloat32());
      expect((await encoderBias!.readFloat32()).every((value) => value === 0)).toBe(true);
      expect((await decoderBias.readFloat32()).every((value) => value === 0)).toBe(true);
    }
  });

  test("the encoder sees x - b_dec unless the configuration says otherwise or the SAE is a transcoder", () => {
    const { applyBDecToInput: _, ...rest } = topk;
    const created = (config: object): boolean =>
      Sae.create({ ...rest, ...config } as NewSaeConfig, device, 1).config.applyBDecToInput;
    expect(created({})).toBe(true);
    expect(created({ applyBDecToInput: undefined })).toBe(true);
    expect(created({ applyBDecToInput: false })).toBe(false);
    expect(created({ transcoder: true, dOut: 3 })).toBe(false);
    expect(() => created({ applyBDecToInput: null })).toThrow(/applyBDecToInput: must be true or false \(found null\)/);
  });

  test("the same seed gives the same SAE, another one another", async () => {
    const decoder = (seed: number) => Sae.create(topk, device, seed).parameters.decoder.readFloat32();
    expect(await decoder(3)).toEqual(await decoder(3));
    expect(await decoder(3)).not.toEqual(await decoder(4));
  });

  test.each([
    ["wide", 40, 7],
    ["narrow", 4, 9],
    ["one latent", 1, 6],
    ["one dimension", 9, 1],
    ["square, so ill-conditioned", 40, 40],
  ])(
    "the pseudo-inverse of a %s decoder times the decoder is the identity on the smaller side",
    async (_, dSae, dIn) => {
      const { decoder } = Sae.create({ ...relu, dSae, dIn }, device, 2).parameters;
      const encoder = await pseudoInverse(decoder, device);
      const [a, b] = [device.kernels.transpose(encoder), device.kernels.transpose(decoder)];
      const product = dSae >= dIn ? device.kernels.linear(a, b) : device.kernels.linear(encoder, decoder);
      const size = Math.min(dSae, dIn);
      const found = await product.readFloat32();
      for (let i = 0; i < size * size; i++) expect(found[i]).toBeCloseTo(i % (size + 1) === 0 ? 1 : 0, 4);
    },
  );

  test("a decoder without full rank has no pseudo-inverse", async () => {
    const decoder = device.tensor(new Float32Array(6 * 4).fill(1), [6, 4]);
    await expect(pseudoInverse(decoder, device)).rejects.toMatchObject({ code: "ERR_INVALID_ARGUMENT" });
  });

  test.each<[string, object, RegExp]>([
    ["an unknown architecture", { ...topk, architecture: "temporal" }, /"temporal" is unknown; known are relu, topk/],
    ["no k", { ...topk, k: undefined }, /k: /],
    ["k above dSae", { ...topk, k: 13 }, /k must be at most dSae \(12\), found 13/],
    ["a size of 0", { ...relu, dSae: 0 }, /dSae/],
  ])("%s is refused", (_, config, message) => {
    expect(() => Sae.create(config as SaeConfig, device, 0)).toThrow(
      expect.objectContaining({ code: "ERR_CONFIG", message: expect.stringMatching(message) }),
    );
  });
});

describe("encoding and decoding", () => {
  test("decode(encode(x)) is reconstruct(x), and matches the formulas one number at a time", async () => {
    for (const config of [topk, relu, { ...topk, applyBDecToInput: false }, { ...relu, applyBDecToInput: true }]) {
      const sae = uneven(config);
      const x = inputs(9, 5);
      const expected = await scalarReconstruction(sae, await x.readFloat32());
      expect(relativeError(await sae.reconstruct(x).readFloat32(), expected)).toBeLessThan(1e-6);
      expect(await sae.decode(sae.encode(x)).readFloat32()).toEqual(await sae.reconstruct(x).readFloat32());
    }
  });

  test.each<[string, SaeConfig]>([
    ["topk", topk],
    ["relu", relu],
    ["with layer norm", { ...topk, normalizeActivations: "layer-norm" }],
    ["with layer norm, b_dec not subtracted", { ...relu, normalizeActivations: "layer-norm" }],
    ["a transcoder", { ...relu, transcoder: true, dOut: 5 }],
    ["a skip transcoder", { ...relu, transcoder: true, dOut: 5, skip: true }],
  ])("activations may have any leading dimensions: %s", async (_, config) => {
    const sae = uneven(config);
    sae.parameters.skip?.write(Float32Array.from({ length: 25 }, (_, i) => Math.sin(i)));
    const x = inputs(6, 5);
    const expected = await sae.reconstruct(x).readFloat32();
    for (const shape of [
      [1, 6, 5],
      [2, 3, 5],
      [3, 1, 2, 5],
    ]) {
      const batch = x.reshape(shape);
      const reconstruction = sae.reconstruct(batch);
      expect(reconstruction.shape).toEqual([6, 5]);
      expect(await reconstruction.readFloat32()).toEqual(expected);
      expect(await sae.decode(sae.encode(batch), batch).readFloat32()).toEqual(expected);
    }
    const one = sae.reconstruct(device.tensor((await x.readFloat32()).slice(0, 5), [5]));
    expect(one.shape).toEqual([1, 5]);
    expect(relativeError(await one.readFloat32(), expected.slice(0, 5))).toBeLessThan(1e-6);
  });

  test("activations of another width, or of other rows than the codes, are refused by what was expected", () => {
    const sae = uneven({ ...topk, normalizeActivations: "layer-norm" });
    for (const shape of [[4, 7], [2, 3, 4], [5, 0], []]) {
      expect(() => sae.encode(device.zeros(shape))).toThrow(
        expect.objectContaining({
          code: "ERR_SHAPE_MISMATCH",
          message: expect.stringContaining(`with dIn 5, found [${shape.join(", ")}]`),
        }),
      );
    }
    expect(() => sae.decode(sae.encode(inputs(3, 5)), inputs(4, 5))).toThrow(/the codes have 3 rows, but x 4/);
  });

  test("folding an input scale changes what goes in and out, and no latent", async () => {
    const property = fc.asyncProperty(
      fc.constantFrom(topk, relu),
      fc.double({ min: 0.01, max: 100, noNaN: true }),
      async (config, scale) => {
        const sae = uneven(config);
        const x = inputs(6, 5);
        const scaled = device.kernels.scale(x, scale);
        const latents = await device.kernels.densify(sae.encode(scaled)).readFloat32();
        const reconstruction = await sae.reconstruct(scaled).readFloat32();
        sae.foldInputScale(scale);
        expect(relativeError(await device.kernels.densify(sae.encode(x)).readFloat32(), latents)).toBeLessThan(1e-5);
        const folded = (await sae.reconstruct(x).readFloat32()).map((value) => value * scale);
        expect(relativeError(folded, reconstruction)).toBeLessThan(1e-5);
      },
    );
    await fc.assert(property, { numRuns: 20 });
  });
});

describe("SAELens folders", () => {
  test.each([
    ["topk", topk],
    ["relu", relu],
    ["one latent in one dimension", { ...relu, dIn: 1, dSae: 1 }],
  ])("what is saved is loaded to the bit: %s", async (_, config) => {
    const sae = uneven(config);
    await sae.save(folder);
    const loaded = await Sae.load(folder, device);
    expect(loaded.config).toEqual(parseSaeConfig(config));
    for (const name of parameterNames) {
      expect(await loaded.parameters[name]!.readFloat32()).toEqual(await sae.parameters[name]!.readFloat32());
    }
  });

  test("cfg.json says what SAELens 6 expects", async () => {
    const metadata = { modelName: "gpt2", hookName: "blocks.2.hook_resid_post", contextSize: 128, prependBos: true };
    await Sae.create(topk, device, 0, { metadata: { ...metadata, note: "x" } }).save(folder);
    expect(JSON.parse(await readFile(join(folder, "cfg.json"), "utf8"))).toEqual({
      architecture: "topk",
      k: 3,
      rescale_acts_by_decoder_norm: false,
      d_in: 5,
      d_sae: 12,
      dtype: "float32",
      device: "cpu",
      apply_b_dec_to_input: true,
      normalize_activations: "none",
      reshape_activations: "none",
      metadata: {
        sae_lens_version: "6.0.0",
        sae_lens_training_version: null,
        model_name: "gpt2",
        hook_name: "blocks.2.hook_resid_post",
        context_size: 128,
        prepend_bos: true,
        note: "x",
      },
    });
    expect((await Sae.load(folder, device)).metadata).toEqual({ ...metadata, note: "x" });
    await using weights = await SafetensorsFile.open(join(folder, "sae_weights.safetensors"));
    const shapes = [...weights.entries.values()].map(({ name, dtype, shape }) => [name, dtype, shape]);
    expect(Object.fromEntries(shapes.map(([name, ...rest]) => [name, rest]))).toEqual({
      W_enc: ["F32", [5, 12]],
      b_enc: ["F32", [12]],
      W_dec: ["F32", [12, 5]],
      b_dec: ["F32", [5]],
    });
  });

  test("defaults stand in for keys that change nothing", async () => {
    await uneven({ ...relu, applyBDecToInput: true }).save(folder);
    await writeFile(join(folder, "cfg.json"), JSON.stringify({ architecture: "standard", d_in: 5, d_sae: 12 }));
    expect((await Sae.load(folder, device)).config).toEqual(parseSaeConfig({ ...relu, applyBDecToInput: true }));
  });

  test("rescale_acts_by_decoder_norm is folded into the weights exactly as SAELens computes it", async () => {
    const sae = uneven(topk);
    await sae.save(folder);
    await editCfg({ rescale_acts_by_decoder_norm: true });
    const loaded = await Sae.load(folder, device);
    const x = inputs(20, 5);
    const expected = await scalarReconstruction(sae, await x.readFloat32(), { rescale: true });
    expect(relativeError(await loaded.reconstruct(x).readFloat32(), expected)).toBeLessThan(1e-6);
  });

  test("bf16 and f16 weights are widened", async () => {
    await uneven(topk).save(folder);
    // 1.0, -2.0 and 0.5 in both formats
    for (const [dtype, name, bits] of [
      ["BF16", "bfloat16", [0x3f80, 0xc000, 0x3f00]],
      ["F16", "float16", [0x3c00, 0xc000, 0x3800]],
    ] as const) {
      const data = (size: number) => Uint16Array.from({ length: size }, (_, i) => bits[i % 3]!);
      await editWeights(() => ({
        W_enc: { shape: [5, 12], data: data(60), dtype },
        b_enc: { shape: [12], data: data(12), dtype },
        W_dec: { shape: [12, 5], data: data(60), dtype },
        b_dec: { shape: [5], data: data(5), dtype },
      }));
      await editCfg({ dtype: name });
      const { decoder } = (await Sae.load(folder, device)).parameters;
      expect((await decoder.readFloat32()).slice(0, 4)).toEqual(Float32Array.of(1, -2, 0.5, 1));
    }
  });

  describe("are refused, by file and reason, with", () => {
    beforeEach(() => uneven(topk).save(folder));
    const refused = async (code: string, message: RegExp): Promise<void> => {
      const load = Sae.load(folder, device);
      await expect(load).rejects.toMatchObject({ code, message: expect.stringMatching(message) });
    };

    test("no folder", async () => {
      await rm(folder, { recursive: true });
      await refused("ERR_NOT_FOUND", /there is no SAE at .* does not exist/);
    });
    test("no weights", async () => {
      await rm(join(folder, "sae_weights.safetensors"));
      await refused("ERR_NOT_FOUND", /sae_weights\.safetensors/);
    });
    test("a configuration that is no JSON", async () => {
      await writeFile(join(folder, "cfg.json"), "{");
      await refused("ERR_FORMAT", /cfg\.json is not JSON/);
    });
    test("a missing tensor", async () => {
      await editWeights(({ b_enc: _, ...rest }) => rest);
      await refused("ERR_NOT_FOUND", /b_enc \[12\] is missing/);
    });
    test("a superfluous tensor", async () => {
      await editWeights((weights) => ({ ...weights, threshold: { shape: [12], data: new Float32Array(12) } }));
      await refused("ERR_FORMAT", /unexpected tensor threshold/);
    });
    test("a transposed tensor", async () => {
      await editWeights((weights) => ({ ...weights, W_dec: { ...weights.W_dec!, shape: [5, 12] } }));
      await refused("ERR_FORMAT", /W_dec has shape \[5, 12\], expected \[12, 5\]: it is transposed/);
    });
    test("a wrong shape", async () => {
      await editCfg({ d_sae: 13 });
      await refused("ERR_FORMAT", /W_enc has shape \[5, 12\], expected \[5, 13\]/);
    });
    test("a dtype other than the configuration's", async () => {
      await editWeights((weights) => ({ ...weights, b_dec: { shape: [5], data: new Float64Array(5) } }));
      await refused("ERR_FORMAT", /b_dec is F64, but cfg\.json's dtype says F32/);
    });
    test("a dtype that cannot be represented", async () => {
      await editCfg({ dtype: "float64" });
      await refused("ERR_UNSUPPORTED", /float64/);
    });
    test("NaN among the weights", async () => {
      await editWeights((weights) => ({
        ...weights,
        b_dec: { shape: [5], data: Float32Array.of(0, 1, Number.NaN, 0, 0) },
      }));
      await refused("ERR_NON_FINITE", /b_dec holds NaN at element 2/);
    });
    test("a truncated file, at any length", async () => {
      const path = join(folder, "sae_weights.safetensors");
      const { length } = await readFile(path);
      for (let size = length - 1; size >= 0; size = Math.floor(size * 0.8) - 1) {
        await truncate(path, size);
        await refused("ERR_FORMAT", /sae_weights\.safetensors/);
      }
    });
    test.each([["temporal"], ["matching_pursuit"], ["constructor"]])("the architecture %s", async (architecture) => {
      await editCfg({ architecture });
      await refused("ERR_UNSUPPORTED", new RegExp(`architecture is "${architecture}"`));
    });
    test("a configuration that says neither architecture nor what it was before SAELens 6", async () => {
      await writeFile(join(folder, "cfg.json"), JSON.stringify({ d_in: 5, d_sae: 12, metadata: {} }));
      await refused("ERR_FORMAT", /no SAELens configuration: architecture/);
    });
    test.each([
      ["expected_average_only_in", /"expected_average_only_in".*inputScale.*convert --input-scale/],
      ["covariance_whitening", /"covariance_whitening", which is not supported; none, .* can be loaded$/],
    ])("the normalisation %s", async (normalize_activations, message) => {
      await editCfg({ normalize_activations });
      await refused("ERR_UNSUPPORTED", message);
    });
    test("k above the number of latents", async () => {
      await editCfg({ k: 13 });
      await refused("ERR_FORMAT", /k must be at most dSae \(12\), found 13/);
    });
    test("no k", async () => {
      await editCfg({ k: undefined });
      await refused("ERR_FORMAT", /cfg\.json.*k/);
    });
  });

  test("an SAE with NaN is not saved", async () => {
    const sae = uneven(topk);
    sae.parameters.decoderBias.write(Float32Array.of(0, Number.NaN, 0, 0, 0));
    await expect(sae.save(folder)).rejects.toMatchObject({
      code: "ERR_NON_FINITE",
      message: expect.stringContaining("b_dec"),
    });
    await expect(readFile(join(folder, "cfg.json"))).rejects.toThrow();
  });

  test("a place that cannot be written is refused by its name", async () => {
    await writeFile(folder, "");
    await expect(uneven(topk).save(folder)).rejects.toMatchObject({
      code: "ERR_IO",
      message: expect.stringContaining(folder),
    });
  });
});

async function editCfg(changes: Record<string, unknown>): Promise<void> {
  const path = join(folder, "cfg.json");
  await writeFile(path, JSON.stringify({ ...JSON.parse(await readFile(path, "utf8")), ...changes }));
}

type Weights = Record<string, SafetensorsInput>;

async function editWeights(edit: (weights: Weights) => Weights): Promise<void> {
  const path = join(folder, "sae_weights.safetensors");
  const weights: Weights = {};
  {
    await using file = await SafetensorsFile.open(path);
    for (const name of file.entries.keys()) weights[name] = await file.read(name);
  }
  await writeSafetensors(path, edit(weights));
}

/** x̂ in float64, as the formulas read; with `rescale` as SAELens' rescale_acts_by_decoder_norm reads. */
async function scalarReconstruction(sae: Sae, x: Float32Array, { rescale = false } = {}): Promise<Float32Array> {
  const { config, parameters: p } = sae;
  const { dIn, dSae } = config;
  const [encoder, encoderBias, decoder, decoderBias] = (await Promise.all(
    parameterNames.map((name) => p[name]!.readFloat32()),
  )) as [Float32Array, Float32Array, Float32Array, Float32Array];
  const result = new Float32Array(x.length);
  const norms = Array.from({ length: dSae }, (_, i) =>
    rescale ? Math.hypot(...decoder.slice(i * dIn, (i + 1) * dIn)) : 1,
  );
  for (let row = 0; row < x.length; row += dIn) {
    const z = norms.map((norm, i) => {
      let value = encoderBias[i]!;
      for (let d = 0; d < dIn; d++) {
        value += (x[row + d]! - (config.applyBDecToInput ? decoderBias[d]! : 0)) * encoder[i * dIn + d]!;
      }
      return value * norm;
    });
    const order = [...z.keys()].sort((a, b) => z[b]! - z[a]! || a - b);
    const chosen = config.architecture === "topk" ? order.slice(0, config.k) : order;
    for (let d = 0; d < dIn; d++) {
      let value = decoderBias[d]!;
      for (const i of chosen) value += (Math.max(z[i]!, 0) * decoder[i * dIn + d]!) / norms[i]!;
      result[row + d] = value;
    }
  }
  return result;
}
