/**
 * Attribution patching (Nanda 2023; Syed et al. 2023, arXiv:2310.10348) of the latents of an SAE: instead of running the
 * model with each patch, the metric m is taken as linear around the base run,
 *
 *   effect of latent i at position t  ≈  (f_source - f_base) ∂m/∂f_i at t,   ∂m/∂f_i = decoder row i · ∂m/∂x_t
 *
 * There is no backward pass here: derivatives are central differences of the model itself, ± 2 % of the activation's
 * norm along a direction, which works for every family of models. Where no more latents differ at a position than the
 * activation has dimensions, the directions are those latents' decoder rows, else the axes, which give the derivative
 * for all latents. This costs 5 + 2 Σ_t min(latents that differ at t, width) forward passes: with few latents more than
 * patching them at each position, which is exact; less where more than twice the width differ, as in dense SAEs.
 */
import { requirePair } from "../analysis/checkPair.js";
import { checkOptions } from "../checkArguments.js";
import type { Tensor } from "../engine/tensor.js";
import { directionHooks } from "./directionHooks.js";
import { type LatentPatchingOptions, latentDifferences, latentPatchingOptions } from "./latentDifferences.js";
import { type PatchHooks, type PatchingSetting, patchedScores, withSetting } from "./patchedRuns.js";
import type { PatchingDirection } from "./promptPair.js";

/** Of the norm of the activation. */
const STEP = 0.02;

export interface LatentAttribution {
  readonly latent: number;
  /** The linear estimate of what patching it at all positions does, normalised as the effect of patching. */
  readonly effect: number;
  /** Its parts, by position of the clean prompt; positions where the latent does not differ are not there. */
  readonly positions: ReadonlyMap<number, number>;
}

export interface AttributionPatchingResult {
  readonly clean: number;
  readonly corrupted: number;
  readonly direction: PatchingDirection;
  /** All latents that differ between the prompts, largest |effect| first. */
  readonly latents: readonly LatentAttribution[];
  readonly forwardPasses: number;
}

/** @throws MonosemError as `latentPatching` */
export async function attributionPatching(options: LatentPatchingOptions): Promise<AttributionPatchingResult> {
  checkOptions("attributionPatching", options, latentPatchingOptions);
  const { sae, model } = options;
  requirePair(model, sae);
  return await withSetting(options, async (setting) => {
    const { base, places } = setting.directed;
    const { output, differences } = await latentDifferences(setting, options);
    using x = await model.activations([base], output);
    const width = x.shape[1]!;
    using norms = model.device.kernels.rowNorms(x);
    const norm = await norms.readFloat32();
    const effects = new Map(Array.from(differences.keys(), (latent) => [latent, new Map<number, number>()]));
    const scale = setting.clean - setting.corrupted;
    const signedScale = setting.direction === "denoising" ? scale : -scale;
    const differing = Array.from(places.keys(), (position) => ({
      position,
      latents: Array.from(differences).flatMap(([latent, at]) => (at.has(position) ? [latent] : [])),
    }));
    const along = (position: number, direction: number): Probe => {
      const place = places.get(position)!.base;
      return { position: place, direction, step: STEP * norm[place]! };
    };

    const few = differing.filter(({ latents }) => latents.length <= width);
    const rows = few.flatMap(({ position, latents }) => latents.map((latent) => ({ position, latent })));
    using directions = model.device.kernels.normaliseRows(sae.parameters.decoder);
    using decoderNorms = model.device.kernels.rowNorms(sae.parameters.decoder);
    const decoderNorm = await decoderNorms.readFloat32();
    const slopes = await derivatives(
      setting,
      { output, table: directions, probes: rows.map(({ position, latent }) => along(position, latent)) },
      options,
    );
    rows.forEach(({ position, latent }, index) => {
      const change = differences.get(latent)!.get(position)! * decoderNorm[latent]!;
      effects.get(latent)!.set(position, (change * slopes[index]!) / signedScale);
    });

    const many = differing.filter(({ latents }) => latents.length > width);
    if (many.length > 0) {
      using axes = model.device.tensor(identity(width), [width, width]);
      const probes = many.flatMap(({ position }) => Array.from({ length: width }, (_, axis) => along(position, axis)));
      const gradients = await derivatives(setting, { output, table: axes, probes }, options);
      using gradientRows = model.device.tensor(Float32Array.from(gradients), [many.length, width]);
      using products = model.device.kernels.linear(gradientRows, sae.parameters.decoder); // [positions, dSae]
      const slope = await products.readFloat32();
      for (const [row, { position, latents }] of many.entries()) {
        for (const latent of latents) {
          const change = differences.get(latent)!.get(position)!;
          effects.get(latent)!.set(position, (change * slope[row * sae.config.dSae + latent]!) / signedScale);
        }
      }
    }

    const latents = Array.from(effects, ([latent, positions]) => ({
      latent,
      effect: [...positions.values()].reduce((sum, value) => sum + value, 0),
      positions,
    })).sort((a, b) => Math.abs(b.effect) - Math.abs(a.effect) || a.latent - b.latent);
    const { clean, corrupted, direction } = setting;
    return { clean, corrupted, direction, latents };
  });
}

/** A unit direction at a position of the base run, and how far to go along it. */
interface Probe {
  readonly position: number;
  readonly direction: number;
  readonly step: number;
}

/** The derivative of the metric along each probe: (m(x + h d) - m(x - h d)) / 2 h. */
async function derivatives(
  setting: PatchingSetting,
  {
    output,
    table,
    probes,
  }: { readonly output: readonly string[]; readonly table: Tensor; readonly probes: readonly Probe[] },
  options: LatentPatchingOptions,
): Promise<Float64Array> {
  // run 2 i goes forward along probe i, run 2 i + 1 back
  const hooksFor = (first: number, count: number): PatchHooks =>
    directionHooks(setting.model, output, {
      table,
      additions: Array.from({ length: count }, (_, index) => {
        const run = first + index;
        const { position, direction, step } = probes[run >> 1]!;
        return [{ position, direction, amount: run % 2 === 0 ? step : -step }];
      }),
      positions: setting.directed.base.length,
    });
  const scores = await patchedScores(setting, 2 * probes.length, hooksFor, options);
  return Float64Array.from(probes, ({ step }, index) => (scores[2 * index]! - scores[2 * index + 1]!) / (2 * step));
}

function identity(size: number): Float32Array {
  const matrix = new Float32Array(size * size);
  for (let i = 0; i < size; i++) matrix[i * size + i] = 1;
  return matrix;
}
