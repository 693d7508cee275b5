import type { Histogram } from "../analysis/activationHistogram.js";
import { decimal, exampleRow, LONGEST_TOKEN, loneToken, tokenHtml, tokenTitle } from "../analysis/featureReport.js";
import type { FeatureExample } from "../analysis/features.js";
import type { TokenEffect } from "../analysis/logitEffects.js";
import { escapeHtml, visibleHtml } from "../analysis/visibleText.js";
import { histogramChart } from "./charts.js";
import type { ActivationQuantile, DocumentActivation, PositionStatistics, TokenCount } from "./latentRecord.js";
import { type ReportedLatent, strongestOf } from "./report.js";
import { integer, percent, signed } from "./reportNumbers.js";

/** What a card needs to know besides its latent. */
export interface CardContext {
  readonly tokenText: (id: number) => string;
  /** Where in the report a latent is shown; undefined for one that is not. */
  readonly linkTo: (latent: number) => string | undefined;
}

/** A latent as an `<article>`, for pages with `REPORT_STYLE`: whatever of it is known. */
export function latentCard(latent: ReportedLatent, context: CardContext): string {
  const { examples, negativeExamples, quantiles = [], logits, tokens = [], documents = [] } = latent;
  const strongest = strongestOf(latent);
  const list = (shown: readonly FeatureExample[]): string =>
    `<ol class="examples">\n${shown.map((example) => exampleRow(example, strongest, context.tokenText)).join("\n")}\n</ol>`;
  const panels = [
    charts(latent),
    ...(logits === undefined
      ? []
      : [effectTable("raises", logits.raised, context), effectTable("lowers", logits.lowered, context)]),
    ...(tokens.length === 0 ? [] : [tokenTable(tokens, context)]),
  ];
  const parts = [
    `<h2><a href="#latent-${latent.latent}">Latent ${latent.latent}</a></h2>`,
    `<p class="facts">${facts(latent).join(" ")}</p>`,
    normLine(latent),
    `<div class="panels">\n${panels.join("\n")}\n</div>`,
    examples.length === 0 ? "" : list(examples),
    negativeExamples.length === 0 ? "" : `<h3>where it is negative</h3>\n${list(negativeExamples)}`,
    ...quantiles.filter((quantile) => quantile.examples.length > 0).map((quantile) => quantileDetails(quantile, list)),
    documents.length === 0 ? "" : documentDetails(documents, context),
    relatedLine("similar directions", similar(latent), context),
    relatedLine("active on the same tokens", together(latent), context),
  ];
  return `<article id="latent-${latent.latent}">\n${parts.filter((part) => part !== "").join("\n")}\n</article>`;
}

function facts({
  firingCount,
  density,
  meanActivation,
  maxActivation,
  minActivation,
  positions,
}: ReportedLatent): string[] {
  if (firingCount === 0) return ["<span>never fires on this text</span>"];
  return [
    `<span>fires on <b>${percent(density)}</b> of tokens, <b>${integer(firingCount)}</b> in all</span>`,
    `<span>mean activation <b>${decimal(meanActivation)}</b></span>`,
    `<span>largest <b>${decimal(maxActivation)}</b></span>`,
    ...(minActivation < 0 ? [`<span>most negative <b>${decimal(minActivation)}</b></span>`] : []),
    ...(positions === undefined ? [] : positionFacts(positions, firingCount)),
  ];
}

function positionFacts({ first, last, atStart, atEnd }: PositionStatistics, firingCount: number): string[] {
  return [
    `<span>at positions <b>${integer(first)}</b> to <b>${integer(last)}</b></span>`,
    `<span>first in its context <b>${percent(atStart / firingCount)}</b>, last <b>${percent(atEnd / firingCount)}</b></span>`,
  ];
}

function normLine({ decoderNorms = [] }: ReportedLatent): string {
  if (decoderNorms.length === 0) return "";
  const norms = decoderNorms.map(({ hook, norm }) => `<span>${visibleHtml(hook)} <b>${decimal(norm)}</b></span>`);
  return `<p class="facts"><span>decoder norm at</span> ${norms.join(" ")}</p>`;
}

function charts({ latent, histogram, logits }: ReportedLatent): string {
  const figure = (shown: Histogram, description: string, caption: string): string =>
    `<figure>${histogramChart(shown, { description, counted: "tokens" })}<figcaption>${caption}</figcaption></figure>`;
  const activations = figure(
    histogram,
    `Distribution of the activations of latent ${latent}`,
    "activations where it fires",
  );
  if (logits === undefined) return activations;
  const description = `Effects of latent ${latent} on the logits of all tokens`;
  return `<div class="charts">${activations}${figure(logits.histogram, description, "effects on the logits of all tokens")}</div>`;
}

function effectTable(verb: "raises" | "lowers", effects: readonly TokenEffect[], { tokenText }: CardContext): string {
  const rows = effects.map(
    ({ token, effect }) =>
      `<tr><td title="${tokenTitle(tokenText(token), token, `logit ${signed(effect)}`)}"><bdi>${escapeHtml(loneToken(tokenText(token)))}</bdi></td><td>${signed(effect)}</td></tr>`,
  );
  return `<table class="tokens ${verb}"><caption>${verb}</caption>${rows.join("")}</table>`;
}

function tokenTable(tokens: readonly TokenCount[], { tokenText }: CardContext): string {
  const rows = tokens.map(
    ({ token, count, meanActivation }) =>
      `<tr><td title="${tokenTitle(tokenText(token), token, `mean activation ${decimal(meanActivation)}`)}"><bdi>${escapeHtml(loneToken(tokenText(token)))}</bdi></td><td>${integer(count)}×</td></tr>`,
  );
  return `<table class="tokens"><caption>fires on</caption>${rows.join("")}</table>`;
}

function quantileDetails(
  { low, high, share, examples }: ActivationQuantile,
  list: (examples: readonly FeatureExample[]) => string,
): string {
  return `<details><summary>activations ${decimal(low)} to ${decimal(high)} <span>${percent(share)} of its firings</span></summary>\n${list(examples)}\n</details>`;
}

function documentDetails(documents: readonly DocumentActivation[], { tokenText }: CardContext): string {
  const rows = documents.map(({ document, meanActivation, tokens }) => {
    const text = Array.from(tokens, (id) => `<bdi>${tokenHtml(tokenText(id))}</bdi>`).join("");
    return `<li><span class="activation" title="mean activation ${decimal(meanActivation)}">${decimal(meanActivation)}</span><span class="text"><span class="number">document ${document}</span>${text}</span></li>`;
  });
  return `<details><summary>documents <span>by mean activation</span></summary>\n<ol class="examples">\n${rows.join("\n")}\n</ol>\n</details>`;
}

interface Related {
  readonly latent: number;
  readonly measure: string;
}

function similar({ neighbours = [] }: ReportedLatent): Related[] {
  return neighbours.map(({ latent, cosine }) => ({ latent, measure: `cosine ${cosine.toFixed(2)}` }));
}

function together({ coActive = [] }: ReportedLatent): Related[] {
  return coActive.map(({ latent, overlap }) => ({ latent, measure: percent(overlap) }));
}

function relatedLine(heading: string, related: readonly Related[], { linkTo }: CardContext): string {
  if (related.length === 0) return "";
  const items = related.map(({ latent, measure }) => `<li>${latentLink(latent, linkTo)} <span>${measure}</span></li>`);
  return `<h3>${heading}</h3>\n<ul class="related">${items.join("")}</ul>`;
}

/** A latent's number, a link where the report shows the latent. */
export function latentLink(latent: number, linkTo: CardContext["linkTo"]): string {
  const target = linkTo(latent);
  return target === undefined ? String(latent) : `<a href="${target}">${latent}</a>`;
}

/** A text's beginning is cut to this many code points. */
export const LONGEST_BEGINNING: number = 2 * LONGEST_TOKEN;

/** How a text begins, as one line. */
export function beginningOf(tokens: Iterable<number>, tokenText: (id: number) => string): string {
  let text = "";
  for (const token of tokens) {
    text += tokenText(token);
    if (text.length > LONGEST_BEGINNING) break;
  }
  return visibleHtml(text.trim(), LONGEST_BEGINNING);
}
