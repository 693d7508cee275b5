/** Evaluates the SAEs of some folders, on stored activations or in their model, with progress on the terminal. */
import { join } from "node:path";
import { contexts } from "../activations/contexts.js";
import { Corpus } from "../activations/corpus.js";
import type { Json } from "../activations/source.js";
import { StoredActivations } from "../activations/storedActivations.js";
import { limitTokens } from "../analysis/contextBatches.js";
import type { EvaluatedSae } from "../analysis/coreEvaluation.js";
import { evaluateAllInModel } from "../analysis/modelEvaluation.js";
import type { Device } from "../engine/device.js";
import { readJsonFile } from "../formats/jsonFile.js";
import { HookedTransformer } from "../models/hookedTransformer.js";
import { dictionaryGeometry } from "../sae/dictionaryGeometry.js";
import { type Evaluation, evaluate } from "../sae/evaluation.js";
import { Sae } from "../sae/sae.js";
import { type CorpusFlags, contextShapeForSae } from "./corpusOptions.js";
import { distinctNames } from "./distinctNames.js";
import { type Progress, startProgress } from "./progress.js";

/** How stored activations are read. */
export interface StoredFlags {
  readonly tensor?: readonly string[];
  readonly targetTensor?: string;
  readonly batchSize: number;
}

export interface ModelFlags extends CorpusFlags {
  readonly model: string;
  readonly corpus: readonly string[];
  readonly hook?: string;
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
  const names = distinctNames(folders);
  const measured: EvaluatedSae[] = [];
  for (const [index, folder] of folders.entries()) {
    using sae = await Sae.load(folder, device);
    using source = await StoredActivations.open(path, device, { ...tensorsOf(flags), shuffle: false, seed: 0 });
    const progress = startProgress(`evaluating ${names[index]}`, source.rows, "rows");
    const reconstruction = await evaluate(sae, source, {
      batchSize: flags.batchSize,
      tokens: source.rows, // stored activations start again after the last row
      signal,
      onProgress: ({ tokens }) => progress.update(tokens),
    }).finally(() => progress.stop());
    measured.push(await described(sae, { folder, name: names[index]!, reconstruction, signal }));
  }
  return measured;
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
  const names = distinctNames(folders);
  const saes: Sae[] = [];
  try {
    using model = await HookedTransformer.load(flags.model, device);
    for (const folder of folders) saes.push(await Sae.load(folder, device));
    const shapes = saes.map((sae) => contextShapeForSae(model, sae, flags));
    const keys = shapes.map((shape) => JSON.stringify(shape));
    const measured = new Map<number, EvaluatedSae>();
    for (const key of new Set(keys)) {
      const group = [...keys.keys()].filter((index) => keys[index] === key);
      const shape = shapes[group[0]!]!;
      const corpus = await Corpus.fromFiles(flags.corpus);
      const progress = new StagedProgress(group.length === 1 ? names[group[0]!]! : `${group.length} SAEs`);
      const evaluations = await evaluateAllInModel({
        saes: group.map((index) => saes[index]!),
        model,
        contexts: limitTokens(contexts(corpus, model.tokenizer, shape), flags.tokens),
        contextsPerBatch: CONTEXTS_PER_BATCH,
        ...(flags.hook === undefined ? {} : { hook: flags.hook }),
        signal,
        onProgress: ({ stage, tokens }) => progress.update(stage, tokens),
      }).finally(() => progress.stop());
      for (const [place, index] of group.entries()) {
        const evaluation = evaluations[place]!;
        const { reconstruction } = evaluation;
        const sae = await described(saes[index]!, {
          folder: folders[index]!,
          name: names[index]!,
          reconstruction,
          signal,
        });
        measured.set(index, {
          ...sae,
          inModel: evaluation,
          modelName: model.config.name,
          contextSize: shape.contextSize,
        });
      }
    }
    return folders.map((_, index) => measured.get(index)!);
  } finally {
    for (const sae of saes) sae.dispose();
  }
}

async function described(
  sae: Sae,
  {
    folder,
    name,
    reconstruction,
    signal,
  }: { folder: string; name: string; reconstruction: Evaluation; signal: AbortSignal },
): Promise<EvaluatedSae> {
  const path = join(folder, "cfg.json");
  return {
    name,
    architecture: sae.config.architecture,
    cfg: (await readJsonFile(path, { missing: `${path} has gone` })) as Json,
    reconstruction,
    geometry: await dictionaryGeometry(sae, { signal }),
  };
}

/** The two passes over the corpus, one bar each. */
class StagedProgress {
  readonly #what: string;
  #stage: string | undefined;
  #progress: Progress | undefined;

  constructor(what: string) {
    this.#what = what;
  }

  update(stage: "means" | "losses", tokens: number): void {
    if (stage !== this.#stage) {
      this.#progress?.stop();
      this.#stage = stage;
      const title = stage === "means" ? "averaging activations" : `evaluating ${this.#what}`;
      this.#progress = startProgress(title, undefined, "tokens");
    }
    this.#progress?.update(tokens);
  }

  stop(): void {
    this.#progress?.stop();
  }
}
