import { checkContexts, type PairingOptions } from "../analysis/pairing.js";
import { type HookChoice, hooksForSae } from "../analysis/saeHook.js";
import { checkOptions, type OptionNames } from "../checkArguments.js";
import { MonosemError } from "../errors.js";
import type { HookedTransformer } from "../models/hookedTransformer.js";
import type { Sae } from "../sae/sae.js";
import { auditAbsorption } from "./absorptionSection.js";
import type { AuditSection, AuditTopic } from "./auditReport.js";
import { auditEffects } from "./causalEffect.js";
import { auditConsistency } from "./consistency.js";
import { type CounterfactualPair, counterfactualPairs } from "./counterfactualEdits.js";
import { auditCounterfactuals } from "./counterfactualStability.js";
import { type Audited, encodeTokens, rowCount } from "./encodedTokens.js";
import { auditFiring } from "./firing.js";
import { auditFragmentation, FRAGMENTS } from "./fragmentation.js";
import { auditOverlap, similarPairs } from "./overlap.js";

/** In the order of the report. */
export const AUDIT_TOPICS: readonly AuditTopic[] = [
  "consistency",
  "counterfactuals",
  "effects",
  "overlap",
  "fragmentation",
  "absorption",
  "firing",
];

export interface AuditOptions extends PairingOptions {
  readonly sae: Sae;
  readonly model: HookedTransformer;
  /** The hook point that the SAE reads. Default: the one in the SAE's metadata. */
  readonly hook?: HookChoice | undefined;
  /** Text to audit on. All of it is kept, with 8 bytes for each latent that fires on a token. */
  readonly contexts: readonly Int32Array[];
  /** Most tokens of an edited text or a prompt, BOS included. */
  readonly contextSize: number;
  /** Whether edited texts and prompts begin with BOS. */
  readonly prependBos: boolean;
  /** Pairs of texts whose latents should be the same, besides those made by edits of the contexts. */
  readonly pairs?: readonly CounterfactualPair[];
  /** Default: all. */
  readonly topics?: readonly AuditTopic[];
  /** Of random choices and chance levels. Default 0. */
  readonly seed?: number;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?:
    | ((progress: { readonly topic: AuditTopic | "text"; readonly done: number; readonly of: number }) => void)
    | undefined;
}

/** Contexts that are edited. */
const EDITED_CONTEXTS = 48;
const PER_BATCH = 8;

const optionNames: OptionNames<AuditOptions> = {
  sae: true,
  model: true,
  hook: true,
  contexts: true,
  contextSize: true,
  prependBos: "boolean",
  pairs: true,
  topics: true,
  seed: true,
  signal: "signal",
  onProgress: "function",
  allowMismatch: "boolean",
};

/**
 * Whether an SAE's latents can be relied on: do they come out the same, stay the same where nothing that matters changes,
 * matter to the model, stand for one thing each, and are they used at all? Each number comes with a baseline and with
 * what it was measured on.
 *
 * @throws MonosemError ERR_CONFIG if model, hook and SAE do not belong together, or where there is no text; ERR_ABORTED
 */
export async function auditSae(options: AuditOptions): Promise<readonly AuditSection[]> {
  checkOptions("auditSae", options, optionNames);
  const { sae, model, contexts, contextSize, prependBos, seed = 0, signal } = options;
  const hooks = hooksForSae(model, sae, options.hook, options);
  if (!options.allowMismatch && contexts.length > 0) checkContexts(model, sae, contexts);
  const audited: Audited = { sae, model, hooks, signal };
  const progress = (topic: AuditTopic | "text", done: number, of: number): void =>
    options.onProgress?.({ topic, done, of });
  const tokens = await encodeTokens(contexts, audited, {
    perBatch: PER_BATCH,
    onProgress: ({ sequences }) => progress("text", sequences, contexts.length),
  });
  if (rowCount(tokens) === 0) throw new MonosemError("ERR_CONFIG", "there is no token to audit the SAE on");
  const topics = AUDIT_TOPICS.filter((topic) => (options.topics ?? AUDIT_TOPICS).includes(topic));
  const pairsNeeded = topics.includes("overlap") || topics.includes("fragmentation");
  const pairs = pairsNeeded
    ? await similarPairs(sae.parameters.decoder, {
        least: FRAGMENTS.leastCosine,
        neighbours: FRAGMENTS.neighbours,
        signal,
      })
    : [];
  const measure: Readonly<Record<AuditTopic, () => Promise<AuditSection> | AuditSection>> = {
    consistency: () => auditConsistency(contexts, audited, seed),
    counterfactuals: () => {
      const texts = contexts.slice(0, EDITED_CONTEXTS).map((ids) => {
        const shown = Array.from(ids).filter((id) => !model.tokenizer.specialTokenIds.has(id));
        return model.tokenizer.decode(shown);
      });
      const edited = texts
        .filter((text) => text.trim() !== "")
        .flatMap((text, index) => counterfactualPairs(text, seed, index));
      return auditCounterfactuals(
        { pairs: [...edited, ...(options.pairs ?? [])], contextSize, prependBos, seed },
        audited,
      );
    },
    effects: () => auditEffects(tokens, audited, seed),
    overlap: () => auditOverlap(pairs, audited, seed),
    fragmentation: () => auditFragmentation(tokens, pairs, audited, seed),
    absorption: () =>
      auditAbsorption({
        sae,
        model,
        hook: options.hook,
        allowMismatch: options.allowMismatch,
        contextSize,
        prependBos,
        seed,
        signal,
      }),
    firing: () => auditFiring(tokens, sae.config.dSae),
  };
  const sections: AuditSection[] = [];
  for (const [index, topic] of topics.entries()) {
    progress(topic, index, topics.length);
    sections.push(await measure[topic]());
    progress(topic, index + 1, topics.length);
  }
  return sections;
}
