/** Evaluates the SAEs of some folders, on stored activations or in their model, with progress on the terminal. */
import { contexts } from "../activations/contexts.js";
import { Corpus } from "../activations/corpus.js";
import { StoredActivations } from "../activations/storedActivations.js";
import { limitTokens } from "../analysis/contextBatches.js";
import type { EvaluatedSae } from "../analysis/coreEvaluation.js";
import { evaluateAllInModel } from "../analysis/modelEvaluation.js";
import { hooksForSae, type SaeHooks } from "../analysis/saeHook.js";
import { evaluateOnStored, tensorsForSae } from "../analysis/storedEvaluation.js";
import { trainedArchitecture } from "../analysis/trainedArchitecture.js";
import type { Device } from "../engine/device.js";
import { dictionaryGeometry } from "../sae/dictionaryGeometry.js";
import type { Sae } from "../sae/sae.js";
import { saeLensCfg } from "../sae/saeLensFolder.js";
import { type CorpusFlags, contextShapeForSae } from "./corpusOptions.js";
import { distinctNames } from "./distinctNames.js";
import { type FittingSae, fittingSaes, type LoadedSae, loadableSaes } from "./fittingSaes.js";
import { loadModel, loadSae } from "./folders.js";
import type { TokenizerFlags } from "./options.js";
import { StagedProgress, startProgress } from "./progress.js";

/** How stored activations are read. */
export interface StoredFlags {
  readonly tensor?: readonly string[];
  readonly targetTensor?: string;
  readonly batchSize: number;
}

export interface ModelFlags extends CorpusFlags, TokenizerFlags {
  readonly model: string;
  readonly corpus: readonly string[];
  readonly hook?: readonly string[];
}

export interface MeasureOptions {
  readonly folders: readonly string[];
  readonly device: Device;
  readonly signal: AbortSignal;
}

export const CONTEXTS_PER_BATCH = 8;

/** One SAE after the other, each over all rows. */
export async function measureOnActivations(
  path: string,
  flags: StoredFlags,
  { folders, device, signal }: MeasureOptions,
): Promise<readonly EvaluatedSae[]> {
  const open = (): Promise<StoredActivations> =>
    StoredActivations.open(path, device, { ...tensorsOf(flags), shuffle: false, seed: 0 });
  const saes = await loadableSaes(folders, (folder) => loadSae(folder, device, signal));
  try {
    const fitting = await tensorsForEach(saes, open);
    const names = distinctNames(fitting.map(({ folder }) => folder));
    const measured: EvaluatedSae[] = [];
    for (const [index, { sae, checked: hooks }] of fitting.entries()) {
      using source = await open();
      const progress = startProgress(`evaluating ${names[index]}`, source.rows, "rows");
      const evaluation = await evaluateOnStored(sae, source, {
        batchSize: flags.batchSize,
        signal,
        onProgress: ({ tokens }) => progress.update(tokens),
      }).finally(() => progress.stop());
      measured.push(await described(sae, { name: names[index]!, hooks, ...evaluation }, signal));
    }
    return measured;
  } finally {
    for (const { sae } of saes) sae.dispose();
  }
}

async function tensorsForEach(
  saes: readonly LoadedSae[],
  open: () => Promise<StoredActivations>,
): Promise<readonly FittingSae<SaeHooks>[]> {
  using source = await open();
  return fittingSaes(saes, (sae) => tensorsForSae(sae, source));
}

/** What a transcoder reconstructs lies beside what it encodes. */
function tensorsOf({ tensor, targetTensor }: StoredFlags): { readonly tensor?: readonly string[] } {
  if (targetTensor !== undefined) return { tensor: [...(tensor ?? ["activations"]), targetTensor] };
  return tensor === undefined ? {} : { tensor };
}

/** SAEs whose text is cut in the same way go through the model together. */
export async function measureInModel(
  flags: ModelFlags,
  { folders, device, signal }: MeasureOptions,
): Promise<readonly EvaluatedSae[]> {
  const loaded = await loadableSaes(folders, (folder) => loadSae(folder, device, signal));
  const saes = loaded.map(({ sae }) => sae);
  try {
    using model = await loadModel(flags.model, device, { tokenizer: flags.tokenizer, signal, saes });
    const fitting = fittingSaes(loaded, (sae) => ({
      hooks: hooksForSae(model, sae, flags.hook, flags),
      shape: contextShapeForSae(model, sae, flags),
    }));
    const names = distinctNames(fitting.map(({ folder }) => folder));
    const shapes = fitting.map(({ checked }) => checked.shape);
    const keys = shapes.map((shape) => JSON.stringify(shape));
    const measured = new Map<number, EvaluatedSae>();
    for (const key of new Set(keys)) {
      const group = [...keys.keys()].filter((index) => keys[index] === key);
      const shape = shapes[group[0]!]!;
      const corpus = await Corpus.fromFiles(flags.corpus);
      const what = group.length === 1 ? names[group[0]!]! : `${group.length} SAEs`;
      const titles = { means: "averaging activations", losses: `evaluating ${what}` };
      const progress = new StagedProgress();
      let read = 0;
      const evaluations = await evaluateAllInModel({
        saes: group.map((index) => fitting[index]!.sae),
        model,
        contexts: limitTokens(contexts(corpus, model.tokenizer, shape), flags.tokens),
        contextsPerBatch: CONTEXTS_PER_BATCH,
        ...(flags.hook === undefined ? {} : { hook: flags.hook }),
        allowMismatch: flags.allowMismatch,
        signal,
        onProgress: ({ stage, tokens }) => {
          // The losses are those of the text that was averaged before.
          if (stage === "means") read = tokens;
          progress.update(titles[stage], tokens, stage === "means" ? { atMost: flags.tokens } : read, "tokens");
        },
      }).finally(() => progress.stop());
      for (const [place, index] of group.entries()) {
        const evaluation = evaluations[place]!;
        const { reconstruction, explainedVariancePerHook } = evaluation;
        const { sae, checked } = fitting[index]!;
        const known = {
          name: names[index]!,
          hooks: checked.hooks,
          reconstruction,
          ...(explainedVariancePerHook === undefined ? {} : { explainedVariancePerHook }),
        };
        measured.set(index, {
          ...(await described(sae, known, signal)),
          inModel: evaluation,
          modelName: model.config.name,
          contextSize: shape.contextSize,
        });
      }
    }
    return fitting.map((_, index) => measured.get(index)!);
  } finally {
    for (const sae of saes) sae.dispose();
  }
}

/** What was measured of an SAE, with what its weights tell. */
export async function described(
  sae: Sae,
  known: Pick<EvaluatedSae, "name" | "hooks" | "reconstruction" | "explainedVariancePerHook">,
  signal: AbortSignal,
): Promise<EvaluatedSae> {
  return {
    ...known,
    architecture: trainedArchitecture(sae),
    cfg: saeLensCfg(sae.config, sae.metadata),
    geometry: await dictionaryGeometry(sae, { signal }),
  };
}
