import { exampleRow, FEATURE_STYLE } from "../analysis/featureReport.js";
import { htmlPage } from "../analysis/htmlPage.js";
import { visibleHtml } from "../analysis/visibleText.js";
import type { Interpretation } from "./interpret.js";
import {
  activityText,
  type InterpretationReport,
  latentCount,
  leftOutText,
  meanScores,
  SCORE_MEANINGS,
  scoreTexts,
} from "./interpretationReport.js";
import { shown } from "./interpretationText.js";

/** The interpretations as one self-contained HTML page (`htmlPage`). */
export function interpretationHtml(report: InterpretationReport): string {
  const { interpretations, leftOut } = report;
  const body = `<header>
<h1>${visibleHtml(report.title)}</h1>
<p class="facts">${report.facts.map(([name, value]) => `<span>${visibleHtml(name)} <b>${visibleHtml(value)}</b></span>`).join(" ")}</p>
<dl class="summary">
${meanScores(report)
  .map(
    ({ name, mean, latents }) =>
      `<div><dt>${name}, mean of ${latentCount(latents)}</dt><dd>${mean.toFixed(2)}</dd><dd class="meaning">${SCORE_MEANINGS[name]}</dd></div>`,
  )
  .join("\n")}
</dl>
</header>
<main>
<nav aria-label="Latents shown">${interpretations.map(({ latent }) => `<a href="#latent-${latent}">${latent}</a>`).join(" ")}</nav>
${interpretations.map((interpretation) => card(interpretation, report)).join("\n")}
${leftOut.length === 0 ? "" : `<p class="facts">${visibleHtml(leftOutText(report))}</p>`}
</main>
<footer>${visibleHtml(activityText(report.activity))}. Explanations are a language model's, made from some documents and tested on others. Shading shows a latent's activation relative to its strongest; hover over a token for the number. ↵ is a line break.</footer>`;
  return htmlPage({ title: report.title, style: `${FEATURE_STYLE}${STYLE}`, body });
}

function card(interpretation: Interpretation, { scorers, tokenText }: InterpretationReport): string {
  const { latent, explanation, unexplained, activeWindows, examples } = interpretation;
  const name = explanation === undefined ? "not explained" : explanation.name;
  const sentence = explanation === undefined ? unexplained! : explanation.explanation;
  const confidence =
    explanation === undefined ? "" : `<span>confidence <b>${explanation.confidence.toFixed(2)}</b></span> `;
  const scores = scoreTexts(interpretation, scorers).map(
    (score) => `<tr><th>${score.name}</th><td>${score.value}</td><td>${visibleHtml(score.detail)}</td></tr>`,
  );
  return `<article id="latent-${latent}">
<h2><a href="#latent-${latent}">Latent ${latent}</a> · <bdi>${visibleHtml(name)}</bdi></h2>
<p class="explanation"><bdi>${visibleHtml(sentence)}</bdi></p>
<p class="facts">${confidence}<span>active windows <b>${activeWindows.train}</b> explained from, <b>${activeWindows.test}</b> tested on</span></p>
${scores.length === 0 ? "" : `<table class="scores">${scores.join("")}</table>`}
<ol class="examples">
${examples.map((example) => exampleRow(shown(example), examples[0]!.peak, tokenText)).join("\n")}
</ol>
</article>`;
}

const STYLE = `
.explanation{margin:.3rem 0 .5rem;overflow-wrap:anywhere}
.scores{border-collapse:collapse;margin:.5rem 0 .8rem;font-size:.9rem;font-variant-numeric:tabular-nums}
.scores th{font-weight:600;text-align:left;padding:.1rem 1rem .1rem 0}
.scores td{padding:.1rem 1rem .1rem 0}
.scores td:last-child{color:var(--quiet)}
`;
