/** What changes from step to step. Steps are counted from 0; every schedule is a function of the step alone. */

export interface LearningRateSchedule {
  readonly lr: number;
  readonly lrSchedule: "constant" | "cosine";
  readonly lrWarmupSteps: number;
  readonly lrDecaySteps: number;
}

/** 1/warmupSteps, 2/warmupSteps, ... 1, 1, ...; 1 throughout without warm-up. */
export function warmup(step: number, warmupSteps: number): number {
  return warmupSteps > 0 ? Math.min(1, (step + 1) / warmupSteps) : 1;
}

/**
 * The learning rate of `step` out of `steps`: linear warm-up, then constant or cosine, then over the last `lrDecaySteps`
 * linearly towards 0 (the first of them is still undiminished, the last takes 1/lrDecaySteps).
 *
 * The cosine falls from lr to lr/10 over the steps between warm-up and decay (torch's CosineAnnealingLR with SAELens'
 * default end).
 */
export function learningRate(schedule: LearningRateSchedule, step: number, steps: number): number {
  const { lr, lrWarmupSteps, lrDecaySteps } = schedule;
  const decay = lrDecaySteps > 0 ? Math.min(1, (steps - step) / lrDecaySteps) : 1;
  return (
    lr * warmup(step, lrWarmupSteps) * decay * (schedule.lrSchedule === "cosine" ? cosine(schedule, step, steps) : 1)
  );
}

function cosine({ lrWarmupSteps, lrDecaySteps }: LearningRateSchedule, step: number, steps: number): number {
  const span = Math.max(1, steps - lrWarmupSteps - lrDecaySteps);
  const progress = Math.min(1, Math.max(0, (step - lrWarmupSteps) / span));
  const end = 0.1;
  return end + ((1 - end) * (1 + Math.cos(Math.PI * progress))) / 2;
}
