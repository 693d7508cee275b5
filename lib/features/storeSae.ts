import { createHash } from "node:crypto";
import { mismatch, type PairingOptions } from "../analysis/pairing.js";
import { MonosemError } from "../errors.js";
import type { Sae } from "../sae/sae.js";
import type { FeatureStore } from "./featureStore.js";

/** SHA-256 of an SAE's configuration and weights. */
export async function saeFingerprint({ config, parameters }: Sae): Promise<string> {
  const sha256 = createHash("sha256").update(JSON.stringify(config));
  for (const name of Object.keys(parameters).sort()) {
    const tensor = parameters[name];
    if (tensor === undefined) continue;
    const data = await tensor.readFloat32();
    sha256.update(name).update(new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
  }
  return sha256.digest("hex");
}

/**
 * Compares a store with the SAE whose features it is said to hold.
 *
 * @throws MonosemError ERR_CONFIG for one of another size, and unless `allowMismatch` for one of other weights
 */
export async function checkStore(
  { summary }: FeatureStore,
  sae: Sae,
  { allowMismatch }: PairingOptions,
): Promise<void> {
  const { dSae, sae: stored } = summary.identity;
  if (dSae !== sae.config.dSae) {
    throw new MonosemError("ERR_CONFIG", `the store is of ${dSae} latents, but the SAE has ${sae.config.dSae}`);
  }
  if (allowMismatch || stored === (await saeFingerprint(sae))) return;
  mismatch("the store holds the features of another SAE: the weights or the configuration differ");
}
