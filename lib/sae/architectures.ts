/** The architectures. A new one is a file beside this one and a line here. */
import { MonosemError } from "../errors.js";
import { quotedValue } from "../schemaMessages.js";
import type { Architecture } from "./architecture.js";
import { batchtopk } from "./batchtopk.js";
import { gated } from "./gated.js";
import { jumprelu } from "./jumprelu.js";
import { matryoshka } from "./matryoshka.js";
import { relu } from "./relu.js";
import { softGated } from "./softGated.js";
import { topk } from "./topk.js";

export const architectures: {
  readonly relu: typeof relu;
  readonly topk: typeof topk;
  readonly batchtopk: typeof batchtopk;
  readonly matryoshka: typeof matryoshka;
  readonly gated: typeof gated;
  readonly "soft-gated": typeof softGated;
  readonly jumprelu: typeof jumprelu;
} = { relu, topk, batchtopk, matryoshka, gated, "soft-gated": softGated, jumprelu };

export type ArchitectureName = keyof typeof architectures;
export const architectureNames: readonly ArchitectureName[] = Object.keys(architectures) as ArchitectureName[];

/** An architecture with the types of its options erased, for code that works with any of them. */
export type AnyArchitecture = Architecture<string, object, object>;

const registered = new Map<string, AnyArchitecture>(Object.entries(architectures) as [string, AnyArchitecture][]);

/** All that are known: the library's own and those that were registered. */
export function knownArchitectures(): ReadonlyMap<string, AnyArchitecture> {
  return registered;
}

/**
 * Makes an architecture from outside the library known by its name: to configurations, to `Sae.create` and to
 * `Sae.load`.
 *
 * @throws MonosemError ERR_INVALID_ARGUMENT when another architecture of that name, or one that is saved under the same
 *   name, is known already.
 */
export function registerArchitecture<Name extends string, Options, TrainingOptions>(
  architecture: Architecture<Name, Options, TrainingOptions>,
): void {
  const erased = architecture as unknown as AnyArchitecture;
  const known = registered.get(architecture.name);
  if (known !== undefined && known !== erased) {
    throw new MonosemError("ERR_INVALID_ARGUMENT", `an architecture "${architecture.name}" is known already`);
  }
  const taken = new Set([...registered.values()].filter((other) => other !== erased).flatMap(savedNames));
  const conflict = savedNames(erased).find((name) => taken.has(name));
  if (conflict !== undefined) {
    throw new MonosemError(
      "ERR_INVALID_ARGUMENT",
      `architecture "${architecture.name}" is to be saved as "${conflict}", as which another is saved: such folders would ` +
        "be loaded as the wrong one",
    );
  }
  registered.set(architecture.name, erased);
}

/** What cfg.json calls it. */
function savedNames({ saved }: AnyArchitecture): string[] {
  return "as" in saved ? [] : [saved.name, ...Object.keys(saved.variants ?? {})];
}

/** @throws MonosemError ERR_CONFIG for an unknown name, listing those that are known. */
export function architectureNamed(name: unknown): AnyArchitecture {
  const found = typeof name === "string" ? registered.get(name) : undefined;
  if (found !== undefined) return found;
  throw new MonosemError(
    "ERR_CONFIG",
    `SAE architecture ${quotedValue(name)} is unknown; known are ${[...registered.keys()].join(", ")}`,
  );
}
