import { refuseArgument } from "../checkArguments.js";
import { MonosemError } from "../errors.js";
import { HookedTransformer } from "../models/hookedTransformer.js";
import { Sae } from "../sae/sae.js";

/** @throws MonosemError ERR_INVALID_ARGUMENT for what is no model */
export function requireModel(model: unknown): asserts model is HookedTransformer {
  if (model instanceof HookedTransformer) return;
  refuseArgument("the model", "a HookedTransformer (await HookedTransformer.load(...))", model);
}

/** @throws MonosemError ERR_INVALID_ARGUMENT for what is no SAE */
export function requireSae(sae: unknown): asserts sae is Sae {
  if (!(sae instanceof Sae)) refuseArgument("the SAE", "an Sae (such as await Sae.load(...))", sae);
}

/**
 * @throws MonosemError ERR_INVALID_ARGUMENT for what is no model or no SAE; ERR_DEVICE_MISMATCH where the two live on
 *   different devices
 */
export function requirePair(model: unknown, sae: unknown): void {
  requireModel(model);
  requireSae(sae);
  if (model.device === sae.device) return;
  throw new MonosemError(
    "ERR_DEVICE_MISMATCH",
    `the model lives on the device "${model.device.name}", the SAE on ${
      model.device.name === sae.device.name ? "another one of that name" : `"${sae.device.name}"`
    }: load both on one Device`,
  );
}
