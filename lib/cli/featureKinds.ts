import { readFile } from "node:fs/promises";
import { textStyle } from "../analysis/featureText.js";
import { quotedText, visibleText } from "../analysis/visibleText.js";
import type { Device } from "../engine/device.js";
import { MonosemError } from "../errors.js";
import { FeatureStore } from "../features/featureStore.js";
import { behaviourDefinition, behaviourFigures, contextPatterns, parsePattern } from "../features/kinds/behaviour.js";
import { type ConceptFigures, conceptDefinition, conceptFigures } from "../features/kinds/concept.js";
import { type MeaningFigures, meaningDefinition, meaningFigures } from "../features/kinds/meaning.js";
import { redTeamScan, safetyDefinition } from "../features/kinds/safety.js";
import { syntaxDefinition, syntaxFigures } from "../features/kinds/syntax.js";
import type { LatentRecord } from "../features/latentRecord.js";
import { checkStore } from "../features/storeSae.js";
import { binaryLabels, readLabelledTexts } from "../probing/labelledTexts.js";
import { checkLatents, type FeaturesFlags, loadSaeInModel, required, type SaeInModel } from "./featureFlags.js";
import { shownLatents } from "./storedFeatures.js";
import { printsColour } from "./terminal.js";

/** Latents of a scan that are printed. */
const SCANNED = 10;
/** Latents of the store's ranking whose samples are compared with, besides those shown. */
const COMPARED = 64;
/** Patterns printed per latent. */
const PATTERNS = 3;

/** `features --kinds`: for latents of a store, what speaks for each kind of feature. */
export async function featureKinds(flags: FeaturesFlags, device: Device, signal: AbortSignal): Promise<void> {
  const withModel = flags.labels !== undefined || flags.redTeam !== undefined || flags.sae !== undefined;
  await using store = await FeatureStore.open(required(flags, "from", ": --kinds reads a store"));
  const { dSae } = store.summary.identity;
  checkLatents(flags, dSae);
  const patterns = [...contextPatterns, ...(flags.pattern ?? []).map(parsePattern)];
  using loaded = withModel ? await loadSaeInModel(flags, device, signal) : undefined;
  if (loaded !== undefined) await checkStore(store, loaded.sae, loaded.chosen);
  const records: LatentRecord[] = [];
  for (const latent of shownLatents(store, flags)) records.push(await store.latent(latent));
  const compared = [...records];
  for (const latent of store.summary.ranking.subarray(0, COMPARED)) {
    if (!records.some((record) => record.latent === latent)) compared.push(await store.latent(latent));
  }
  const concept = await conceptOf(flags, loaded, records, signal);
  const definitions = [
    syntaxDefinition,
    ...(loaded === undefined ? [] : [meaningDefinition]),
    ...(concept === undefined ? [] : [`${conceptDefinition} (here ${quotedText(concept.label)})`]),
    behaviourDefinition,
    ...(flags.redTeam === undefined ? [] : [safetyDefinition]),
  ];
  process.stdout.write(`${definitions.join("\n")}\n`);
  const special = new Set(store.summary.specialTokens);
  const plainText = (token: number): string => (special.has(token) ? "" : store.tokenText(token));
  for (const [index, record] of records.entries()) {
    const meaning = loaded === undefined ? undefined : await meaningFigures({ ...loaded, ...loaded.chosen, record });
    // From all over their ranges: what text is like where a latent fires.
    const others = compared
      .filter((other) => other !== record)
      .flatMap(({ quantiles }) => quantiles.flatMap(({ examples }) => examples));
    const behaviour = behaviourFigures(record, others, plainText, patterns);
    const lines = [
      headline(record, store),
      syntaxLine(record, store),
      ...(loaded === undefined ? [] : [meaningLine(meaning)]),
      ...(concept === undefined ? [] : [`  concept    AUROC ${concept.figures[index]!.auroc.toFixed(3)}`]),
      `  behaviour  ${
        behaviour
          .filter(({ share, elsewhere }) => share > elsewhere)
          .slice(0, PATTERNS)
          .map(
            ({ name, share, elsewhere }) => `${visibleText(name)} ${percent(share)} (elsewhere ${percent(elsewhere)})`,
          )
          .join(", ") || "no pattern more often than elsewhere"
      }`,
    ];
    process.stdout.write(`\n${lines.join("\n")}\n`);
  }
  if (flags.redTeam !== undefined) process.stdout.write(await scanText(flags.redTeam, loaded!, store, signal));
}

async function conceptOf(
  flags: FeaturesFlags,
  loaded: SaeInModel | undefined,
  records: readonly LatentRecord[],
  signal: AbortSignal,
): Promise<{ readonly label: string; readonly figures: readonly ConceptFigures[] } | undefined> {
  if (flags.labels === undefined) return undefined;
  const labelled = await readLabelledTexts(flags.labels);
  const { labels, positive } = binaryLabels(labelled);
  const figures = await conceptFigures({
    ...loaded!,
    ...loaded!.chosen,
    texts: labelled.map(({ text }) => text),
    labels,
    latents: records.map(({ latent }) => latent),
    signal,
  });
  return { label: positive, figures };
}

function headline({ latent, density, tokens }: LatentRecord, { tokenText }: FeatureStore): string {
  const most = tokens.slice(0, 5).map(({ token }) => quotedText(tokenText(token), 24));
  const style = textStyle(printsColour());
  return `${style.bold(`latent ${latent}`)}  fires on ${percent(density)} of tokens${most.length === 0 ? "" : `, most on ${most.join(" ")}`}`;
}

function syntaxLine(record: LatentRecord, { tokenText }: FeatureStore): string {
  const figures = syntaxFigures(record, tokenText);
  if (figures === undefined) return "  syntax     never fires";
  const { punctuation, lineBreaks, frequentTokens, atStart, atEnd } = figures;
  return `  syntax     punctuation ${percent(punctuation)}, line breaks ${percent(lineBreaks)} (of ${percent(frequentTokens)} of its firings); at the start ${percent(atStart)}, at the end ${percent(atEnd)}`;
}

function meaningLine(figures: MeaningFigures | undefined): string {
  if (figures === undefined) return "  meaning    no example in which it is active alone";
  const { likelyWord, randomWord, otherContext, examples } = figures;
  return `  meaning    likely words leave ${percent(likelyWord)}, random words ${percent(randomWord)}, a random context ${percent(otherContext)} (${examples} examples)`;
}

async function scanText(path: string, loaded: SaeInModel, store: FeatureStore, signal: AbortSignal): Promise<string> {
  const content = await readFile(path, "utf8").catch((cause: NodeJS.ErrnoException) => {
    throw new MonosemError(cause.code === "ENOENT" ? "ERR_NOT_FOUND" : "ERR_IO", `cannot read ${path}: ${cause.code}`, {
      cause,
    });
  });
  const texts = content.split("\n").filter((line) => line.trim() !== "");
  const found = await redTeamScan({ ...loaded, ...loaded.chosen, store, texts, signal });
  const lines = found
    .slice(0, SCANNED)
    .map(
      ({ latent, share, expected, strength }) =>
        `  latent ${String(latent).padEnd(6)} fires on ${percent(share)} of them (expected ${percent(expected)}), up to ${percent(strength)} of its largest activation`,
    );
  return `\nsafety: ${texts.length} texts of ${visibleText(path)}\n${lines.join("\n")}\n`;
}

function percent(share: number): string {
  return Number.isFinite(share) ? `${Number((100 * share).toPrecision(2))}%` : "infinitely more";
}
