import { afterAll, beforeAll, expect, test } from "vitest";
import { Device } from "../../lib/engine/device.js";
import type { SaeConfig } from "../../lib/sae/config.js";
import { Sae } from "../../lib/sae/sae.js";
import { testDevice } from "../testDevice.js";

const [rows, dIn, dSae] = [6, 9, 21];
const architectures: [string, object][] = [
  ["relu", {}],
  ["topk", { k: 4 }],
  ["batchtopk", { k: 3 }],
  ["matryoshka", { k: 3 }],
  ["jumprelu", {}],
  ["jumprelu", { shifted: true }],
  ["gated", {}],
  ["soft-gated", {}],
  ["topk", { k: 4, normalizeActivations: "layer-norm" }],
];

let device: Device;
beforeAll(async () => {
  device = await Device.open(testDevice, { threads: 2 });
});
afterAll(() => device.close());

const numbers = (shape: readonly number[], seed: number, scale = 1) =>
  device.tensor(
    Float32Array.from({ length: shape.reduce((a, b) => a * b, 1) }, (_, i) => scale * Math.sin(seed + 1.7 * i * i)),
    shape,
  );

function made(architecture: string, options: object): Sae {
  const config = { architecture, dIn, dSae, applyBDecToInput: true, ...options } as unknown as SaeConfig;
  const { parameters } = Sae.create(config, device, 1);
  const filled = Object.entries(parameters).map(([name, parameter], i) => [name, numbers(parameter!.shape, i, 0.3)]);
  return new Sae(config, Object.fromEntries(filled), device);
}

test.each(architectures)("%s %j: its own pre-activations give its own latents", async (architecture, options) => {
  using sae = made(architecture, options);
  using x = numbers([2, rows / 2, dIn], 40);
  using codes = sae.encode(x);
  using preActivations = sae.preActivations(x);
  expect(preActivations.shape).toEqual([rows, dSae]);
  using again = sae.encodePreActivations(preActivations, x);
  using expected = device.kernels.densify(codes);
  using found = device.kernels.densify(again);
  const values = await expected.readFloat32();
  (await found.readFloat32()).forEach((value, i) => {
    expect(value).toBeCloseTo(values[i]!, 5);
  });
  expect(values.some((value) => value !== 0)).toBe(true);
});

test("pre-activations of another size than the SAE's and x's are refused", () => {
  using sae = made("relu", {});
  using x = numbers([rows, dIn], 40);
  for (const shape of [[rows, dSae - 1], [rows - 1, dSae], [rows * dSae]]) {
    using wrong = numbers(shape, 1);
    expect(() => sae.encodePreActivations(wrong, x)).toThrow(expect.objectContaining({ code: "ERR_SHAPE_MISMATCH" }));
  }
});
