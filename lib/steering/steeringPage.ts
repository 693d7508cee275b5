import { htmlPage } from "../analysis/htmlPage.js";
import { FACT_TABLE_STYLE, factTable, PAGE_STYLE } from "../analysis/pageStyle.js";
import { escapeHtml, printableText, visibleHtml } from "../analysis/visibleText.js";
import type { SteeredTexts } from "./steering.js";
import { type SteeringReport, steeringTable } from "./steeringReport.js";

/** What steering did as one self-contained HTML page: the numbers, and all texts. See `htmlPage` for what it may do: nothing. */
export function steeringHtml(report: SteeringReport): string {
  const { title, facts, trials, prompt } = report;
  const { columns, rows } = steeringTable(report);
  const numberRows = rows.map(
    ([label, ...cells]) =>
      `<tr><th scope="row">${visibleHtml(label!)}</th>${cells.map((cell) => `<td>${visibleHtml(cell)}</td>`).join("")}</tr>`,
  );
  const body = `<header>
<h1>${visibleHtml(title)}</h1>
${factTable(facts)}
</header>
<main>
<section><table class="numbers">
<thead><tr>${columns.map((column) => `<th scope="col">${visibleHtml(column)}</th>`).join("")}</tr></thead>
<tbody>
${numberRows.join("\n")}
</tbody>
</table>
<p>Perplexity is that of what was written under the model as it is: how far from its own way of writing. A latent's number is its mean activation where the model as it is reads what was written.</p></section>
<div class="trials">
${trials.map((trial) => trialHtml(trial, prompt)).join("\n")}
</div>
</main>`;
  return htmlPage({ title, style: STYLE, body });
}

function trialHtml({ label, texts }: SteeredTexts, prompt: string): string {
  const paragraphs = texts.map(
    (text) => `<p class="text"><i>${escapeHtml(printableText(prompt))}</i>${escapeHtml(printableText(text))}</p>`,
  );
  return `<section><h2>${visibleHtml(label)}</h2>${paragraphs.join("")}</section>`;
}

const STYLE = `${PAGE_STYLE}${FACT_TABLE_STYLE}h2{margin:0 0 .4rem;font-size:1rem;overflow-wrap:anywhere}
table{border-collapse:collapse;font-size:.9rem;font-variant-numeric:tabular-nums}
.numbers th,.numbers td{padding:.25rem 1.4rem .25rem 0;text-align:right;border-bottom:1px solid var(--line);white-space:nowrap;font-weight:400}
.numbers th:first-child{text-align:left}
.numbers thead th{color:var(--quiet)}
section{min-width:0;background:var(--card);border:1px solid var(--line);border-radius:10px;padding:.9rem 1.1rem;overflow-x:auto}
section p{margin:.6rem 0 0;color:var(--quiet);font-size:.85rem}
section p.text{margin:0 0 .6rem;color:var(--text);font-size:.95rem;white-space:pre-wrap;overflow-wrap:anywhere}
.text i{color:var(--quiet);font-style:normal}
.trials{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(20rem,100%),1fr));gap:1rem;margin-top:1rem}
`;
