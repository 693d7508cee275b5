import { htmlPage } from "./htmlPage.js";
import { PAGE_STYLE } from "./pageStyle.js";
import {
  l0Text,
  nameText,
  paretoFront,
  placeTexts,
  qualitiesOf,
  qualityNames,
  qualityText,
  type SweepPoint,
  sortedForTable,
  unmarkedText,
} from "./pareto.js";
import { paretoPicture } from "./paretoPicture.js";
import { escapeHtml, visibleHtml } from "./visibleText.js";

/** What a page of a sweep shows. Every string in it may be hostile: it is escaped where it is written. */
export interface ParetoReport {
  readonly title: string;
  /** Short facts under the title, such as ["model", "tiny-gpt2"]. */
  readonly facts: readonly (readonly [name: string, value: string])[];
  readonly points: readonly SweepPoint[];
}

/** One self-contained HTML page: the picture and the table behind it. See `htmlPage` for what it may do: nothing. */
export function paretoHtml({ title, facts, points }: ParetoReport): string {
  const shown = qualitiesOf(points);
  const fronts = shown.map((quality) => new Set(paretoFront(points, quality)));
  const placeText = placeTexts(points);
  const rows = sortedForTable(points).map((point) => {
    const cells = shown.map((quality, index) => {
      const best = points.length > 1 && fronts[index]!.has(point) ? ' class="best"' : "";
      return `<td${best}>${qualityText(point, quality)}</td>`;
    });
    const place = placeText === undefined ? "" : `<td class="name">${escapeHtml(placeText(point))}</td>`;
    return `<tr><th scope="row">${escapeHtml(nameText(point))}</th>${place}<td class="name">${visibleHtml(point.architecture, 40)}</td><td>${point.dSae}</td><td>${l0Text(point)}</td>${cells.join("")}</tr>`;
  });
  const hookTitle = placeText === undefined ? "" : '<th scope="col" class="name">hook</th>';
  const rivals = placeText === undefined ? "SAE" : "SAE at the same hook";
  const marks =
    points.length < 2
      ? ""
      : `<b class="best">Marked</b>: no other ${rivals} has as low an L0 and as much of that column${unmarkedText(points)}. `;
  const titles = shown.map((quality) => `<th scope="col">${qualityNames[quality]}</th>`).join("");
  const body = `<header>
<h1>${visibleHtml(title)}</h1>
<p>${facts.map(([name, value]) => `<span>${visibleHtml(name)} <b>${visibleHtml(value)}</b></span>`).join(" ")}</p>
</header>
<main>
<figure>${paretoPicture(points)}</figure>
<div class="table"><table>
<thead><tr><th scope="col" class="name">SAE</th>${hookTitle}<th scope="col" class="name">architecture</th><th scope="col">latents</th><th scope="col">L0</th>${titles}</tr></thead>
<tbody>
${rows.join("\n")}
</tbody>
</table></div>
<p>${marks}Hover over a point for its name.</p>
</main>`;
  return htmlPage({ title, style: STYLE, body });
}

const STYLE = `${PAGE_STYLE}:root{--best:#0072b2}
@media (prefers-color-scheme:dark){:root{--best:#56b4e9}}
p{margin:.25rem 0 1.25rem;color:var(--quiet);font-size:.9rem;overflow-wrap:anywhere}
p span{margin-right:1.1em;display:inline-block}
p b{color:var(--text);font-weight:600}
figure{margin:0 0 1.25rem;padding:.75rem;background:var(--card);border:1px solid var(--line);border-radius:10px;overflow-x:auto}
svg{display:block;max-width:100%;height:auto;margin:0 auto}
.table{overflow-x:auto;margin-bottom:.75rem;background:var(--card);border:1px solid var(--line);border-radius:10px}
table{width:100%;border-collapse:collapse;font-size:.9rem;font-variant-numeric:tabular-nums}
th,td{padding:.4rem .75rem;border-bottom:1px solid var(--line);text-align:right;font-weight:400;white-space:nowrap}
thead th{color:var(--quiet);font-size:.82rem}
tbody th,.name{text-align:left}
tbody tr:last-child>*{border-bottom:0}
.best{color:var(--best);font-weight:650}
`;
