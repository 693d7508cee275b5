import { expect, test } from "vitest";
import { decoderNormsPerHook } from "../../lib/analysis/decoderNorms.js";
import { Device } from "../../lib/engine/device.js";
import { Sae } from "../../lib/sae/sae.js";
import { testDevice } from "../testDevice.js";

test("a crosscoder's decoder norms are those of the columns of each hook, for the latents asked for", async () => {
  const device = await Device.open(testDevice, { threads: 1 });
  const config = { architecture: "topk", dIn: 3, dSae: 2, k: 1, hookWidths: [2, 1], applyBDecToInput: false } as const;
  const parameters = {
    encoder: device.zeros([2, 3]),
    encoderBias: device.zeros([2]),
    decoder: device.tensor(Float32Array.of(3, 4, -2, 0, 0, 1), [2, 3]),
    decoderBias: device.zeros([3]),
  };
  using sae = new Sae(config, parameters, device);
  const hooks = [
    { name: "a", width: 2 },
    { name: "b", width: 1 },
  ];
  expect(await decoderNormsPerHook(sae, hooks, [1, 0])).toEqual([
    {
      latent: 1,
      norms: [
        { hook: "a", norm: 0 },
        { hook: "b", norm: 1 },
      ],
    },
    {
      latent: 0,
      norms: [
        { hook: "a", norm: 5 },
        { hook: "b", norm: 2 },
      ],
    },
  ]);
  expect(await decoderNormsPerHook(sae, hooks, [])).toEqual([]);
  await device.close();
});
