import { htmlPage } from "../analysis/htmlPage.js";
import { PAGE_STYLE } from "../analysis/pageStyle.js";
import { visibleHtml } from "../analysis/visibleText.js";
import { superpositionLegend } from "./superpositionModelPicture.js";
import { phaseDiagramPicture } from "./superpositionPhasePicture.js";
import type { PhaseDiagram } from "./superpositionPhases.js";
import { type Picture, pictureElement } from "./superpositionPicture.js";
import {
  modelPictures,
  type SuperpositionReport,
  summaryColumns,
  summaryRows,
  sweepPictures,
} from "./superpositionReport.js";

/** Trained models of superposition as one self-contained HTML page (`htmlPage`). */
export function superpositionPageHtml(report: SuperpositionReport): string {
  const shape = report.entries[0]?.model;
  const title =
    shape === undefined
      ? "Toy models of superposition"
      : `Toy models of superposition: ${shape.features} features in ${shape.dimensions} dimensions`;
  const rows = summaryRows(report).map(
    (row) => `<tr>${row.map((cell) => `<td>${visibleHtml(cell)}</td>`).join("")}</tr>`,
  );
  const body = `${header(title, report.facts)}
<main>
<section>
<h2>Summary</h2>
<p>|W|² is about the number of features represented, D* = m / |W|² the dimensions that each gets; the last column counts features by the dimensionality D they have, near the fractions of the known arrangements.</p>
<div class="wide"><table>
<thead><tr>${summaryColumns.map((column) => `<th scope="col">${visibleHtml(column)}</th>`).join("")}</tr></thead>
<tbody>
${rows.join("\n")}
</tbody>
</table></div>
</section>
<section>
<h2>The models</h2>
<p>A bar is as long as its feature's norm; its colour, and that of the arrow, says how strongly other features activate the same direction.</p>
${figure(superpositionLegend())}
<div class="models">
${modelPictures(report).map(figure).join("\n")}
</div>
</section>
${sweepSection(sweepPictures(report))}
</main>
${FOOTER}`;
  return htmlPage({ title, style: STYLE, body });
}

/** A phase diagram as one self-contained HTML page (`htmlPage`). */
export function phaseDiagramPageHtml(diagram: PhaseDiagram, facts: SuperpositionReport["facts"]): string {
  const title = "Superposition as a phase change";
  const body = `${header(title, facts)}
<main>
<section>
<p>There is one feature more than dimensions. Whether this extra feature is left out, stored in superposition or given a dimension of its own depends on its importance and on how often features occur. Theory and trained models agree at ${(100 * diagram.agreement).toFixed(0)}% of the points.</p>
${figure(phaseDiagramPicture(diagram))}
</section>
</main>
${FOOTER}`;
  return htmlPage({ title, style: STYLE, body });
}

const FOOTER = "<footer>After Elhage et al. 2022, Toy Models of Superposition, arXiv:2209.10652.</footer>";

function header(title: string, facts: SuperpositionReport["facts"]): string {
  const spans = facts.map(([name, value]) => `<span>${visibleHtml(name)} <b>${visibleHtml(value)}</b></span>`);
  return `<header>
<h1>${visibleHtml(title)}</h1>
<p class="facts">${spans.join(" ")}</p>
</header>`;
}

function sweepSection(pictures: readonly Picture[]): string {
  if (pictures.length === 0) return "";
  return `<section>
<h2>From dense to sparse</h2>
<p>Left: the dimensions per feature linger at 1, where features have dimensions of their own, and at 1/2, where they come in antipodal pairs. Right: a point for every feature.</p>
<div class="sideBySide">
${pictures.map(figure).join("\n")}
</div>
</section>`;
}

function figure(picture: Picture): string {
  return `<figure>${pictureElement(picture)}</figure>`;
}

const STYLE = `${PAGE_STYLE}h2{margin:0 0 .3rem;font-size:1.1rem}
.facts{margin:.25rem 0 1.2rem;color:var(--quiet);font-size:.9rem;overflow-wrap:anywhere}
.facts span{margin-right:1.1em;display:inline-block}
.facts b{color:var(--text);font-weight:600;font-variant-numeric:tabular-nums}
section{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:1.1rem 1.25rem;margin:0 0 1rem}
section p{margin:.1rem 0 .8rem;color:var(--quiet);font-size:.9rem}
.wide{overflow-x:auto}
table{border-collapse:collapse;font-size:.9rem;font-variant-numeric:tabular-nums}
th,td{text-align:right;padding:.25rem 1rem .25rem 0;border-bottom:1px solid var(--line);white-space:nowrap}
th{font-weight:600;color:var(--quiet)}
th:last-child,td:last-child{text-align:left;padding-right:0}
figure{margin:0}
svg{display:block;max-width:100%;height:auto}
.models{display:flex;flex-wrap:wrap;gap:1.2rem 2.4rem;margin-top:1rem}
.sideBySide{display:flex;flex-wrap:wrap;gap:1rem}
footer{color:var(--quiet);font-size:.85rem}
`;
