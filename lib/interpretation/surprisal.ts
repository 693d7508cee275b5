import { contextBatches } from "../analysis/contextBatches.js";
import { MonosemError, throwIfAborted } from "../errors.js";
import type { HookedTransformer } from "../models/hookedTransformer.js";
import type { Example } from "./examples.js";
import { auroc, mean } from "./statistics.js";

/** Whether the explanation makes the latent's texts less surprising to a language model. Needs no judge. */
export interface SurprisalScore {
  /**
   * Area under the ROC curve of telling active from silent examples by how much the explanation in front lowers their
   * loss: 1 is perfect, 0.5 chance.
   */
  readonly score: number;
  /** How much the loss per token of active examples falls, in nats, on average. */
  readonly activeReduction: number;
  /** The same of silent examples. */
  readonly silentReduction: number;
  /** Whether the explanation was cut, as it left no room for the examples in the model's context. */
  readonly isCut: boolean;
}

/**
 * Surprisal: a text's cross-entropy behind the explanation, compared with that of the text alone. The first token of each
 * text does not count, since what stands before it differs for another reason.
 *
 * @param model - any, such as the one that the latent is of
 * @throws MonosemError ERR_CONFIG for a model whose context has no room for an explanation; ERR_ABORTED
 */
export async function surprisalScore(
  explanation: string,
  { active, silent }: { readonly active: readonly Example[]; readonly silent: readonly Example[] },
  { model, signal }: { readonly model: HookedTransformer; readonly signal?: AbortSignal | undefined },
): Promise<SurprisalScore> {
  const bos = model.tokenizer.bosTokenId;
  const start = bos === undefined ? [] : [bos];
  const full = model.tokenizer.encode(`${explanation.trim()}\n\n`);
  const longest = Math.max(...[...active, ...silent].map(({ tokens }) => tokens.length));
  const room = model.config.contextSize - start.length - longest;
  if (room < 8) {
    throw new MonosemError(
      "ERR_CONFIG",
      `model "${model.config.name}" reads ${model.config.contextSize} tokens, which leaves no room for an explanation before examples of ${longest}`,
    );
  }
  const prefix = [...start, ...full.slice(0, room)];
  const losses = async (examples: readonly Example[], before: readonly number[]): Promise<number[]> => {
    const contexts = examples.map(({ tokens }) => Int32Array.of(...before, ...tokens));
    const found: number[] = [];
    for await (const batch of contextBatches(contexts, 8, signal)) {
      throwIfAborted(signal, "scoring by surprisal");
      using loss = await model.loss(batch.contexts);
      const values = await loss.readFloat32();
      batch.contexts.forEach((_, index) => {
        // Row i holds the loss of token i + 1; the last row of a context predicts nothing.
        const rows = values.subarray(index * batch.positions + before.length, (index + 1) * batch.positions - 1);
        found.push(rows.length === 0 ? 0 : mean([...rows]));
      });
    }
    return found;
  };
  const reductions = async (examples: readonly Example[]): Promise<number[]> => {
    const [alone, behind] = [await losses(examples, start), await losses(examples, prefix)];
    return alone.map((loss, index) => loss - behind[index]!);
  };
  const [ofActive, ofSilent] = [await reductions(active), await reductions(silent)];
  return {
    score: auroc(ofActive, ofSilent),
    activeReduction: mean(ofActive),
    silentReduction: mean(ofSilent),
    isCut: full.length > room,
  };
}
