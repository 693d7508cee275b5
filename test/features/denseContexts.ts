import fc from "fast-check";
import { type CollectorOptions, FeatureCollector } from "../../lib/features/featureCollector.js";
import type { CodeEntries } from "../../lib/features/firingChains.js";

/** A context with dense activations [positions][dSae]: the form in which a reference is obvious. */
export interface DenseContext {
  readonly tokens: readonly number[];
  readonly activations: readonly (readonly number[])[];
}

export function entriesOf(rows: readonly (readonly number[])[]): CodeEntries {
  const entries = rows.map((row) => row.flatMap((value, latent) => (value === 0 ? [] : [{ latent, value }])));
  const rowOffsets = new Float64Array(rows.length + 1);
  entries.forEach((row, index) => {
    rowOffsets[index + 1] = rowOffsets[index]! + row.length;
  });
  return {
    rowOffsets,
    features: Uint32Array.from(entries.flat(), ({ latent }) => latent),
    values: Float32Array.from(entries.flat(), ({ value }) => value),
  };
}

/** @param excluded - tokens that do not count */
export function addDense(
  collector: FeatureCollector,
  { tokens, activations }: DenseContext,
  excluded: ReadonlySet<number> = new Set(),
  documents?: Uint32Array,
): void {
  const positions = [...tokens.keys()].filter((position) => !excluded.has(tokens[position]!));
  const rows = positions.map((position) => activations[position]!);
  // A batch whose other rows belong to other contexts.
  const padding = [activations[0]!.map(() => 9)];
  const entries = entriesOf([...padding, ...rows, ...padding]);
  const context = { tokens: Int32Array.from(tokens), positions: Int32Array.from(positions) };
  collector.addContext(documents === undefined ? context : { ...context, documents }, entries, 1);
}

export function collectorOf(
  dSae: number,
  contexts: readonly DenseContext[],
  options: CollectorOptions = {},
  excluded?: ReadonlySet<number>,
): FeatureCollector {
  const collector = new FeatureCollector(dSae, options);
  for (const context of contexts) addDense(collector, context, excluded);
  collector.end();
  return collector;
}

export const quarters: fc.Arbitrary<number> = fc.integer({ min: -20, max: 40 }).map((value) => value / 4); // exact in f32

/** Up to eight contexts of up to nine of four tokens, with up to five latents. */
export const dense: fc.Arbitrary<{ dSae: number; contexts: DenseContext[] }> = fc
  .record({ dSae: fc.integer({ min: 1, max: 5 }) })
  .chain(({ dSae }) =>
    fc.record({
      dSae: fc.constant(dSae),
      contexts: fc.array(
        fc
          .array(fc.tuple(fc.nat(3), fc.array(quarters, { minLength: dSae, maxLength: dSae })), {
            minLength: 1,
            maxLength: 9,
          })
          .map((rows) => ({ tokens: rows.map(([token]) => token), activations: rows.map(([, values]) => values) })),
        { minLength: 1, maxLength: 8 },
      ),
    }),
  );
