/**
 * One training step in plain float64 loops, and its gradient by central differences: the reference for gradients that are
 * written out.
 *
 * Where a paper defines a gradient that is not the slope of its loss (frozen copies, straight-through estimators), the
 * loss is written as a function of two sets of parameters, those that move and a `frozen` copy of them. Its slope in the
 * moving ones alone is then what the paper asks for.
 */
import { expect } from "vitest";
import type { Device } from "../../lib/engine/device.js";
import type { SaeParameters } from "../../lib/sae/architecture.js";
import { parseSaeConfig, type SaeTrainingConfig } from "../../lib/sae/config.js";
import { parameterLayout } from "../../lib/sae/parameterLayout.js";
import { relativeError } from "./goldens.js";
import { gradientStep } from "./gradientStep.js";

/** By parameter; float32 numbers in float64 arrays. */
export type HostParameters = Readonly<Record<string, Float64Array>>;

export interface Batch {
  readonly x: Float64Array;
  readonly y: Float64Array;
  readonly tokens: number;
  readonly sparsityScale: number;
  readonly dead: readonly number[];
}

/** The terms of a loss. */
export type Losses = Readonly<Record<string, number>>;
export type LossFunction = (p: HostParameters, frozen: HostParameters, step: HostStep) => Losses;

/** Reproducible values in (-scale, scale) that float32 holds. */
export function noise(length: number, seed: number, scale = 1.5): Float64Array {
  return Float64Array.from({ length }, (_, i) =>
    Math.fround(scale * Math.sin(12.9898 * (i + 1) + 78.233 * seed + i * i * 0.37)),
  );
}

export function hostParameters(config: SaeTrainingConfig): Record<string, Float64Array> {
  const layout = parameterLayout(parseSaeConfig(config));
  return Object.fromEntries(
    layout.map(({ name, shape }, i) => {
      const size = shape.reduce((product, width) => product * width, 1);
      return [name, noise(size, i + 1, shape.length === 2 ? 0.9 : 0.4)];
    }),
  );
}

export function onDevice(p: HostParameters, config: SaeTrainingConfig, device: Device): SaeParameters {
  const layout = parameterLayout(parseSaeConfig(config));
  return Object.fromEntries(
    layout.map(({ name, shape }) => [name, device.tensor(Float32Array.from(p[name]!), shape)]),
  ) as SaeParameters;
}

export function noisyBatch({ dIn, dOut = dIn, transcoder }: SaeTrainingConfig, dead: readonly number[] = []): Batch {
  const tokens = 7;
  const x = noise(tokens * dIn, 21);
  return { x, y: transcoder ? noise(tokens * dOut, 22) : x, tokens, sparsityScale: 0.5, dead };
}

/** What the losses of all architectures are made of; matrices are arrays of rows. */
export class HostStep {
  readonly config: SaeTrainingConfig;
  readonly batch: Batch;

  constructor(config: SaeTrainingConfig, batch: Batch) {
    this.config = config;
    this.batch = batch;
  }

  /** input · weights_iᵀ for every row i of `weights`; input is x less the decoder bias where the SAE subtracts it. */
  product(p: HostParameters, weights: Float64Array): number[][] {
    const { dIn, applyBDecToInput } = this.config;
    const bias = p.decoderBias!;
    return this.#rows(this.batch.x, dIn).map((row) => {
      const input = row.map((value, d) => (applyBDecToInput ? value - bias[d]! : value));
      return this.#rows(weights, dIn).map((weight) => dot(input, weight));
    });
  }

  /** y, less the skip term. */
  target(p: HostParameters): number[][] {
    const { dIn, dOut = dIn } = this.config;
    const x = this.#rows(this.batch.x, dIn);
    return this.#rows(this.batch.y, dOut).map((row, t) =>
      row.map((value, d) => (p.skip ? value - dot(x[t]!, this.#rows(p.skip, dIn)[d]!) : value)),
    );
  }

  /** f W_dec + b_dec */
  decode(f: readonly (readonly number[])[], p: HostParameters): number[][] {
    const { dIn, dOut = dIn } = this.config;
    const decoder = this.#rows(p.decoder!, dOut);
    return f.map((row) =>
      Array.from(p.decoderBias!, (bias, d) => row.reduce((sum, value, i) => sum + value * decoder[i]![d]!, bias)),
    );
  }

  /** |a - b|², mean over tokens */
  squaredError(a: readonly (readonly number[])[], b: readonly (readonly number[])[]): number {
    return this.mean(a.map((row, t) => row.reduce((sum, value, d) => sum + (value - b[t]![d]!) ** 2, 0)));
  }

  mean(perToken: readonly number[]): number {
    return perToken.reduce((sum, value) => sum + value, 0) / this.batch.tokens;
  }

  /** The decoder norms as penalties weigh them. */
  norms(p: HostParameters): number[] {
    const { dIn, dOut = dIn, decoderUnitNorm, hookWidths = [dOut] } = this.config;
    return this.#rows(p.decoder!, dOut).map((row) => {
      if (decoderUnitNorm) return 1;
      let column = 0;
      return hookWidths.reduce((sum, width) => {
        const block = row.slice(column, column + width);
        column += width;
        return sum + Math.hypot(...block);
      }, 0);
    });
  }

  #rows(matrix: Float64Array, width: number): number[][] {
    return Array.from({ length: matrix.length / width }, (_, i) =>
      Array.from(matrix.subarray(i * width, (i + 1) * width)),
    );
  }
}

/**
 * Expects the library's loss terms to be those of `losses`, and its gradients the slopes.
 *
 * @returns the slopes, by parameter
 */
export async function expectSlopes(
  config: SaeTrainingConfig,
  losses: LossFunction,
  p: HostParameters,
  batch: Batch,
  device: Device,
): Promise<Record<string, Float64Array>> {
  const { dIn, dOut = dIn } = config;
  const step = new HostStep(config, batch);
  const found = await gradientStep(
    config,
    onDevice(p, config, device),
    device.tensor(Float32Array.from(batch.x), [batch.tokens, dIn]),
    device,
    {
      y: device.tensor(Float32Array.from(batch.y), [batch.tokens, dOut]),
      sparsityScale: batch.sparsityScale,
      dead: batch.dead,
    },
  );
  const expected = losses(p, p, step);
  expect(Object.keys(found.losses)).toEqual(Object.keys(expected));
  for (const [term, value] of Object.entries(expected)) {
    expect(Math.abs(found.losses[term]! - value), term).toBeLessThan(1e-6 * Math.max(1, value));
  }

  const slopes: Record<string, Float64Array> = {};
  for (const [name, gradient] of Object.entries(found.gradients)) {
    slopes[name] = p[name]!.map((value, i) => {
      const moved = (by: number): number => {
        const values = Float64Array.from(p[name]!);
        values[i] = value + by;
        return Object.values(losses({ ...p, [name]: values }, p, step)).reduce((sum, term) => sum + term, 0);
      };
      return (moved(1e-5) - moved(-1e-5)) / 2e-5;
    });
    expect(relativeError(gradient, Float32Array.from(slopes[name])), name).toBeLessThan(1e-5);
  }
  return slopes;
}

function dot(a: readonly number[], b: readonly number[]): number {
  return a.reduce((sum, value, i) => sum + value * b[i]!, 0);
}
