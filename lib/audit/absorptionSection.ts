import { MonosemError } from "../errors.js";
import { type AbsorptionOptions, evaluateAbsorption } from "../evaluation/absorption.js";
import { ABSORPTION_DEFAULTS, type LetterAbsorption } from "../evaluation/absorptionOfLetters.js";
import { ABSORPTION } from "../evaluation/absorptionOfWord.js";
import { absorptionRefusal } from "../evaluation/absorptionRefusal.js";
import { absorptionFacts } from "../evaluation/benchResults.js";
import { type AuditSection, counted, figureText, named } from "./auditReport.js";

/** First letters that other latents carry than those that stand for them: SAEBench's absorption, with a chance level. */
export async function auditAbsorption(options: AbsorptionOptions): Promise<AuditSection> {
  const section = {
    topic: "absorption" as const,
    title: "Absorption of first letters",
    definition: `Words of the model's vocabulary are shown in prompts that ask for their first letter. For each letter a probe is fitted to what the SAE reads, and the latents that tell the letter best are its main ones (a further one must raise F1 by ${ABSORPTION_DEFAULTS.f1Jump}). Full absorption: on a word that the probe gives the letter, no main latent fires, and the latent of the largest projection onto the probe has a cosine of at least ${ABSORPTION.fullCosine} with it and ${100 * ABSORPTION.leastShare}% of the activation's projection. The fraction is the part of the letter that up to ${ABSORPTION.mostAbsorbers} latents of a cosine of ${ABSORPTION.fractionCosine} or more carry in place of the main ones. Means over the letters that probes find with an F1 above ${ABSORPTION_DEFAULTS.leastProbeF1}. Chance gives the latents' cosines to other latents at random.`,
    cases: [],
  };
  let evaluated: Awaited<ReturnType<typeof evaluateAbsorption>>;
  try {
    evaluated = await evaluateAbsorption(options);
  } catch (error) {
    if (!(error instanceof MonosemError) || !["ERR_UNSUPPORTED", "ERR_CONFIG"].includes(error.code)) throw error;
    return { ...section, figures: [], notMeasured: error.message, data: {} };
  }
  const { letters, ...task } = evaluated;
  const data = absorptionFacts(task);
  if (letters === undefined) {
    return { ...section, figures: [], notMeasured: absorptionRefusal(task), data };
  }
  const mean = (of: (letter: LetterAbsorption) => number): number =>
    letters.reduce((sum, letter) => sum + of(letter), 0) / letters.length;
  const words = letters.reduce((sum, { truePositives }) => sum + truePositives, 0);
  const sample = { count: words, of: `${named(words, "word", "words")} of ${counted(letters.length, "letter")}` };
  return {
    ...section,
    figures: [
      {
        name: "fraction absorbed",
        value: mean(({ meanFraction }) => meanFraction),
        unit: "share",
        baseline: { name: "chance", value: mean(({ chance }) => chance.meanFraction) },
        sample,
      },
      {
        name: "words absorbed in full",
        value: mean(({ fullRate }) => fullRate),
        unit: "share",
        baseline: { name: "chance", value: mean(({ chance }) => chance.fullRate) },
        sample,
      },
      {
        name: "main latents per letter",
        value: mean(({ mainLatents }) => mainLatents.length),
        unit: "number",
        baseline: { name: "not split", value: 1 },
        sample: { count: letters.length, of: named(letters.length, "letter", "letters") },
      },
    ],
    cases: [...letters]
      .sort((a, b) => b.meanFraction - a.meanFraction)
      .slice(0, 5)
      .map(
        ({ letter, meanFraction, mainLatents, truePositives }) =>
          `${letter}: ${figureText(meanFraction, "share")} of ${counted(truePositives, "word")}, main latents ${mainLatents.join(", ")}`,
      ),
    data: {
      ...data,
      letters: letters.map((letter) => ({
        ...letter,
        mainLatents: [...letter.mainLatents],
        latentF1: [...letter.latentF1],
      })),
    },
  };
}
