import { visibleHtml } from "./visibleText.js";

/** What the style sheets of all pages begin with: colours, light and dark, and running text. */
export const PAGE_STYLE: string = `
:root{color-scheme:light dark;--text:#1d2129;--quiet:#667085;--page:#f7f7f5;--card:#fff;--line:#e2e2de;--accent:#c2410c;--bar:#e07a3f;--shade:249 115 22;--negative:59 130 246;--raised:21 128 61;--lowered:190 24 93}
@media (prefers-color-scheme:dark){:root{--text:#e6e6e3;--quiet:#9aa1ac;--page:#16181c;--card:#1f2228;--line:#343840;--accent:#fb923c;--bar:#d9743b;--raised:74 222 128;--lowered:244 114 182}}
*{box-sizing:border-box}
body{margin:0 auto;padding:2rem 1.25rem 3rem;max-width:70rem;background:var(--page);color:var(--text);font:16px/1.5 system-ui,"Segoe UI","Helvetica Neue",Arial,sans-serif}
h1{margin:0;font-size:1.7rem;letter-spacing:-.01em;overflow-wrap:anywhere}
`;

/** Names and values under a title, one a line, any text. For pages with `FACT_TABLE_STYLE`. */
export function factTable(facts: readonly (readonly [name: string, value: string])[]): string {
  const rows = facts.map(
    ([name, value]) => `<tr><th scope="row">${visibleHtml(name)}</th><td><bdi>${visibleHtml(value)}</bdi></td></tr>`,
  );
  return `<table class="facts">${rows.join("")}</table>`;
}

export const FACT_TABLE_STYLE: string = `
table.facts{border-collapse:collapse;margin:.4rem 0 1rem;font-size:.9rem}
table.facts th,table.facts td{padding:.1rem 1.2rem .1rem 0;border:0;text-align:left;vertical-align:top;white-space:normal;font-weight:400;overflow-wrap:anywhere}
table.facts th{color:var(--quiet);white-space:nowrap}
table.facts td{color:var(--text)}
`;
