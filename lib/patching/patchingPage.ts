import { htmlPage } from "../analysis/htmlPage.js";
import { escapeHtml, visibleText } from "../analysis/visibleText.js";
import { pictureElement } from "../toy/superpositionPicture.js";
import { patchingPicture } from "./patchingPicture.js";
import type { PatchingReport } from "./patchingReport.js";

/** Heat maps as one self-contained HTML page. See `htmlPage` for what it may do: nothing. */
export function patchingHtml({ title, facts, maps }: PatchingReport): string {
  const rows = facts.map(([name, value]) => `<tr><th scope="row">${shown(name)}</th><td>${shown(value)}</td></tr>`);
  const body = `<header>
<h1>${shown(title)}</h1>
<table>
${rows.join("\n")}
</table>
<p>The effect of patching one thing at a time. 0: it changes nothing; 1: it alone takes the metric to that of the other prompt. Orange above 0, blue below. Hover over a cell for its number.</p>
</header>
<main>
${maps.map((map) => `<figure>${pictureElement(patchingPicture(map))}</figure>`).join("\n")}
</main>`;
  return htmlPage({ title, style: STYLE, body });
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
p{margin:.6rem 0 1rem;color:var(--quiet);font-size:.9rem;max-width:44rem}
table{border-collapse:collapse;font-size:.9rem}
th,td{padding:.1rem 1.2rem .1rem 0;text-align:left;vertical-align:top;overflow-wrap:anywhere}
th{color:var(--quiet);font-weight:400;white-space:nowrap}
main{display:flex;flex-wrap:wrap;gap:1rem}
figure{margin:0;max-width:100%;padding:.75rem;background:var(--card);border:1px solid var(--line);border-radius:10px;overflow-x:auto}
svg{display:block;height:auto}
`;
