/** The kernels of the decoders after GPT-2, against PyTorch (fixtures/kernels/make_decoder.py), and what they refuse. */
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, expect, test } from "vitest";
import { Device } from "../../lib/engine/device.js";
import type { Tensor } from "../../lib/engine/tensor.js";
import { SafetensorsFile } from "../../lib/formats/safetensors.js";
import { relativeError } from "../models/tinyGpt2.js";
import { testDevice } from "../testDevice.js";

let device: Device;
const golden = new Map<string, Tensor>();

beforeAll(async () => {
  device = await Device.open(testDevice, { threads: 2 });
  const path = fileURLToPath(new URL("../fixtures/kernels/decoder.safetensors", import.meta.url));
  await using file = await SafetensorsFile.open(path);
  for (const [name, { dtype, shape }] of file.entries) {
    const { data } = await file.read(name);
    golden.set(
      name,
      device.tensor(data as Float32Array, shape, ({ BF16: "bf16", I32: "i32" } as const)[dtype as "I32"]),
    );
  }
});
afterAll(() => device.close());

const given = (name: string): Tensor => golden.get(name)!;

async function expectClose(found: Tensor, name: string): Promise<void> {
  expect(found.shape).toEqual(given(name).shape);
  expect(relativeError(await found.readFloat32(), await given(name).readFloat32())).toBeLessThan(1e-6);
  found.dispose();
}

test("rmsNorm is PyTorch's, whole and in parts", async () => {
  const { kernels } = device;
  await expectClose(kernels.rmsNorm(given("x"), { weight: given("weight"), epsilon: 1e-6 }), "rms_norm");
  const { normalized, scale } = kernels.rmsNormParts(given("x"), { epsilon: 1e-6 });
  expect(scale.shape).toEqual([3]);
  await expectClose(kernels.scaleColumns(normalized, given("weight")), "rms_norm");
  await expectClose(kernels.scaleRows(normalized, scale), "x");
});

test("gates are PyTorch's", async () => {
  const { kernels } = device;
  await expectClose(kernels.gatedActivation(given("x"), given("factor"), "silu"), "silu_gate");
  await expectClose(kernels.gatedActivation(given("x"), given("factor"), "gelu_new"), "gelu_gate");
  expect(() => kernels.gatedActivation(given("x"), given("residual"), "silu")).toThrow(
    expect.objectContaining({ code: "ERR_SHAPE_MISMATCH" }),
  );
});

test("bf16 weights are taken as the numbers that they are, in few rows and in many", async () => {
  const { kernels } = device;
  const options = { bias: given("bias"), residual: given("residual"), activation: "silu" } as const;
  await expectClose(kernels.linear(given("x"), given("brain"), options), "linear");
  using widened = kernels.toFloat32(given("brain"));
  const tokens = Int32Array.from({ length: 100 }, (_, i) => i % 3);
  using many = kernels.gatherRows(given("x"), device.tensor(tokens, [100]));
  const found = await kernels.linear(many, given("brain")).readFloat32();
  expect(relativeError(found, await kernels.linear(many, widened).readFloat32())).toBeLessThan(1e-6);
  const rows = device.tensor(Int32Array.of(6, 0, 6), [3]);
  const gathered = await kernels.gatherRows(given("brain"), rows).readFloat32();
  expect(gathered).toEqual(await kernels.gatherRows(widened, rows).readFloat32());
  const half = device.empty([7, 20], "f16");
  expect(() => kernels.linear(given("x"), half)).toThrow(/weights must be f32, found f16/);
});

test("rotations are PyTorch's, in halves and in pairs; elements beyond the pairs stay", async () => {
  const { kernels } = device;
  const angles = { cosines: given("cosines"), sines: given("sines") };
  await expectClose(kernels.rotate(given("heads"), { ...angles, interleaved: false }), "rotated_halves");
  await expectClose(kernels.rotate(given("heads"), { ...angles, interleaved: true }), "rotated_pairs");
  expect((await kernels.rotate(device.zeros([3, 0, 8]), { ...angles, interleaved: false }).read()).length).toBe(0);
  const narrow = device.zeros([3, 2, 7]);
  expect(() => kernels.rotate(narrow, { ...angles, interleaved: false })).toThrow(/4 pairs need 8 elements/);
});

test("attention with shared heads, capped scores, a window and padding is PyTorch's", async () => {
  const { kernels } = device;
  const operands = {
    queries: given("queries"),
    keys: given("keys"),
    values: given("values"),
    softCap: 2,
    window: 4,
    firstKeys: given("starts"),
  };
  await expectClose(kernels.attention(operands), "attention");
  await expectClose(kernels.attentionScores(operands), "scores");
  await expectClose(kernels.attentionMix(kernels.softmaxRows(given("scores")), operands), "attention");
  const fewer = kernels.gatherRows(given("queries").reshape([18, 24]), device.tensor(Int32Array.of(8, 17), [2]));
  const last = await kernels.attention({ ...operands, queries: fewer.reshape([2, 1, 4, 6]) }).readFloat32();
  const all = await given("attention").readFloat32();
  const expected = [...all.subarray(8 * 24, 9 * 24), ...all.subarray(17 * 24)];
  expect(relativeError(last, expected)).toBeLessThan(1e-6);
  const threeHeads = device.zeros([2, 9, 3, 6]);
  expect(() => kernels.attention({ ...operands, queries: threeHeads })).toThrow(
    /3 heads of queries .* 2 heads of keys/,
  );
  expect(() => kernels.attention({ ...operands, softCap: -1 })).toThrow(/softCap must be a finite number >= 0/);
});
