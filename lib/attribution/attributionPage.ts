import { FEATURE_STYLE, shade, shadeClass } from "../analysis/featureReport.js";
import { htmlPage } from "../analysis/htmlPage.js";
import { FACT_TABLE_STYLE, factTable } from "../analysis/pageStyle.js";
import { visibleHtml } from "../analysis/visibleText.js";
import { type AttributedPlayer, type AttributionReport, LONGEST_LABEL, valueText } from "./attributionText.js";

/** An explanation as a page; text in it may be hostile. */
export interface AttributionPage extends AttributionReport {
  readonly title: string;
  /** Where the players are tokens: all of them, in the order of the text. */
  readonly text?: readonly AttributedPlayer[] | undefined;
}

/** As one self-contained HTML page (`htmlPage`): the text, shaded by what its tokens do, and a chart of the players. */
export function attributionHtml({ title, facts, players, text }: AttributionPage): string {
  const largest = Math.max(0, ...players.map(({ value }) => Math.abs(value)));
  const body = `<header>
<h1>${visibleHtml(title)}</h1>
${factTable(facts)}
</header>
<main>${text === undefined ? "" : `\n<p class="prompt text">${text.map((player) => shadedToken(player, largest)).join("")}</p>`}
<table class="players">
${players.map((player) => playerRow(player, largest)).join("\n")}
</table>
</main>
<footer>Orange raises the score, blue lowers it.${text === undefined ? "" : " Hover over a token for the number. ↵ is a line break."}</footer>`;
  return htmlPage({ title, style: `${FEATURE_STYLE}${FACT_TABLE_STYLE}${STYLE}`, body });
}

function shadedToken(player: AttributedPlayer, largest: number): string {
  return `<bdi class="${shadeClass(shade(player.value, largest))}" title="${visibleHtml(valueText(player))}">${label(player)}</bdi>`;
}

/** A bar from the middle: to the right what raises the score, to the left what lowers it. */
function playerRow(player: AttributedPlayer, largest: number): string {
  const { value } = player;
  const width = largest === 0 ? 0 : (100 * Math.abs(value)) / largest;
  const left = value < 0 ? 100 - width : 100;
  const bar = `<svg viewBox="0 0 200 12" preserveAspectRatio="none" aria-hidden="true"><rect class="${value < 0 ? "lowers" : "raises"}" x="${left.toFixed(2)}" y="1" width="${width.toFixed(2)}" height="10"/><line x1="100" x2="100" y1="0" y2="12"/></svg>`;
  return `<tr><th scope="row"><bdi>${label(player)}</bdi></th><td class="bar">${bar}</td><td>${visibleHtml(valueText(player))}</td></tr>`;
}

function label(player: AttributedPlayer): string {
  return visibleHtml(player.label, LONGEST_LABEL);
}

const STYLE = `
main{margin:1.25rem 0}
.prompt{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:1.1rem 1.25rem;font-size:1.25rem}
.players{border-collapse:collapse;width:100%;background:var(--card);border:1px solid var(--line);border-radius:10px;font-variant-numeric:tabular-nums}
.players th,.players td{padding:.25rem .75rem;text-align:left;font-weight:400}
.players th{overflow-wrap:anywhere;white-space:pre-wrap;width:35%;min-width:7rem}
.players .bar{min-width:5rem}
main{overflow-x:auto}
.players td:last-child{white-space:nowrap;color:var(--quiet);width:1%;text-align:right}
.players svg{height:1.1rem}
svg rect.lowers{fill:rgb(var(--negative))}
`;
