import { htmlPage } from "../analysis/htmlPage.js";
import { FACT_TABLE_STYLE, factTable, PAGE_STYLE } from "../analysis/pageStyle.js";
import { visibleHtml } from "../analysis/visibleText.js";
import { pictureElement } from "../toy/superpositionPicture.js";
import { patchingPicture } from "./patchingPicture.js";
import type { PatchingReport } from "./patchingReport.js";

/** Heat maps as one self-contained HTML page. See `htmlPage` for what it may do: nothing. */
export function patchingHtml({ title, facts, maps }: PatchingReport): string {
  const body = `<header>
<h1>${visibleHtml(title)}</h1>
${factTable(facts)}
<p>The effect of patching one thing at a time. 0: it changes nothing; 1: it alone takes the metric to that of the other prompt. Orange above 0, blue below. Hover over a cell for its number.</p>
</header>
<main>
${maps.map((map) => `<figure>${pictureElement(patchingPicture(map))}</figure>`).join("\n")}
</main>`;
  return htmlPage({ title, style: STYLE, body });
}

const STYLE = `${PAGE_STYLE}${FACT_TABLE_STYLE}p{margin:.6rem 0 1rem;color:var(--quiet);font-size:.9rem;max-width:44rem}
main{display:flex;flex-wrap:wrap;gap:1rem}
figure{margin:0;max-width:100%;padding:.75rem;background:var(--card);border:1px solid var(--line);border-radius:10px;overflow-x:auto}
svg{display:block;height:auto}
`;
