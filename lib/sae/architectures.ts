/** The architectures. A new one is a file beside this one and a line here. */
import { relu } from "./relu.js";
import { topk } from "./topk.js";

export const architectures: { readonly relu: typeof relu; readonly topk: typeof topk } = { relu, topk };

export type ArchitectureName = keyof typeof architectures;
export const architectureNames: readonly ArchitectureName[] = Object.keys(architectures) as ArchitectureName[];
