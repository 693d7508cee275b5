import type { Histogram } from "./activationHistogram.js";
import type { LatentDecoderNorms } from "./decoderNorms.js";
import { type FeatureExample, type FeatureStatistics, strongestActivation } from "./features.js";
import { htmlPage } from "./htmlPage.js";
import type { LatentLogitEffects, TokenEffect } from "./logitEffects.js";
import { escapeHtml, visibleText } from "./visibleText.js";

/** What a page of features shows. Every string in it may be hostile: it is escaped where it is written. */
export interface FeatureReport {
  readonly title: string;
  /** Short facts under the title, such as ["model", "tiny-gpt2"]. */
  readonly facts: readonly (readonly [name: string, value: string])[];
  /** The numbers at the top. */
  readonly summary: readonly SummaryNumber[];
  readonly statistics: FeatureStatistics;
  /** The latents shown, in this order. */
  readonly latents: readonly number[];
  /** Tokens that each shown latent raises and lowers, in the order of `latents`; undefined where it cannot be told. */
  readonly logitEffects?: readonly LatentLogitEffects[] | undefined;
  /** Of a crosscoder: how strongly each shown latent writes at each hook, in the order of `latents`. */
  readonly decoderNorms?: readonly LatentDecoderNorms[] | undefined;
  /** The text of a token. */
  readonly tokenText: (id: number) => string;
}

export interface SummaryNumber {
  readonly name: string;
  /** As it is to be read, with its unit. */
  readonly value: string;
  /** What it means, in a few words. */
  readonly meaning: string;
}

/** A token longer than this many code points is cut. */
export const LONGEST_TOKEN = 48;

/** The report as one self-contained HTML page (`htmlPage`). */
export function featureReportHtml(report: FeatureReport): string {
  const { statistics } = report;
  const bothSigns = report.latents.some((latent) => statistics.minActivations[latent]! < 0);
  const cards = report.latents.map((latent, index) => featureCard(report, latent, index));
  const body = `<header>
<h1>${shown(report.title)}</h1>
<p class="facts">${report.facts.map(([name, value]) => `<span>${shown(name)} <b>${shown(value)}</b></span>`).join(" ")}</p>
<dl class="summary">
${report.summary.map(summaryNumber).join("\n")}
</dl>
</header>
<main>
<section class="overview">
<h2>How often latents fire</h2>
<p>${integer(statistics.dSae - statistics.deadLatents)} of ${integer(statistics.dSae)} latents fire at least once in ${integer(statistics.tokens)} tokens; the chart counts them by the share of tokens on which they do.</p>
${densityChart(statistics)}
</section>
<nav aria-label="Latents shown">${report.latents.map((latent) => `<a href="#latent-${latent}">${latent}</a>`).join(" ")}</nav>
${cards.join("\n")}
</main>
<footer>Shading shows a latent's activation relative to its strongest${bothSigns ? ", blue where it is negative" : ""}; hover over a token for the number. ↵ is a line break.</footer>`;
  return htmlPage({ title: report.title, style: FEATURE_STYLE, body });
}

/** How strongly to shade a token: 0 (not at all) to 10 (the latent's strongest activation), negative as the activation. */
export function shade(activation: number, strongest: number): number {
  const magnitude = Math.abs(activation);
  if (!(magnitude > 0) || !(strongest > 0)) return 0;
  return Math.sign(activation) * Math.max(1, Math.min(10, Math.round((10 * magnitude) / strongest)));
}

function summaryNumber({ name, value, meaning }: SummaryNumber): string {
  return `<div><dt>${shown(name)}</dt><dd>${shown(value)}</dd><dd class="meaning">${shown(meaning)}</dd></div>`;
}

function featureCard(report: FeatureReport, latent: number, index: number): string {
  const { statistics } = report;
  const effects = report.logitEffects?.[index];
  const [largest, smallest] = [statistics.maxActivations[latent]!, statistics.minActivations[latent]!];
  const negativeExamples = statistics.negativeExamples(latent);
  return `<article id="latent-${latent}">
<h2><a href="#latent-${latent}">Latent ${latent}</a></h2>
<p class="facts"><span>fires on <b>${percent(statistics.firingCounts[latent]! / statistics.tokens)}</b> of tokens</span> <span>mean activation <b>${decimal(statistics.meanActivations[latent]!)}</b></span> <span>largest <b>${decimal(largest)}</b></span>${smallest < 0 ? ` <span>most negative <b>${decimal(smallest)}</b></span>` : ""}</p>${decoderNormLine(report.decoderNorms?.[index])}
<div class="panels">
<figure>${activationChart(statistics.activationHistogram(latent), latent)}<figcaption>activations where it fires</figcaption></figure>
${effects === undefined ? "" : `<div class="logits">${effectList("raises", effects.raised, report)}${effectList("lowers", effects.lowered, report)}</div>`}
</div>
${exampleList(report, latent, statistics.examples(latent))}${negativeExamples.length === 0 ? "" : `\n<h3>where it is negative</h3>\n${exampleList(report, latent, negativeExamples)}`}
</article>`;
}

function decoderNormLine(latent: LatentDecoderNorms | undefined): string {
  if (latent === undefined) return "";
  const norms = latent.norms.map(({ hook, norm }) => `<span>${shown(hook)} <b>${decimal(norm)}</b></span>`);
  return `\n<p class="facts"><span>decoder norm at</span> ${norms.join(" ")}</p>`;
}

function effectList(verb: string, effects: readonly TokenEffect[], { tokenText }: FeatureReport): string {
  const items = effects.map(
    ({ token, effect }) =>
      `<li title="${tokenTitle(tokenText(token), token, `logit ${signed(effect)}`)}"><bdi>${tokenHtml(tokenText(token))}</bdi></li>`,
  );
  return `<div><h3>${verb}</h3><ul class="${verb}">${items.join("")}</ul></div>`;
}

function exampleList(report: FeatureReport, latent: number, examples: readonly FeatureExample[]): string {
  const strongest = strongestActivation(report.statistics, latent);
  const rows = examples.map((example) => exampleRow(example, strongest, report.tokenText));
  return `<ol class="examples">\n${rows.join("\n")}\n</ol>`;
}

/** What is shown of an example. */
export type ShownExample = Pick<FeatureExample, "activation" | "tokens" | "activations" | "peak">;

/** An item of `<ol class="examples">`, for pages with `FEATURE_STYLE`. */
export function exampleRow(example: ShownExample, strongest: number, tokenText: (id: number) => string): string {
  const tokens = Array.from(example.tokens, (id, index) => {
    const activation = example.activations[index]!;
    const level = shade(activation, strongest);
    const classes = [level < 0 ? `n${-level}` : `a${level}`, ...(index === example.peak ? ["peak"] : [])].join(" ");
    const title = tokenTitle(tokenText(id), id, activation !== 0 ? `activation ${decimal(activation)}` : "not active");
    return `<bdi class="${classes}" title="${title}">${tokenHtml(tokenText(id))}</bdi>`;
  });
  return `<li><span class="activation">${decimal(example.activation)}</span><span class="text">${tokens.join("")}</span></li>`;
}

/** 0.0 to 1.0 of the chart's height, by count; a bin that is not empty stays visible. */
function barHeight(count: number, most: number): number {
  return count === 0 ? 0 : Math.max(0.02, count / most);
}

function densityChart({ densityHistogram: { firstEdge, binWidth, counts } }: FeatureStatistics): string {
  const [width, height, left, bottom] = [720, 110, 44, 34];
  const most = Math.max(1, ...counts);
  const step = (width - left) / Math.max(1, counts.length);
  const bars = counts.map((count, bin) => {
    const barTop = height * (1 - barHeight(count, most));
    const low = 10 ** (firstEdge + bin * binWidth);
    const high = 10 ** (firstEdge + (bin + 1) * binWidth);
    return `<rect x="${fixed(left + bin * step + 1)}" y="${fixed(barTop + 10)}" width="${fixed(Math.max(1, step - 2))}" height="${fixed(height - barTop)}"><title>${integer(count)} latents fire on ${percent(low)} to ${percent(high)} of tokens</title></rect>`;
  });
  const decades = Array.from({ length: -firstEdge + 1 }, (_, index) => firstEdge + index);
  const labels = decades.map((decade) => {
    const x = left + ((decade - firstEdge) / binWidth) * step;
    const anchor = decade === 0 ? "end" : "middle";
    return `<line x1="${fixed(x)}" x2="${fixed(x)}" y1="${height + 10}" y2="${height + 15}"/><text x="${fixed(x)}" y="${height + bottom - 4}" text-anchor="${anchor}">${percent(10 ** decade)}</text>`;
  });
  return `<svg class="density" viewBox="0 0 ${width} ${height + 10 + bottom}" role="img" aria-label="Number of latents by the share of tokens on which they fire">
<text x="${left - 6}" y="20" text-anchor="end">${integer(most)}</text><text x="${left - 6}" y="${height + 10}" text-anchor="end">0</text>
<line x1="${left}" x2="${width}" y1="${height + 10}" y2="${height + 10}"/>
${bars.join("")}${labels.join("")}
</svg>`;
}

function activationChart({ firstEdge, binWidth, counts }: Histogram, latent: number): string {
  const [width, height] = [240, 64];
  const most = Math.max(1, ...counts);
  const step = width / Math.max(1, counts.length);
  const bars = counts.map((count, bin) => {
    const barTop = height * (1 - barHeight(count, most));
    const low = firstEdge + bin * binWidth;
    return `<rect x="${fixed(bin * step + 0.5)}" y="${fixed(barTop)}" width="${fixed(Math.max(0.5, step - 1))}" height="${fixed(height - barTop)}"><title>${integer(count)} tokens between ${decimal(low)} and ${decimal(low + binWidth)}</title></rect>`;
  });
  const end = firstEdge + counts.length * binWidth;
  const zero = (-firstEdge / binWidth) * step;
  const zeroMark =
    firstEdge < 0 && end > 0 ? `<line x1="${fixed(zero)}" x2="${fixed(zero)}" y1="0" y2="${height}"/>` : "";
  const roomForZero = Math.min(zero, width - zero) > 40;
  return `<svg class="activations" viewBox="0 0 ${width} ${height + 18}" role="img" aria-label="Distribution of the activations of latent ${latent}">
${bars.join("")}<line x1="0" x2="${width}" y1="${height}" y2="${height}"/>${zeroMark}${roomForZero ? `<text x="${fixed(zero)}" y="${height + 14}" text-anchor="middle">0</text>` : ""}<text x="0" y="${height + 14}">${edge(firstEdge)}</text><text x="${width}" y="${height + 14}" text-anchor="end">${edge(end)}</text>
</svg>`;
}

function edge(value: number): string {
  return value === 0 ? "0" : decimal(value);
}

function tokenTitle(text: string, id: number, fact: string): string {
  return escapeHtml(`${visibleText(text, LONGEST_TOKEN)} · token ${id} · ${fact}`);
}

function tokenHtml(text: string): string {
  return escapeHtml(visibleText(text, LONGEST_TOKEN));
}

function shown(text: string): string {
  return escapeHtml(visibleText(text));
}

const integerFormat = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });
const percentFormat = new Intl.NumberFormat("en-US", { style: "percent", maximumSignificantDigits: 3 });

function integer(value: number): string {
  return integerFormat.format(value);
}

function percent(share: number): string {
  return percentFormat.format(share);
}

function decimal(value: number): string {
  return value !== 0 && Math.abs(value) < 0.01 ? value.toExponential(1) : value.toFixed(2);
}

function signed(value: number): string {
  return value > 0 ? `+${decimal(value)}` : decimal(value);
}

function fixed(coordinate: number): string {
  return String(Math.round(coordinate * 100) / 100);
}

const SHADES = Array.from({ length: 10 }, (_, index) => {
  const opacity = (0.08 + 0.07 * (index + 1)).toFixed(2);
  return `.a${index + 1}{background:rgb(var(--shade)/${opacity})}.n${index + 1}{background:rgb(var(--negative)/${opacity})}`;
}).join("");

/** The style sheet of pages that show examples. */
export const FEATURE_STYLE: string = `
:root{color-scheme:light dark;--text:#1d2129;--quiet:#667085;--page:#f7f7f5;--card:#fff;--line:#e2e2de;--accent:#c2410c;--bar:#e07a3f;--shade:249 115 22;--negative:59 130 246;--raised:21 128 61;--lowered:190 24 93}
@media (prefers-color-scheme:dark){:root{--text:#e6e6e3;--quiet:#9aa1ac;--page:#16181c;--card:#1f2228;--line:#343840;--accent:#fb923c;--bar:#d9743b;--raised:74 222 128;--lowered:244 114 182}}
*{box-sizing:border-box}
body{margin:0 auto;padding:2rem 1.25rem 3rem;max-width:68rem;background:var(--page);color:var(--text);font:16px/1.5 system-ui,"Segoe UI","Helvetica Neue",Arial,sans-serif}
h1{margin:0;font-size:1.7rem;letter-spacing:-.01em;overflow-wrap:anywhere}
h2{margin:0;font-size:1.1rem}
h3{margin:0 0 .3rem;font-size:.8rem;font-weight:600;color:var(--quiet)}
a{color:inherit;text-decoration:none}
a:hover{color:var(--accent);text-decoration:underline}
.facts{margin:.25rem 0 0;color:var(--quiet);font-size:.9rem;overflow-wrap:anywhere}
.facts span{margin-right:1.1em;display:inline-block}
.facts b{color:var(--text);font-weight:600;font-variant-numeric:tabular-nums}
.summary{display:grid;grid-template-columns:repeat(auto-fit,minmax(10.5rem,1fr));gap:.75rem;margin:1.5rem 0}
.summary div{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:.8rem 1rem}
.summary dt{color:var(--quiet);font-size:.85rem}
.summary dd{margin:0;font-size:1.6rem;font-weight:650;font-variant-numeric:tabular-nums;line-height:1.3}
.summary dd.meaning{font-size:.78rem;font-weight:400;color:var(--quiet);line-height:1.35}
.overview,article{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:1.1rem 1.25rem;margin:0 0 1rem}
.overview p{margin:.2rem 0 .8rem;color:var(--quiet);font-size:.9rem}
nav{margin:0 0 1rem;font-size:.85rem;color:var(--quiet);font-variant-numeric:tabular-nums;line-height:1.9}
nav a{border:1px solid var(--line);border-radius:999px;padding:.1rem .6rem;margin:0 .15rem;background:var(--card)}
svg{display:block;width:100%;height:auto}
svg rect{fill:var(--bar)}
svg line{stroke:var(--quiet);stroke-width:1}
svg text{fill:var(--quiet);font-size:11px;font-variant-numeric:tabular-nums}
.panels{display:flex;flex-wrap:wrap;gap:1rem 2rem;margin:.8rem 0}
figure{margin:0;width:15rem}
figcaption{font-size:.8rem;color:var(--quiet)}
.logits{display:flex;flex-wrap:wrap;gap:.6rem 2rem;flex:1 1 20rem}
.logits>div{flex:1 1 14rem}
.logits ul{list-style:none;margin:0;padding:0;display:flex;flex-wrap:wrap;gap:.3rem}
.logits li{border-radius:5px;padding:0 .4rem;font:13px/1.6 ui-monospace,"SF Mono",Menlo,Consolas,"DejaVu Sans Mono",monospace;white-space:pre-wrap;overflow-wrap:anywhere;max-width:100%}
.raises li{background:rgb(var(--raised)/.16)}
.lowers li{background:rgb(var(--lowered)/.14)}
.examples{list-style:none;margin:0;padding:0;border-top:1px solid var(--line)}
.examples li{display:grid;grid-template-columns:3.5rem 1fr;gap:.75rem;padding:.3rem 0;border-bottom:1px solid var(--line)}
.activation{color:var(--quiet);text-align:right;font-size:.85rem;font-variant-numeric:tabular-nums;line-height:1.75}
.text{line-height:1.75;white-space:pre-wrap;overflow-wrap:anywhere;min-width:0;overflow:hidden}
.text bdi{border-radius:3px;padding:.08em 0}
.peak{outline:1.5px solid var(--accent);outline-offset:-1px}
${SHADES}
footer{color:var(--quiet);font-size:.85rem}
`;
