import type { Device } from "../../lib/engine/device.js";
import { parseSaeConfig } from "../../lib/sae/config.js";
import { normalisedRows, Sae } from "../../lib/sae/sae.js";
import { type Golden, relativeError } from "./goldens.js";
import { gradientStep } from "./gradientStep.js";

/**
 * How far the first step is from its golden: relative errors of latents, reconstruction, loss terms and the gradient of
 * every parameter. With expected-average-only-in of latents and reconstruction only: what scale it trains in is for a
 * whole run to find out, and there its gradients show.
 */
export async function stepDeviations(golden: Golden, device: Device): Promise<Record<string, number>> {
  const { sae: config, training } = golden;
  const { dIn, dOut = dIn, normalizeActivations, transcoder } = config;
  const tokens = training.batchSize;
  const parameters = golden.initialParameters(device);
  using sae = new Sae(parseSaeConfig(config), parameters, device);
  using x = device.tensor(golden.x, [tokens, dIn]);
  using y = device.tensor(golden.y, [tokens, dOut]);

  const scaled = normalizeActivations === "layer-norm" ? normalisedRows(x, device) : x;
  const { codes, losses, gradients } = await gradientStep(config, parameters, scaled, device, {
    sparsityScale: 1 / training.l1WarmupSteps,
    ...(transcoder ? { y } : {}),
  });
  const found: Record<string, number> = {
    latents: relativeError(await device.kernels.densify(codes).readFloat32(), golden.array("latents")),
    reconstruction: relativeError(await sae.decode(codes, x).readFloat32(), golden.array("reconstruction")),
  };
  if (normalizeActivations === "expected-average-only-in") return found;
  for (const name of new Set([...golden.parameterNames, ...Object.keys(gradients)])) {
    found[`gradient of ${name}`] = relativeError(
      gradients[name] ?? new Float32Array(),
      golden.array(`gradient.${name}`),
    );
  }
  for (const term of new Set([...Object.keys(golden.firstLosses), ...Object.keys(losses)])) {
    const expected = golden.firstLosses[term] ?? Number.NaN;
    found[`loss ${term}`] = losses[term] === expected ? 0 : Math.abs((losses[term] ?? Number.NaN) / expected - 1);
  }
  return found;
}
