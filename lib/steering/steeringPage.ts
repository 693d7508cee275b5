import { htmlPage } from "../analysis/htmlPage.js";
import { escapeHtml, printableText, visibleText } from "../analysis/visibleText.js";
import type { SteeredTexts } from "./steering.js";
import { type SteeringReport, steeringTable } from "./steeringReport.js";

/** What steering did as one self-contained HTML page: the numbers, and all texts. See `htmlPage` for what it may do: nothing. */
export function steeringHtml(report: SteeringReport): string {
  const { title, facts, trials, prompt } = report;
  const { columns, rows } = steeringTable(report);
  const factRows = facts.map(([name, value]) => `<tr><th scope="row">${shown(name)}</th><td>${shown(value)}</td></tr>`);
  const numberRows = rows.map(
    ([label, ...cells]) =>
      `<tr><th scope="row">${shown(label!)}</th>${cells.map((cell) => `<td>${shown(cell)}</td>`).join("")}</tr>`,
  );
  const body = `<header>
<h1>${shown(title)}</h1>
<table class="facts">
${factRows.join("\n")}
</table>
</header>
<main>
<section><table class="numbers">
<thead><tr>${columns.map((column) => `<th scope="col">${shown(column)}</th>`).join("")}</tr></thead>
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
  return `<section><h2>${shown(label)}</h2>${paragraphs.join("")}</section>`;
}

function shown(text: string): string {
  return escapeHtml(visibleText(text));
}

const STYLE = `
:root{color-scheme:light dark;--text:#1d2129;--quiet:#667085;--page:#f7f7f5;--card:#fff;--line:#e2e2de}
@media (prefers-color-scheme:dark){:root{--text:#e6e6e3;--quiet:#9aa1ac;--page:#16181c;--card:#1f2228;--line:#343840}}
*{box-sizing:border-box}
body{margin:0 auto;padding:2rem 1.25rem 3rem;max-width:72rem;background:var(--page);color:var(--text);font:16px/1.5 system-ui,"Segoe UI","Helvetica Neue",Arial,sans-serif}
h1{margin:0 0 .5rem;font-size:1.6rem;letter-spacing:-.01em;overflow-wrap:anywhere}
h2{margin:0 0 .4rem;font-size:1rem;overflow-wrap:anywhere}
header{margin-bottom:1rem}
table{border-collapse:collapse;font-size:.9rem;font-variant-numeric:tabular-nums}
.facts th,.facts td{padding:.1rem 1.2rem .1rem 0;text-align:left;vertical-align:top;overflow-wrap:anywhere}
.facts th{color:var(--quiet);font-weight:400;white-space:nowrap}
.numbers th,.numbers td{padding:.25rem 1.4rem .25rem 0;text-align:right;border-bottom:1px solid var(--line);white-space:nowrap;font-weight:400}
.numbers th:first-child{text-align:left}
.numbers thead th{color:var(--quiet)}
section{min-width:0;background:var(--card);border:1px solid var(--line);border-radius:10px;padding:.9rem 1.1rem;overflow-x:auto}
section p{margin:.6rem 0 0;color:var(--quiet);font-size:.85rem}
section p.text{margin:0 0 .6rem;color:var(--text);font-size:.95rem;white-space:pre-wrap;overflow-wrap:anywhere}
.text i{color:var(--quiet);font-style:normal}
.trials{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(20rem,100%),1fr));gap:1rem;margin-top:1rem}
`;
