/** What the pages of a report begin and end with. */
import { htmlFrame } from "../analysis/htmlPage.js";
import { visibleHtml } from "../analysis/visibleText.js";
import { densityChart } from "./charts.js";
import type { FeatureReport } from "./report.js";
import { integer } from "./reportNumbers.js";
import { REPORT_STYLE } from "./reportStyle.js";

/** The page around its pieces. */
export function reportFrame(title: string): { head: string; tail: string } {
  return htmlFrame({ title, style: REPORT_STYLE });
}

/** Title, facts and numbers of a report. */
export function reportHeader({ title, facts, summary }: FeatureReport): string {
  const numbers = summary.map(
    ({ name, value, meaning }) =>
      `<div><dt>${visibleHtml(name)}</dt><dd>${visibleHtml(value)}</dd><dd class="meaning">${visibleHtml(meaning)}</dd></div>`,
  );
  return `<header>
<h1>${visibleHtml(title)}</h1>
<p class="facts">${facts.map(([name, value]) => `<span>${visibleHtml(name)} <b>${visibleHtml(value)}</b></span>`).join(" ")}</p>
<dl class="summary">
${numbers.join("\n")}
</dl>
</header>
`;
}

export function densitySection({ densities }: FeatureReport): string {
  const { dSae, deadLatents, tokens } = densities;
  return `<section class="overview">
<h2>How often latents fire</h2>
<p>${integer(dSae - deadLatents)} of ${integer(dSae)} latents fire at least once in ${integer(tokens)} tokens; the chart counts them by the share of tokens on which they do.</p>
${densityChart(densities)}
</section>
`;
}

export const REPORT_FOOTER: string =
  "<footer>Shading shows a latent's activation relative to its strongest, blue where it is negative; point at a token for the number. ↵ is a line break.</footer>";
