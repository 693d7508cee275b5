import { type AuditSection, counted, named } from "./auditReport.js";
import { type EncodedTokens, rowCount } from "./encodedTokens.js";

/** A latent that fires this often, and one that fires on more than so many tokens. */
const RARE = 1e-4;
const DENSE = 0.1;

/** Latents that never fire, and those that fire all the time. */
export function auditFiring(tokens: EncodedTokens, dSae: number): AuditSection {
  const rows = rowCount(tokens);
  const counts = new Float64Array(dSae);
  for (const latent of tokens.features) counts[latent]! += 1;
  const dead = Array.from(counts.keys()).filter((latent) => counts[latent] === 0);
  const dense = Array.from(counts.keys()).filter((latent) => counts[latent]! > DENSE * rows);
  const sample = { count: dSae, of: `${named(dSae, "latent", "latents")} on ${counted(rows, "token")}` };
  return {
    topic: "firing",
    title: "Dead and dense latents",
    definition: `Dead latents fire on none of the ${rows} tokens. A latent that fires on one token in ${1 / RARE} would be silent on all of them with the probability (1 − ${RARE})^${rows}: only where that is small is a silent latent one to call dead. Dense latents fire on more than ${100 * DENSE}% of the tokens; the baseline is the mean density, the number of active latents per token over the number of latents.`,
    figures: [
      {
        name: "dead",
        value: dead.length / dSae,
        unit: "share",
        baseline: { name: `silence of one that fires on 1 token in ${1 / RARE}`, value: (1 - RARE) ** rows },
        sample,
      },
      {
        name: `dense: on more than ${100 * DENSE}% of the tokens`,
        value: dense.length / dSae,
        unit: "share",
        baseline: { name: "mean density", value: rows === 0 ? null : tokens.features.length / rows / dSae },
        sample,
      },
    ],
    cases: dense
      .sort((a, b) => counts[b]! - counts[a]! || a - b)
      .slice(0, 5)
      .map((latent) => `latent ${latent} fires on ${((100 * counts[latent]!) / rows).toFixed(1)}% of the tokens`),
    data: { dead, firings: Array.from(counts) },
  };
}
