import { htmlPage } from "../analysis/htmlPage.js";
import { FACT_TABLE_STYLE, factTable, PAGE_STYLE } from "../analysis/pageStyle.js";
import { escapeHtml, visibleHtml } from "../analysis/visibleText.js";
import type { MethodOutcome } from "./compareMethods.js";
import { type ComparisonReport, costText, latentsText, methodsByToken, valueText } from "./comparisonReport.js";

/** Five methods on one prompt as one self-contained HTML page. See `htmlPage` for what it may do: nothing. */
export function comparisonHtml({ title, facts, comparison }: ComparisonReport): string {
  const { tokens, latents, latentEffects, methods } = comparison;
  const shown = methodsByToken(comparison);
  const largest = shown.map(({ values }) => Math.max(...values.map((value) => Math.abs(value ?? 0))));
  const rows = tokens.map((token, position) => {
    const cells = shown.map(({ values }, i) => {
      const value = values[position];
      return value === undefined ? "<td></td>" : `<td>${valueText(value)}${bar(value, largest[i]!)}</td>`;
    });
    const active =
      latents === undefined ? "" : `<td class="latents">${escapeHtml(latentsText(latents[position]!))}</td>`;
    return `<tr><th scope="row"><code>${visibleHtml(token, 40)}</code></th>${cells.join("")}${active}</tr>`;
  });
  const titles = [
    ...shown.map(({ method }) => `<th scope="col">${method}</th>`),
    ...(latents === undefined ? [] : ['<th scope="col" class="latents">SAE features</th>']),
  ];
  const effects =
    latentEffects === undefined
      ? ""
      : `<section><h2>What the score owes to latents</h2><p>By how much it falls when one of the latents that are strong on the prompt is switched off: orange supports it.</p><table>${latentEffects
          .map(({ latent, effect }) => {
            const most = Math.max(...latentEffects.map((other) => Math.abs(other.effect)));
            return `<tr><th scope="row">latent ${latent}</th><td>${valueText(effect)}${bar(effect, most)}</td></tr>`;
          })
          .join("")}</table></section>`;
  const body = `<header>
<h1>${visibleHtml(title)}</h1>
${factTable(facts)}
</header>
<main>
<section><table>
<thead><tr><th scope="col">token</th>${titles.join("")}</tr></thead>
<tbody>
${rows.join("\n")}
</tbody>
</table></section>
<div class="methods">
${methods.map(methodHtml).join("\n")}
${effects}
</div>
</main>`;
  return htmlPage({ title, style: `${STYLE}${FACT_TABLE_STYLE}`, body });
}

function methodHtml(outcome: MethodOutcome): string {
  const { method, question, facts, leftOut } = outcome;
  const table = facts.length === 0 ? "" : factTable(facts);
  return `<section${leftOut === undefined ? "" : ' class="left"'}><h2>${method}</h2><p>${escapeHtml(question)}</p>${table}<p class="cost">${visibleHtml(costText(outcome))}</p></section>`;
}

/** From the middle to the right above 0, to the left below; half the width is the largest of its column. */
function bar(value: number, largest: number): string {
  const length = largest === 0 ? 0 : Math.round((24 * Math.abs(value)) / largest);
  const x = value < 0 ? 25 - length : 25;
  return `<svg width="50" height="12" aria-hidden="true"><path d="M25 0V12" stroke="currentColor" stroke-opacity=".25"/><rect x="${x}" y="1" width="${length}" height="10" fill="${value < 0 ? "#2f6fd0" : "#e8710a"}"/></svg>`;
}

const STYLE = `${PAGE_STYLE}h2{margin:0 0 .3rem;font-size:1rem}
table{border-collapse:collapse;font-size:.9rem;font-variant-numeric:tabular-nums}
th,td{padding:.25rem 1.3rem .25rem 0;text-align:right;font-weight:400;border-bottom:1px solid var(--line);white-space:nowrap}
th:first-child,.latents{text-align:left}
td.latents{white-space:pre}
thead th{color:var(--quiet)}
code{font:.85rem ui-monospace,Menlo,Consolas,monospace;white-space:pre}
svg{margin-left:.6rem;vertical-align:middle}
section{min-width:0;background:var(--card);border:1px solid var(--line);border-radius:10px;padding:.9rem 1.1rem;overflow-x:auto}
section p{margin:0 0 .5rem;color:var(--quiet);font-size:.85rem}
section p.cost{margin:.6rem 0 0;color:var(--text)}
.left{opacity:.65}
.methods{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(19rem,100%),1fr));gap:1rem;margin-top:1rem}
`;
