/**
 * Everything that has no glyph of its own, or changes how its neighbours are drawn: controls, formats (bidi overrides, zero
 * widths), separators, lone surrogates, and combining marks after the fourth in a row, which would tower over other lines.
 */
const INVISIBLE = /[\p{C}\p{Zl}\p{Zp}]|(?! )\p{Zs}|(?<=\p{M}{4})\p{M}/gu;

const SYMBOLS: Readonly<Record<string, string>> = { "\n": "↵", "\t": "⇥" };

function escapeCharacter(character: string): string {
  return `\\u{${character.codePointAt(0)!.toString(16)}}`;
}

/**
 * Text of unknown origin (tokens, tensor names, paths) as one line that is safe on a terminal and in a page: a line
 * break becomes `↵`, a tab `⇥`, any other invisible, direction-changing or towering character its escape, such as `\u{202e}`.
 * Longer than `maximumLength` code points, it is cut and ends in `…`.
 */
export function visibleText(text: string, maximumLength: number = Number.POSITIVE_INFINITY): string {
  const short = cut(text, maximumLength);
  return short.replace(INVISIBLE, (character) => SYMBOLS[character] ?? escapeCharacter(character));
}

/** `visibleText` in quotes, so that spaces at its ends are seen: a token in a sentence. Nothing else in it is escaped. */
export function quotedText(text: string, maximumLength?: number): string {
  return `"${visibleText(text, maximumLength)}"`;
}

/** As `visibleText`, but line breaks and tabs stay: running text for a terminal. */
export function printableText(text: string): string {
  return text.replace(INVISIBLE, (character) => (character in SYMBOLS ? character : escapeCharacter(character)));
}

/** `text` with the characters that mean something in HTML text and in quoted attributes replaced by references. */
export function escapeHtml(text: string): string {
  return text
    .replaceAll("&", "&amp;")
    .replaceAll("<", "&lt;")
    .replaceAll(">", "&gt;")
    .replaceAll('"', "&quot;")
    .replaceAll("'", "&#39;");
}

/** `visibleText` as HTML text, or the value of a quoted attribute. */
export function visibleHtml(text: string, maximumLength?: number): string {
  return escapeHtml(visibleText(text, maximumLength));
}

function cut(text: string, maximumLength: number): string {
  if (text.length <= maximumLength) return text;
  let kept = "";
  let length = 0;
  for (const character of text) {
    if (length === maximumLength) return `${kept}…`;
    kept += character;
    length += 1;
  }
  return kept;
}
