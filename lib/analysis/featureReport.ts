import type { FeatureExample } from "./features.js";
import { PAGE_STYLE } from "./pageStyle.js";
import { escapeHtml, visibleHtml, visibleText } from "./visibleText.js";

/** A number at the head of a page. */
export interface SummaryNumber {
  readonly name: string;
  /** As it is to be read, with its unit. */
  readonly value: string;
  /** What it means, in a few words. */
  readonly meaning: string;
}

/** A token longer than this many code points is cut. */
export const LONGEST_TOKEN = 48;

/** How strongly to shade a token: 0 (not at all) to 10 (the latent's strongest activation), negative as the activation. */
export function shade(activation: number, strongest: number): number {
  const magnitude = Math.abs(activation);
  if (!(magnitude > 0) || !(strongest > 0)) return 0;
  return Math.sign(activation) * Math.max(1, Math.min(10, Math.round((10 * magnitude) / strongest)));
}

/** What is shown of an example. */
export type ShownExample = Pick<FeatureExample, "activation" | "tokens" | "activations" | "peak">;

/** An item of `<ol class="examples">`, for pages with `FEATURE_STYLE`. */
export function exampleRow(example: ShownExample, strongest: number, tokenText: (id: number) => string): string {
  const tokens = Array.from(example.tokens, (id, index) => {
    const activation = example.activations[index]!;
    const text = tokenHtml(tokenText(id));
    if (activation === 0) return `<bdi>${text}</bdi>`;
    const classes = `${shadeClass(shade(activation, strongest))}${index === example.peak ? " peak" : ""}`;
    return `<bdi class="${classes}" title="${tokenTitle(tokenText(id), id, `activation ${decimal(activation)}`)}">${text}</bdi>`;
  });
  return `<li><span class="activation">${decimal(example.activation)}</span><span class="text">${tokens.join("")}</span></li>`;
}

/** The class in `FEATURE_STYLE` that shades so strongly. */
export function shadeClass(level: number): string {
  return level < 0 ? `n${-level}` : `a${level}`;
}

/** What a token's tooltip says, as the value of an attribute. */
export function tokenTitle(text: string, id: number, fact: string): string {
  return escapeHtml(`${visibleText(text, LONGEST_TOKEN)} · token ${id} · ${fact}`);
}

/** A token that stands by itself, long ones cut: one of spaces alone is in quotes, so that it is seen. */
export function loneToken(text: string): string {
  const visible = visibleText(text, LONGEST_TOKEN);
  return visible.trim() === "" ? `"${visible}"` : visible;
}

/** A token's text as HTML, long ones cut. */
export function tokenHtml(text: string): string {
  return visibleHtml(text, LONGEST_TOKEN);
}

/** An activation, a logit or a norm, as it is shown. */
export function decimal(value: number): string {
  return value !== 0 && Math.abs(value) < 0.01 ? value.toExponential(1) : value.toFixed(2);
}

const SHADES = Array.from({ length: 10 }, (_, index) => {
  const opacity = (0.08 + 0.07 * (index + 1)).toFixed(2);
  return `.a${index + 1}{background:rgb(var(--shade)/${opacity})}.n${index + 1}{background:rgb(var(--negative)/${opacity})}`;
}).join("");

/** The style sheet of pages that show examples. */
export const FEATURE_STYLE: string = `${PAGE_STYLE}h2{margin:0;font-size:1.1rem}
h3{margin:0 0 .3rem;font-size:.8rem;font-weight:600;color:var(--quiet)}
a{color:inherit;text-decoration:none}
a:hover{color:var(--accent);text-decoration:underline}
.facts{margin:.25rem 0 0;color:var(--quiet);font-size:.9rem;overflow-wrap:anywhere}
.facts span{margin-right:1.1em;display:inline-block}
.facts b{color:var(--text);font-weight:600;font-variant-numeric:tabular-nums}
.summary{display:grid;grid-template-columns:repeat(auto-fit,minmax(10.5rem,1fr));gap:.75rem;margin:1.5rem 0}
.summary div{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:.8rem 1rem}
.summary dt{color:var(--quiet);font-size:.85rem}
.summary dd{margin:0;font-size:1.6rem;font-weight:650;font-variant-numeric:tabular-nums;line-height:1.3}
.summary dd.meaning{font-size:.78rem;font-weight:400;color:var(--quiet);line-height:1.35}
.overview,article{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:1.1rem 1.25rem;margin:0 0 1rem}
.overview p{margin:.2rem 0 .8rem;color:var(--quiet);font-size:.9rem}
nav{margin:0 0 1rem;font-size:.85rem;color:var(--quiet);font-variant-numeric:tabular-nums;line-height:1.9}
nav a{border:1px solid var(--line);border-radius:999px;padding:.1rem .6rem;margin:0 .15rem;background:var(--card)}
svg{display:block;width:100%;height:auto}
svg rect{fill:var(--bar)}
svg line{stroke:var(--quiet);stroke-width:1}
svg text{fill:var(--quiet);font-size:11px;font-variant-numeric:tabular-nums}
.panels{display:flex;flex-wrap:wrap;gap:1rem 2rem;margin:.8rem 0}
figure{margin:0;width:15rem}
figcaption{font-size:.8rem;color:var(--quiet)}
.examples{list-style:none;margin:0;padding:0;border-top:1px solid var(--line)}
.examples li{display:grid;grid-template-columns:3.5rem 1fr;gap:.75rem;padding:.3rem 0;border-bottom:1px solid var(--line)}
.activation{color:var(--quiet);text-align:right;font-size:.85rem;font-variant-numeric:tabular-nums;line-height:1.75}
.text{line-height:1.75;white-space:pre-wrap;overflow-wrap:anywhere;min-width:0;overflow:hidden}
.text bdi{border-radius:3px;padding:.08em 0}
.peak{outline:1.5px solid var(--accent);outline-offset:-1px}
${SHADES}
footer{color:var(--quiet);font-size:.85rem}
`;
