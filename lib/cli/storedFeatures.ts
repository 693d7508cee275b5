import { Corpus } from "../activations/corpus.js";
import { decoderNormsPerHook } from "../analysis/decoderNorms.js";
import { FEWEST_EXAMPLES } from "../analysis/featureRanking.js";
import { type FeatureReport, featureReportHtml } from "../analysis/featureReport.js";
import { featureSummary } from "../analysis/featureSummary.js";
import { featureReportText } from "../analysis/featureText.js";
import { hooksForSae } from "../analysis/saeHook.js";
import { visibleText } from "../analysis/visibleText.js";
import type { Device } from "../engine/device.js";
import { MonosemError } from "../errors.js";
import { buildFeatureStore } from "../features/buildFeatureStore.js";
import { FeatureStore } from "../features/featureStore.js";
import { writeFileAtomically } from "../formats/atomicFile.js";
import { contextShapeForSae } from "./corpusOptions.js";
import { checkLatents, type FeaturesFlags, loadSaeInModel, required } from "./featureFlags.js";
import { startProgress } from "./progress.js";
import { printedColumns, printsColour } from "./terminal.js";

/** `features --store`: writes the store, then prints the page from it. */
export async function storeFeatures(flags: FeaturesFlags, device: Device, signal: AbortSignal): Promise<void> {
  const folder = required(flags, "store");
  const corpus = await Corpus.fromFiles(required(flags, "corpus"));
  using loaded = await loadSaeInModel(flags, device, signal);
  const { sae, model, chosen } = loaded;
  checkLatents(flags, sae.config.dSae);
  const reading = startProgress("collecting", flags.tokens, "tokens");
  let writing: ReturnType<typeof startProgress> | undefined;
  let tokensRead = 0;
  const store = await buildFeatureStore(folder, {
    sae,
    model,
    ...chosen,
    corpus,
    ...contextShapeForSae(model, sae, flags),
    tokens: flags.tokens,
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
      if (!(error instanceof MonosemError) || error.code !== "ERR_ABORTED") throw error;
      const read = tokensRead === 0 ? "" : ` after ${tokensRead} tokens`;
      const message = `gathering features was interrupted${read}; the same command with --resume goes on from there`;
      throw new MonosemError("ERR_ABORTED", message, { cause: error });
    })
    .finally(() => {
      reading.stop();
      writing?.stop();
    });
  await using _store = store;
  const { output } = hooksForSae(model, sae, flags.hook, chosen);
  const norms = async (latents: readonly number[]): Promise<FeatureReport["decoderNorms"]> =>
    output.length === 1
      ? undefined
      : await decoderNormsPerHook(
          sae,
          output.map((name) => ({ name, width: model.hookWidth(name) })),
          latents,
        );
  await printStore(store, flags, norms);
  process.stdout.write(`\nwrote the features of all latents to ${visibleText(folder)}\n`);
}

/** `features --from`: the page from a store, without model and SAE. */
export async function featuresFromStore(flags: FeaturesFlags): Promise<void> {
  await using store = await FeatureStore.open(required(flags, "from"));
  checkLatents(flags, store.summary.identity.dSae);
  await printStore(store, flags);
}

async function printStore(
  store: FeatureStore,
  flags: FeaturesFlags,
  decoderNorms: (latents: readonly number[]) => Promise<FeatureReport["decoderNorms"]> = async () => undefined,
): Promise<void> {
  const { summary, tokenText } = store;
  const { identity, explainedVariance } = summary;
  const latents = shownLatents(store, flags);
  const records = await Promise.all(latents.map((latent) => store.latent(latent)));
  const statistics = store.statistics(records);
  const report: FeatureReport = {
    title: `Features of ${flags.sae ?? flags.from}`,
    facts: [
      ["model", identity.model],
      ["hook point", identity.hooks.join(", ")],
      ["architecture", identity.architecture],
      ["latents", String(identity.dSae)],
    ],
    summary: featureSummary({ statistics, metrics: { explainedVariance: explainedVariance ?? Number.NaN } }),
    statistics,
    latents,
    logitEffects: summary.hasLogits
      ? records.map(({ latent, logits }) => ({ latent, raised: logits!.raised, lowered: logits!.lowered }))
      : undefined,
    decoderNorms: await decoderNorms(latents),
    tokenText,
  };
  if (flags.html !== undefined) await writeFileAtomically(flags.html, featureReportHtml(report));
  process.stdout.write(
    featureReportText(report, { colour: printsColour(), width: printedColumns(), examples: flags.examples }),
  );
  if (latents.length === 0) {
    process.stdout.write(
      `\nno latent fires in ${FEWEST_EXAMPLES} contexts of these ${summary.tokens} tokens: name latents with --latents\n`,
    );
  }
  if (flags.html !== undefined) process.stdout.write(`\nwrote ${visibleText(flags.html)}\n`);
}

/** Those asked for, or the first of the store's ranking. */
export function shownLatents({ summary }: FeatureStore, { latents, top }: FeaturesFlags): readonly number[] {
  return latents ?? Array.from(summary.ranking.subarray(0, top));
}
