import { Corpus } from "../activations/corpus.js";
import { FEWEST_EXAMPLES } from "../analysis/featureRanking.js";
import { featureSummary } from "../analysis/featureSummary.js";
import { hooksForSae } from "../analysis/saeHook.js";
import { visibleText } from "../analysis/visibleText.js";
import type { Device } from "../engine/device.js";
import { isAborted, MonosemError } from "../errors.js";
import { buildFeatureStore } from "../features/buildFeatureStore.js";
import { FeatureStore } from "../features/featureStore.js";
import type { FeatureReport, RecordedPrompt } from "../features/report.js";
import { withDecoderNorms } from "../features/statisticsLatents.js";
import { warnOfBadReconstruction } from "./badReconstruction.js";
import { contextShapeForSae } from "./corpusOptions.js";
import { planExports, type WriteExports } from "./featureExports.js";
import { checkLatents, type FeaturesFlags, loadSaeInModel, required, type SaeInModel } from "./featureFlags.js";
import { startProgress } from "./progress.js";
import { presentReport, recordPrompts } from "./reportOutput.js";

/** `features --store`: writes the store, then prints the page from it. */
export async function storeFeatures(flags: FeaturesFlags, device: Device, signal: AbortSignal): Promise<void> {
  const folder = required(flags, "store");
  const corpus = await Corpus.fromFiles(required(flags, "corpus"));
  using loaded = await loadSaeInModel(flags, device, signal);
  const { sae, model, chosen } = loaded;
  checkLatents(flags, sae.config.dSae);
  const { writeExports, prompts } = await planOutputs(flags, loaded);
  const reading = startProgress("collecting", { atMost: flags.tokens }, "tokens");
  let writing: ReturnType<typeof startProgress> | undefined;
  let tokensRead = 0;
  const store = await buildFeatureStore(folder, {
    sae,
    model,
    ...chosen,
    corpus,
    ...contextShapeForSae(model, sae, flags),
    tokens: flags.tokens,
    ...(flags.saveEvery === undefined ? {} : { saveEverySeconds: flags.saveEvery }),
    resume: flags.resume ?? false,
    signal,
    onProgress: ({ stage, done, of }) => {
      if (stage === "reading") {
        tokensRead = done;
        return reading.update(done);
      }
      if (writing === undefined) reading.stop();
      writing ??= startProgress("writing", of, "latents");
      writing.update(done);
    },
  })
    .catch((error: unknown) => {
      if (!isAborted(error)) throw error;
      const read = tokensRead === 0 ? "" : ` after ${tokensRead} tokens`;
      const message = `gathering features was interrupted${read}; the same command with --resume goes on from there`;
      throw new MonosemError("ERR_ABORTED", message, { cause: error });
    })
    .finally(() => {
      reading.stop();
      writing?.stop();
    });
  await using _store = store;
  await printStore(store, flags, signal, { ...loaded, writeExports, prompts });
  process.stdout.write(`\nwrote the features of all latents to ${visibleText(folder)}\n`);
}

/** `features --from`: the page from a store, without model and SAE but for prompts and exports. */
export async function featuresFromStore(flags: FeaturesFlags, device: Device, signal: AbortSignal): Promise<void> {
  await using store = await FeatureStore.open(required(flags, "from"));
  checkLatents(flags, store.summary.identity.dSae);
  const { htmlPrompts, saedashboard, neuronpedia } = flags;
  if ([htmlPrompts, saedashboard, neuronpedia].every((flag) => flag === undefined)) {
    return await printStore(store, flags, signal);
  }
  using loaded = await loadSaeInModel(flags, device, signal);
  const outputs = await planOutputs(flags, loaded);
  await printStore(store, flags, signal, { ...loaded, ...outputs });
}

interface Outputs {
  readonly writeExports: WriteExports;
  readonly prompts: readonly RecordedPrompt[];
}

/** What only model and SAE can tell, before the work starts. */
async function planOutputs(flags: FeaturesFlags, loaded: SaeInModel): Promise<Outputs> {
  const { sae, model, chosen } = loaded;
  const { input } = hooksForSae(model, sae, flags.hook, chosen);
  return {
    writeExports: await planExports(flags, { sae, model, input }),
    prompts: await recordPrompts(flags, loaded),
  };
}

async function printStore(
  store: FeatureStore,
  flags: FeaturesFlags,
  signal: AbortSignal,
  inModel?: Omit<SaeInModel, keyof Disposable> & Outputs,
): Promise<void> {
  const { summary, tokenText } = store;
  const { identity, explainedVariance, contexts } = summary;
  if (explainedVariance !== null) warnOfBadReconstruction(`the SAE of ${flags.store ?? flags.from}`, explainedVariance);
  const latents = shownLatents(store, flags);
  const statistics = store.statistics([]);
  const report: FeatureReport = {
    title: `Features of ${flags.sae ?? flags.from}`,
    facts: [
      ["model", identity.model],
      ["hook point", identity.hooks.join(", ")],
      ["architecture", identity.architecture],
      ["latents", String(identity.dSae)],
    ],
    summary: featureSummary({ statistics, metrics: { explainedVariance: explainedVariance ?? Number.NaN } }),
    densities: statistics,
    latents,
    latent:
      inModel === undefined
        ? (latent) => store.latent(latent)
        : withDecoderNorms({ ...inModel, ...inModel.chosen }, (latent) => store.latent(latent)),
    prompts: inModel?.prompts ?? [],
    tokenText,
  };
  const text = {
    contexts,
    contextSize: identity.contextSize,
    dataset: flags.corpus?.join(" ") ?? `${summary.tokens} tokens`,
  };
  await presentReport(report, flags, {
    firing: [...summary.firingCounts.keys()].filter((latent) => summary.firingCounts[latent] !== 0),
    writeExports: async (written) => (await inModel?.writeExports(written, text, signal)) ?? [],
    signal,
  });
  if (latents.length === 0) {
    process.stdout.write(
      `\nno latent fires in ${FEWEST_EXAMPLES} contexts of these ${summary.tokens} tokens: name latents with --latents\n`,
    );
  }
}

/** Those asked for, or the first of the store's ranking. */
export function shownLatents({ summary }: FeatureStore, { latents, top }: FeaturesFlags): readonly number[] {
  return latents ?? Array.from(summary.ranking.subarray(0, top));
}
