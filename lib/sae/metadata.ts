import type { Json } from "../activations/source.js";

/** Where an SAE comes from and how it should be used, as far as known; kept in the saved folder. */
export interface SaeMetadata {
  readonly modelName?: string | undefined;
  /** TransformerLens name of the hook point, for example "blocks.2.hook_resid_post". */
  readonly hookName?: string | undefined;
  /** Of a crosscoder: its hook points, in the order in which their activations lie side by side. */
  readonly hookNames?: readonly string[] | undefined;
  /** Of a transcoder: the hook point whose activations it reconstructs. */
  readonly hookNameOut?: string | undefined;
  /** The architecture as which it was trained, where it was saved as another: "batchtopk" of a saved jumprelu. */
  readonly trainedAs?: string | undefined;
  readonly contextSize?: number | undefined;
  readonly prependBos?: boolean | undefined;
  /** Anything else that the folder's metadata holds. */
  readonly [key: string]: Json | undefined;
}

/** What is known of it: the entries that are not undefined, so that they can be laid over others. */
export function known<Entries extends object>(
  entries: Entries,
): { [Key in keyof Entries]: Exclude<Entries[Key], undefined> } {
  return Object.fromEntries(Object.entries(entries).filter(([, value]) => value !== undefined)) as never;
}
