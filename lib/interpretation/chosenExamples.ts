/** Which of the gathered examples an explainer sees, and which a scorer. */
import type { Example, ExampleSide } from "./examples.js";

export interface ShownExamples {
  /** Those with the largest peaks. */
  readonly strongest: readonly Example[];
  /** From all quantiles of the active windows, strongest first. */
  readonly typical: readonly Example[];
  /** In which the latent does not fire; as far as there are such, with a token on which it peaks elsewhere. */
  readonly contrastive: readonly Example[];
}

export function shownExamples(
  side: ExampleSide,
  count: { readonly strongest: number; readonly typical: number; readonly contrastive: number },
): ShownExamples {
  const strongest = side.strongest.slice(0, count.strongest);
  const chosen = new Set(strongest.map(placeOf));
  const typical = spread(
    side.active.filter((example) => !chosen.has(placeOf(example))),
    count.typical,
  );
  const peakTokens = new Set(strongest.map(({ tokens, activations, peak }) => tokens[activations.indexOf(peak)]!));
  const isNear = ({ tokens }: Example): boolean => tokens.some((token) => peakTokens.has(token));
  const contrastive = [...side.silent.filter(isNear), ...side.silent.filter((example) => !isNear(example))];
  return { strongest, typical, contrastive: contrastive.slice(0, count.contrastive) };
}

/** `count` of the items, from the middle of as many equal stretches of the list; all, if there are no more. */
export function spread<Item>(items: readonly Item[], count: number): Item[] {
  if (items.length <= count) return [...items];
  return Array.from({ length: count }, (_, index) => items[Math.floor(((index + 0.5) * items.length) / count)]!);
}

function placeOf({ document, start }: Example): string {
  return `${document}:${start}`;
}
