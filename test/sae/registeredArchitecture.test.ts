import { afterAll, beforeAll, expect, test } from "vitest";
import { Device } from "../../lib/engine/device.js";
import { type Architecture, defineArchitecture } from "../../lib/sae/architecture.js";
import { registerArchitecture } from "../../lib/sae/architectures.js";
import type { SaeConfig } from "../../lib/sae/config.js";
import { Sae } from "../../lib/sae/sae.js";
import { testDevice } from "../testDevice.js";

let device: Device;
beforeAll(async () => {
  device = await Device.open(testDevice, { threads: 1 });
});
afterAll(() => device.close());

/** An architecture from outside that keeps all positive latents. */
function plain(name: string, savedAs: string, homogeneous = true): Architecture<string, object, object> {
  return defineArchitecture({
    name,
    options: {},
    trainingOptions: {},
    parameters: { encoderBias: { shape: "latents", initial: 0, savedAs: "b_enc" } },
    homogeneous,
    initialDecoderNorm: 0.3,
    decoderUnitNorm: false,
    saved: { name: savedAs },
    encode: ({ kernels, parameters: p }, input) =>
      kernels.encode(input, p.encoder, p.encoderBias, { select: "positive" }),
    gradients: () => {
      throw new Error("not trained here");
    },
  });
}

test("a name that is known, or under which another is saved, is refused; the same architecture twice is not", () => {
  const first = plain("first-outside", "first-outside");
  registerArchitecture(first);
  registerArchitecture(first);
  expect(() => registerArchitecture(plain("first-outside", "other"))).toThrow(/is known already/);
  expect(() => registerArchitecture(plain("hijacker", "standard"))).toThrow(/saved as "standard", as which another/);
  expect(() => registerArchitecture(plain("hijacker", "shifted-jumprelu"))).toThrow(/shifted-jumprelu/);
  expect(() => registerArchitecture(plain("topk", "topk"))).toThrow(/is known already/);
});

test("decoder norms are not folded where latents do not scale with their pre-activations", () => {
  registerArchitecture(plain("bent", "bent", false));
  const config = { architecture: "bent", dIn: 4, dSae: 6, applyBDecToInput: true } as unknown as SaeConfig;
  using sae = Sae.create(config, device, 0);
  expect(() => sae.foldDecoderNorm()).toThrow(expect.objectContaining({ code: "ERR_UNSUPPORTED" }));
});
