import { decimal, loneToken, shade, shadeClass } from "../analysis/featureReport.js";
import { escapeHtml, visibleHtml } from "../analysis/visibleText.js";
import { type CardContext, LONGEST_BEGINNING, latentLink } from "./latentCard.js";
import type { ActiveLatent, RecordedPrompt } from "./report.js";

/**
 * Recorded prompts to choose from: each opens to its tokens, each token to the latents that are active on it. Without a
 * script: prompts are `<details>`, tokens are radio buttons, whose panel the style sheet shows while one is chosen.
 */
export function promptBox(prompts: readonly RecordedPrompt[], context: CardContext): string {
  if (prompts.length === 0) return "";
  const boxes = prompts.map((prompt, index) => promptDetails(prompt, index, context));
  return `<section class="overview prompts">
<h2>Which latents are active on a text</h2>
<p>Choose a text, then one of its tokens.</p>
${boxes.join("\n")}
</section>`;
}

function promptDetails({ text, tokens }: RecordedPrompt, prompt: number, context: CardContext): string {
  const strongest = new Map<number, number>();
  for (const { latent, value } of tokens.flatMap(({ latents }) => latents)) {
    strongest.set(latent, Math.max(strongest.get(latent) ?? 0, Math.abs(value)));
  }
  const most = Math.max(0, ...strongest.values());
  const choices = tokens.map(({ token, latents }, index) => {
    const label = `<bdi>${escapeHtml(loneToken(context.tokenText(token)))}</bdi>`;
    const items = latents.map((active) => activeLatent(active, most, "", context));
    return choice({ prompt, name: String(index), label, items });
  });
  const overall = choice({
    prompt,
    name: "all",
    label: "the whole text",
    items: strongestLatents(tokens, most, context),
  });
  const beginning = visibleHtml(text.trim(), LONGEST_BEGINNING);
  return `<details name="prompt"${prompt === 0 ? " open" : ""}><summary><bdi>${beginning}</bdi></summary>
<div class="choices">
${[overall, ...choices].join("\n")}
</div>
</details>`;
}

interface Choice {
  readonly prompt: number;
  readonly name: string;
  /** HTML. */
  readonly label: string;
  /** List items of its panel. */
  readonly items: readonly string[];
}

function choice({ prompt, name, label, items }: Choice): string {
  const id = `prompt-${prompt}-${name}`;
  const panel = items.length === 0 ? "<p>no latent is active here</p>" : `<ol>${items.join("")}</ol>`;
  return `<input type="radio" name="prompt-${prompt}" id="${id}" autocomplete="off"${name === "all" ? " checked" : ""}><label for="${id}">${label}</label><div class="panel">${panel}</div>`;
}

const MOST_OF_WHOLE = 20;

/** The strongest latents of a whole text, by the strongest activation on any of its tokens. */
function strongestLatents(tokens: RecordedPrompt["tokens"], most: number, context: CardContext): string[] {
  const strongest = new Map<number, { active: ActiveLatent; token: number }>();
  for (const { token, latents } of tokens) {
    for (const active of latents) {
      const best = strongest.get(active.latent);
      if (best === undefined || Math.abs(active.value) > Math.abs(best.active.value)) {
        strongest.set(active.latent, { active, token });
      }
    }
  }
  return [...strongest.values()]
    .sort((a, b) => Math.abs(b.active.value) - Math.abs(a.active.value) || a.active.latent - b.active.latent)
    .slice(0, MOST_OF_WHOLE)
    .map(({ active, token }) =>
      activeLatent(active, most, ` on <bdi>${escapeHtml(loneToken(context.tokenText(token)))}</bdi>`, context),
    );
}

function activeLatent({ latent, value }: ActiveLatent, most: number, where: string, { linkTo }: CardContext): string {
  return `<li class="${shadeClass(shade(value, most))}">latent ${latentLink(latent, linkTo)} <span>${decimal(value)}${where}</span></li>`;
}
