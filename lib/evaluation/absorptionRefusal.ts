import type { AbsorptionEvaluation } from "./absorption.js";
import { ABSORPTION_DEFAULTS } from "./absorptionOfLetters.js";
import { LETTERS } from "./firstLetterTask.js";

/**
 * Why absorption has no numbers, of an evaluation without `letters`: a vocabulary in which too few letters begin words can
 * say nothing about the model.
 */
export function absorptionRefusal({
  probeF1,
  lettersFound,
  lettersNeeded,
  trainWords,
  testWords,
  spellingAccuracy,
}: Omit<AbsorptionEvaluation, "letters">): string {
  const probed = probeF1.filter((f1) => f1 !== undefined);
  const of = `of ${LETTERS.length} letters`;
  if (probed.length < lettersNeeded) {
    return `the vocabulary has too few words: ${probed.length} ${of} begin enough to be probed (at least one of the ${trainWords} to train on and one of the ${testWords} to test on), ${lettersNeeded} are needed; probes find ${lettersFound} of these`;
  }
  const best = Math.max(...probed).toFixed(2);
  return `the model does not know its words' first letters well enough: probes find ${lettersFound} ${of} (${probed.length} have words enough to be probed; F1 above ${ABSORPTION_DEFAULTS.leastProbeF1}; the best is ${best}), ${lettersNeeded} are needed. Asked, it names the letter of ${(100 * spellingAccuracy).toFixed(1)}% of ${testWords} words`;
}
