import type { FeatureExample } from "../../analysis/features.js";
import { MonosemError } from "../../errors.js";
import type { LatentRecord } from "../latentRecord.js";

/** What the text before a peak may look like. */
export interface ContextPattern {
  readonly name: string;
  readonly pattern: RegExp;
}

/** What precedes a token when a text asks, quotes, lists, denies, counts, repeats itself or is code. */
export const contextPatterns: readonly ContextPattern[] = [
  { name: "line begins", pattern: /(?:^|\n)[^\S\n]*$/u },
  { name: "sentence begins", pattern: /[.!?]["”’)]?\s*$/u },
  { name: "after a question", pattern: /\?[^.!?]*$/u },
  { name: "open quotation", pattern: /^(?:[^"“”]*["“][^"“”]*["”])*[^"“”]*["“][^"“”]*$/u },
  { name: "list item", pattern: /(?:^|\n)[^\S\n]*(?:[-*•]|\d+[.)])[^\n]*$/u },
  { name: "negation", pattern: /(?:\b(?:no|not|never|nothing|nobody)\b|n['’]t\b)[^.!?]*$/iu },
  { name: "after a number", pattern: /\d[\s,.]*$/u },
  { name: "word repeated", pattern: /\b(\p{L}{3,})\b.*\b\1\s*$/isu },
  { name: "code", pattern: /[{};=<>]\s*$/u },
];

export interface BehaviourFigures {
  readonly name: string;
  /** The share of the latent's strongest examples whose text before the peak matches. */
  readonly share: number;
  /** The same share of the texts it is compared with. */
  readonly elsewhere: number;
}

export const behaviourDefinition: string =
  "behaviour: the share of its strongest examples whose text before the peak matches a pattern, and the same share of examples of other latents";

/** @throws MonosemError ERR_INVALID_ARGUMENT for text that is no "name=expression", or no regular expression */
export function parsePattern(text: string): ContextPattern {
  const [name, ...expression] = text.split("=");
  if (name === undefined || name.trim() === "" || expression.join("=") === "") {
    throw new MonosemError("ERR_INVALID_ARGUMENT", `${JSON.stringify(text)} is no pattern: expected name=expression`);
  }
  try {
    return { name: name.trim(), pattern: new RegExp(expression.join("="), "su") };
  } catch (cause) {
    const { message } = cause as Error;
    throw new MonosemError("ERR_INVALID_ARGUMENT", `the pattern ${JSON.stringify(name)}: ${message}`, { cause });
  }
}

/**
 * Patterns by how much more often than elsewhere they precede the latent's peaks. Empty for a latent without examples.
 *
 * @param others - what it is compared with, such as samples of other latents
 * @param tokenText - the text of a token, none for BOS and the like
 */
export function behaviourFigures(
  { examples }: Pick<LatentRecord, "examples">,
  others: readonly FeatureExample[],
  tokenText: (id: number) => string,
  patterns: readonly ContextPattern[] = contextPatterns,
): BehaviourFigures[] {
  if (examples.length === 0) return [];
  const before = ({ tokens, peak }: FeatureExample): string =>
    Array.from(tokens.subarray(0, peak), (token) => tokenText(token)).join("");
  const [own, elsewhere] = [examples.map(before), others.map(before)];
  const share = (texts: readonly string[], { pattern }: ContextPattern): number =>
    texts.length === 0 ? 0 : texts.filter((text) => pattern.test(text)).length / texts.length;
  return patterns
    .map((pattern) => ({ name: pattern.name, share: share(own, pattern), elsewhere: share(elsewhere, pattern) }))
    .sort((a, b) => b.share - b.elsewhere - (a.share - a.elsewhere));
}
