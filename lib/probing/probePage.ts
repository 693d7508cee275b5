import { FEATURE_STYLE } from "../analysis/featureReport.js";
import { htmlPage } from "../analysis/htmlPage.js";
import { FACT_TABLE_STYLE, factTable } from "../analysis/pageStyle.js";
import { visibleHtml } from "../analysis/visibleText.js";
import { type NamedProbe, type ProbeReport, percent, signedWeight } from "./probeText.js";

/** Probes as one self-contained HTML page (`htmlPage`): a table with a chart of accuracies, and what sparse probes read. */
export function probeHtml(title: string, { facts, probes }: ProbeReport): string {
  const body = `<header>
<h1>${visibleHtml(title)}</h1>
${factTable(facts)}
</header>
<main>
<div class="scroll"><table class="probes">
<thead><tr><th>probed</th><th>accuracy, unseen texts</th><th></th><th>AUROC</th><th>F1</th><th>control</th><th>selectivity</th></tr></thead>
${probes.map(probeRow).join("\n")}
</table></div>
${probes.map(chosenFeatures).join("")}</main>
<footer>The mark on a bar is the accuracy on permuted labels (control): what lies right of it was read off, not learnt by heart.</footer>`;
  return htmlPage({ title, style: `${FEATURE_STYLE}${FACT_TABLE_STYLE}${STYLE}`, body });
}

function probeRow({ name, outcome: { test, control } }: NamedProbe): string {
  const mark =
    control === undefined
      ? ""
      : `<line x1="${(100 * control.accuracy).toFixed(2)}" x2="${(100 * control.accuracy).toFixed(2)}" y1="0" y2="12"/>`;
  const bar = `<svg viewBox="0 0 100 12" preserveAspectRatio="none" aria-hidden="true"><rect class="all" x="0" y="2" width="100" height="8"/><rect x="0" y="2" width="${(100 * test.accuracy).toFixed(2)}" height="8"/>${mark}</svg>`;
  const cells = [
    percent(test.accuracy),
    test.auroc.toFixed(3),
    test.f1.toFixed(3),
    control === undefined ? "-" : percent(control.accuracy),
    control === undefined ? "-" : (100 * control.selectivity).toFixed(1),
  ];
  return `<tr><th scope="row"><bdi>${visibleHtml(name)}</bdi></th><td class="bar">${bar}</td>${cells.map((cell) => `<td>${cell}</td>`).join("")}</tr>`;
}

function chosenFeatures({ name, features, outcome }: NamedProbe): string {
  if (features === undefined) return "";
  const items = features.map(
    (feature, i) => `<li><b>${feature}</b> ${visibleHtml(signedWeight(outcome.probe.weights[i]!))}</li>`,
  );
  return `<section><h3>weights of ${visibleHtml(name)}</h3><ul class="chosen">${items.join("")}</ul></section>\n`;
}

const STYLE = `
main{margin:1.25rem 0}
.scroll{overflow-x:auto;margin:0 0 1rem}
.probes{border-collapse:collapse;width:100%;background:var(--card);border:1px solid var(--line);font-variant-numeric:tabular-nums}
.probes th,.probes td{padding:.3rem .6rem;text-align:right;font-weight:400;white-space:nowrap}
.probes thead th{color:var(--quiet);font-size:.85rem;border-bottom:1px solid var(--line)}
.probes th:first-child,.probes th:nth-child(2){text-align:left}
.probes .bar{width:40%;min-width:7rem}
.probes svg{height:1.1rem}
.probes line{stroke:var(--text);stroke-width:.8}
svg rect.all{fill:var(--line)}
.chosen{list-style:none;padding:0;margin:0 0 1rem;display:flex;flex-wrap:wrap;gap:.3rem .9rem;font-variant-numeric:tabular-nums;color:var(--quiet)}
.chosen b{color:var(--text)}
`;
