import { FEATURE_STYLE } from "../analysis/featureReport.js";
import { htmlPage } from "../analysis/htmlPage.js";
import { visibleHtml } from "../analysis/visibleText.js";
import { type AuditFigure, type AuditReport, type AuditSection, figureText } from "./auditReport.js";

/** An audit as one self-contained HTML page (`htmlPage`). */
export function auditHtml({ title, facts, sections }: AuditReport): string {
  const body = `<header>
<h1>${visibleHtml(title)}</h1>
<p class="facts">${facts.map(([name, value]) => `<span>${visibleHtml(name)} <b>${visibleHtml(value)}</b></span>`).join(" ")}</p>
</header>
<main>
<nav aria-label="Sections">${sections.map((section) => `<a href="#${section.topic}">${visibleHtml(section.title)}</a>`).join(" ")}</nav>
${sections.map(card).join("\n")}
</main>
<footer>Filled bars are this SAE, ticks the baseline.</footer>`;
  return htmlPage({ title, style: `${FEATURE_STYLE}${STYLE}`, body });
}

function card({ topic, title, definition, figures, cases, notMeasured }: AuditSection): string {
  const rows = figures.map(
    (figure) => `<tr><th scope="row">${visibleHtml(figure.name)}</th>
<td class="number">${figureText(figure.value, figure.unit)}</td>
<td class="number quiet">${figureText(figure.baseline.value, figure.unit)}</td>
<td class="quiet">${visibleHtml(figure.baseline.name)}</td>
<td>${bar(figure)}</td>
<td class="quiet">${visibleHtml(`${figure.sample.count.toLocaleString("en")} ${figure.sample.of}`)}</td></tr>`,
  );
  return `<article id="${topic}">
<h2><a href="#${topic}">${visibleHtml(title)}</a></h2>
${notMeasured === undefined ? "" : `<p class="none">Not measured: ${visibleHtml(notMeasured)}.</p>`}
${
  rows.length === 0
    ? ""
    : `<table class="figures">
<thead><tr><td></td><th scope="col">here</th><th scope="col" colspan="2">baseline</th><td></td><th scope="col">measured on</th></tr></thead>
<tbody>${rows.join("\n")}</tbody>
</table>`
}
${cases.length === 0 ? "" : `<ul class="cases">${cases.map((one) => `<li><bdi>${visibleHtml(one)}</bdi></li>`).join("")}</ul>`}
<p class="definition">${visibleHtml(definition)}</p>
</article>`;
}

/** A share as a filled bar with a tick at the baseline; of numbers on other scales none. */
function bar({ value, unit, baseline, name }: AuditFigure): string {
  if (unit !== "share" || value === null) return "";
  const [width, height] = [120, 14];
  const tick =
    baseline.value === null
      ? ""
      : `<line x1="${(baseline.value * width).toFixed(1)}" x2="${(baseline.value * width).toFixed(1)}" y1="0" y2="${height}"/>`;
  return `<svg class="bar" viewBox="-1 0 ${width + 2} ${height}" role="img" aria-label="${visibleHtml(name)}: ${figureText(value, unit)}"><rect class="track" width="${width}" y="3" height="8"/><rect width="${(Math.min(1, value) * width).toFixed(1)}" y="3" height="8"/>${tick}</svg>`;
}

const STYLE = `
nav a{display:inline-block}
article{overflow-x:auto}
.figures{border-collapse:collapse;margin:.7rem 0;font-size:.9rem;font-variant-numeric:tabular-nums;width:100%}
.figures th{font-weight:400;text-align:left}
.figures thead th{font-size:.78rem;color:var(--quiet);font-weight:600}
.figures th,.figures td{padding:.22rem .9rem .22rem 0;vertical-align:middle}
.figures tbody tr{border-top:1px solid var(--line)}
.figures .number{font-weight:650;white-space:nowrap}
.figures .quiet{color:var(--quiet);font-weight:400}
.figures td.quiet:not(.number){min-width:7.5rem}
.figures td:last-child{white-space:nowrap}
.bar{width:120px;height:14px}
.bar .track{fill:var(--line)}
.bar line{stroke:var(--text);stroke-width:2}
.cases{margin:.4rem 0 .6rem;padding-left:1.1rem;font-size:.88rem;overflow-wrap:anywhere}
.definition{margin:.6rem 0 0;color:var(--quiet);font-size:.85rem;max-width:60rem}
.none{margin:.5rem 0 0;color:var(--accent);font-size:.92rem}
`;
