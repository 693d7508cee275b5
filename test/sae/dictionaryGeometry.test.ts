import { afterAll, beforeAll, expect, test } from "vitest";
import { Device } from "../../lib/engine/device.js";
import { dictionaryGeometry } from "../../lib/sae/dictionaryGeometry.js";
import { Sae } from "../../lib/sae/sae.js";
import { testDevice } from "../testDevice.js";

let device: Device;
beforeAll(async () => {
  device = await Device.open(testDevice, { threads: 2 });
});
afterAll(() => device.close());

type Rows = readonly (readonly number[])[];

function saeOf(encoder: Rows, decoder: Rows, bias: readonly number[] = encoder.map(() => 0)): Sae {
  const [dIn, dSae] = [encoder[0]!.length, encoder.length];
  const tensor = (rows: Rows) => device.tensor(Float32Array.from(rows.flat()), [dSae, dIn]);
  const parameters = {
    encoder: tensor(encoder),
    encoderBias: device.tensor(Float32Array.from(bias), [dSae]),
    decoder: tensor(decoder),
    decoderBias: device.zeros([dIn]),
  };
  return new Sae({ architecture: "relu", dIn, dSae, applyBDecToInput: false }, parameters, device);
}

function cosine(a: readonly number[], b: readonly number[]): number {
  const dot = (p: readonly number[], q: readonly number[]): number =>
    p.reduce((sum, value, i) => sum + value * q[i]!, 0);
  const norms = Math.sqrt(dot(a, a) * dot(b, b));
  return norms === 0 ? 0 : dot(a, b) / norms;
}

function largestCosines(rows: Rows): number[] {
  return rows.map((a, i) => Math.max(...rows.filter((_, j) => j !== i).map((b) => cosine(a, b))));
}

test("every pair of latents is compared, whatever the size of the dictionary", async () => {
  // 1100 rows: more than one block
  for (const [dSae, dIn] of [
    [2, 1],
    [3, 5],
    [37, 3],
    [1100, 4],
  ] as const) {
    const rows = (seed: number): number[][] =>
      Array.from({ length: dSae }, (_, i) => Array.from({ length: dIn }, (_, d) => Math.sin(seed + i * i + 7 * d)));
    const [encoder, decoder] = [rows(1), rows(2)];
    using sae = saeOf(encoder, decoder);
    const geometry = await dictionaryGeometry(sae);
    for (const [found, expected] of [
      [geometry.maxDecoderCosine, largestCosines(decoder)],
      [geometry.maxEncoderCosine, largestCosines(encoder)],
      [geometry.encoderDecoderCosine!, encoder.map((row, i) => cosine(row, decoder[i]!))],
      [geometry.encoderNorm, encoder.map((row) => Math.hypot(...row))],
      [geometry.decoderNorm, decoder.map((row) => Math.hypot(...row))],
    ] as const) {
      expect(found).toHaveLength(dSae);
      const error = Math.max(...expected.map((value, i) => Math.abs(value - found[i]!)));
      expect(error, `${dSae} latents`).toBeLessThan(2e-6);
    }
  }
});

test("duplicates have cosine 1, opposite latents -1, latents without a direction 0", async () => {
  const decoder = [
    [3, 4],
    [0.3, 0.4],
    [30, 40],
    [-1, 0],
  ];
  using sae = saeOf(
    [
      [1, 0],
      [-2, 0],
      [0, 0],
      [0, 5],
    ],
    decoder,
    [1, -2, 0.5, 0],
  );
  const geometry = await dictionaryGeometry(sae);
  expect([...geometry.maxDecoderCosine.subarray(0, 3)]).toEqual([1, 1, 1].map((value) => expect.closeTo(value, 6)));
  expect(geometry.maxDecoderCosine[3]).toBeCloseTo(-0.6, 6);
  expect([...geometry.maxEncoderCosine]).toEqual([0, 0, 0, 0]);
  expect(geometry.encoderDecoderCosine![2]).toBe(0);
  expect([...geometry.encoderBias]).toEqual([1, -2, 0.5, 0]);

  using opposite = saeOf(
    [
      [1, 1],
      [-3, -3],
    ],
    [
      [1, 1],
      [-3, -3],
    ],
  );
  expect([...(await dictionaryGeometry(opposite)).maxDecoderCosine]).toEqual([-1, -1].map((v) => expect.closeTo(v, 6)));
});

test("a dictionary of one latent has nothing to compare", async () => {
  using sae = saeOf([[1, 2]], [[2, 1]]);
  const geometry = await dictionaryGeometry(sae);
  expect(geometry.maxDecoderCosine[0]).toBeNaN();
  expect(geometry.encoderDecoderCosine![0]).toBeCloseTo(0.8, 12);
});

test("a fired signal ends the comparison", async () => {
  using sae = saeOf(
    [
      [1, 2],
      [1, 3],
    ],
    [
      [2, 1],
      [1, 1],
    ],
  );
  await expect(dictionaryGeometry(sae, { signal: AbortSignal.abort() })).rejects.toMatchObject({ code: "ERR_ABORTED" });
});
