/** What BatchTopK's and Matryoshka's tests compare with: their definitions, one number at a time. */
import type { HostParameters, HostStep, Losses } from "./float64Step.js";

function preActivations(step: HostStep, p: HostParameters): number[][] {
  return step.product(p, p.encoder!).map((row) => row.map((value, i) => value + p.encoderBias![i]!));
}

/** The floor(k N) largest of ReLU(z) over the batch, as dense rows. */
export function batchTopkLatents(step: HostStep, p: HostParameters, k: number): number[][] {
  const z = preActivations(step, p);
  const places = z.flatMap((row, t) => row.map((value, i) => ({ t, i, value })));
  const selected = places
    .filter(({ value }) => value > 0)
    .sort((a, b) => b.value - a.value)
    .slice(0, Math.floor(k * z.length));
  const f = z.map((row) => row.map(() => 0));
  for (const { t, i, value } of selected) f[t]![i] = value;
  return f;
}

/** The `k` largest of a token's pre-activations among these latents, ReLU'd, as dense rows. */
export function topkLatents(
  step: HostStep,
  p: HostParameters,
  k: number,
  among: readonly number[] = [...p.encoderBias!.keys()],
): number[][] {
  return preActivations(step, p).map((row) => {
    const chosen = [...among].sort((a, b) => row[b]! - row[a]! || a - b).slice(0, k);
    return row.map((value, i) => (chosen.includes(i) ? Math.max(value, 0) : 0));
  });
}

/** AuxK: the dead latents model the frozen error of `latents`. */
export function deadLatentLoss(
  step: HostStep,
  p: HostParameters,
  frozen: HostParameters,
  { auxK, auxCoefficient }: { auxK: number; auxCoefficient: number },
  latents: number[][],
): Losses {
  if (auxK === 0) return {};
  const { dead } = step.batch;
  if (dead.length === 0) return { aux: 0 };
  const output = step.decode(latents, frozen);
  const error = step.target(frozen).map((row, t) => row.map((value, d) => value - output[t]![d]!));
  const withoutBias = { ...p, decoderBias: p.decoderBias!.map(() => 0) };
  const model = step.decode(topkLatents(step, p, auxK, dead), withoutBias);
  return { aux: auxCoefficient * step.squaredError(model, error) };
}
