/** What `monosem train` says about settings that do not do what they were meant to do. One line each. */
import type { SaeTrainingConfig } from "../sae/config.js";
import type { RunConfig } from "../training/config.js";
import { saePath } from "../training/saeNames.js";
import type { TrainingProgress } from "../training/trainer.js";
import { worseThanMean } from "./badReconstruction.js";

/** Before the run: options that wait for dead latents where the run is over before a latent can count as dead. */
export function adviceBefore({ sae, training }: RunConfig): readonly string[] {
  return [sae].flat().flatMap((config, index) => {
    const path = saePath(sae, index);
    return lastLooks(config, training).flatMap(({ option, steps, reason }) => {
      const tokens = steps * training.batchSize;
      if (steps > 0 && tokens >= config.deadAfterTokens) return [];
      const none = `${path}.${option} has no effect`;
      if (steps === 0) return [`${none}: the run has no more than ${training.steps} steps`];
      return [
        `${none}: no latent can be dead before ${config.deadAfterTokens} tokens, and ${reason} ${tokens}; ` +
          `lower ${path}.deadAfterTokens`,
      ];
    });
  });
}

/** The options that wait for dead latents, and after how many steps they look for some for the last time. */
function lastLooks(
  config: SaeTrainingConfig,
  { steps }: RunConfig["training"],
): readonly { option: string; steps: number; reason: string }[] {
  const options = { auxK: 0, ghostGradients: false, preActivationCoefficient: 0, resampleEvery: 0, ...config };
  const { resampleEvery } = options;
  const inEveryStep = (["auxK", "ghostGradients", "preActivationCoefficient"] as const)
    .filter((option) => options[option])
    .map((option) => ({ option, steps, reason: "the run has" }));
  if (!resampleEvery) return inEveryStep;
  const lastResampled = steps - 1 - ((steps - 1) % resampleEvery);
  return [...inEveryStep, { option: "resampleEvery", steps: lastResampled, reason: "the last resampling comes after" }];
}

/** After the run: a measure that has no value or a very bad one, and an L0 far from what it was to be. */
export function adviceAfter(
  last: TrainingProgress,
  config: SaeTrainingConfig,
  { batchSize }: Pick<RunConfig["training"], "batchSize">,
): readonly string[] {
  const advice: string[] = [];
  if (Number.isNaN(last.explainedVariance)) {
    const reason = batchSize === 1 ? "a batch is one token" : "all activations of the last batch are the same";
    advice.push(`explained variance is undefined: ${reason}`);
  }
  const problem = worseThanMean(last.explainedVariance);
  if (problem !== undefined) {
    const isScaled = config.normalizeActivations !== "none";
    const atLast = isScaled ? "or more steps" : 'more steps, or sae.normalizeActivations "expected-average-only-in"';
    advice.push(
      `warning: the SAE ${problem}: training has diverged, or was much too short; ` +
        `try a lower training.lr, training.lrWarmupSteps, ${atLast}`,
    );
  }
  if (config.architecture === "jumprelu" && config.sparsityLoss === "quadratic") {
    const { targetL0 = 0 } = config;
    if (Math.abs(last.l0 - targetL0) > 0.2 * targetL0) {
      advice.push(
        `L0 is ${last.l0.toFixed(1)}, still far from targetL0 ${targetL0}: ` +
          "train for more steps, or with a larger l0Coefficient, bandwidth or lr",
      );
    }
  }
  return advice;
}
