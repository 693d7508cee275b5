import { fileURLToPath } from "node:url";
import { Device } from "../../lib/engine/device.js";
import { HookedTransformer } from "../../lib/models/hookedTransformer.js";
import { Sae, type SaeMetadata } from "../../lib/sae/sae.js";
import { testDevice } from "../testDevice.js";

export const HOOK = "blocks.2.hook_resid_post";
export const modelDirectory: string = fileURLToPath(new URL("../../assets/tiny-gpt2", import.meta.url));

export async function openTinyModel(): Promise<{ device: Device; model: HookedTransformer }> {
  const device = await Device.open(testDevice, { threads: 1 });
  return { device, model: await HookedTransformer.load(modelDirectory, device) };
}

const text = "The old man said that he would go home. She was very happy, and he looked at her for a long time.";

/** Four contexts of twelve tokens, each with BOS first. */
export function tinyContexts(model: HookedTransformer): Int32Array[] {
  const tokens = model.tokenizer.encode(text.repeat(2));
  return [0, 1, 2, 3].map((i) => Int32Array.of(model.config.bosTokenId!, ...tokens.slice(11 * i, 11 * i + 11)));
}

/**
 * An SAE that reconstructs exactly: latent i is the positive part of input i, latent dIn + i the negative part.
 * `outputScale` 0 makes one that reconstructs nothing.
 */
export function exactSae(device: Device, dIn: number, metadata: SaeMetadata = {}, outputScale = 1): Sae {
  const plusMinus = (size: number): Float32Array =>
    Float32Array.from({ length: 2 * dIn * dIn }, (_, i) => {
      const [latent, column] = [Math.floor(i / dIn), i % dIn];
      return latent % dIn !== column ? 0 : latent < dIn ? size : -size;
    });
  const parameters = {
    encoder: device.tensor(plusMinus(1), [2 * dIn, dIn]),
    encoderBias: device.zeros([2 * dIn]),
    decoder: device.tensor(plusMinus(outputScale), [2 * dIn, dIn]),
    decoderBias: device.zeros([dIn]),
  };
  const config = { architecture: "topk" as const, dIn, dSae: 2 * dIn, k: dIn, applyBDecToInput: false };
  return new Sae(config, parameters, device, metadata);
}
