import fc from "fast-check";
import { expect, test } from "vitest";
import { escapeHtml, printableText, visibleText } from "../../lib/analysis/visibleText.js";

test("ordinary text, accents and emoji included, is shown as it is", () => {
  expect(visibleText(" Grüße, 世界 🙂 a\\b <c>")).toBe(" Grüße, 世界 🙂 a\\b <c>");
});

test("line breaks and tabs get symbols, other controls their escapes", () => {
  expect(visibleText("a\nb\tc\rd\u0000\u001b[31m\u007f\u009b")).toBe("a↵b⇥c\\u{d}d\\u{0}\\u{1b}[31m\\u{7f}\\u{9b}");
});

test("direction overrides, zero widths, odd spaces, separators and lone surrogates are shown as escapes", () => {
  expect(visibleText("\u202eabc\u2066\u200b\u00a0\u2028\ufeff\ud800")).toBe(
    "\\u{202e}abc\\u{2066}\\u{200b}\\u{a0}\\u{2028}\\u{feff}\\u{d800}",
  );
});

test("combining marks stay up to four in a row, those above them are shown as escapes", () => {
  expect(visibleText("a\u0301\u0323\u0302\u0308 b")).toBe("a\u0301\u0323\u0302\u0308 b");
  expect(visibleText(`a${"\u0301".repeat(6)}b`)).toBe(`a${"\u0301".repeat(4)}\\u{301}\\u{301}b`);
});

test("text is cut by whole characters and the cut is marked", () => {
  expect(visibleText("🙂".repeat(5), 3)).toBe("🙂🙂🙂…");
  expect(visibleText("🙂🙂🙂", 3)).toBe("🙂🙂🙂");
  expect(visibleText("x".repeat(1_000_000), 10)).toBe(`${"x".repeat(10)}…`);
});

test("running text keeps its line breaks but no other control", () => {
  expect(printableText("a\n\tb\u001b]0;title\u0007\r")).toBe("a\n\tb\\u{1b}]0;title\\u{7}\\u{d}");
});

test("no text leaves a control or format character behind", () => {
  fc.assert(
    fc.property(fc.string({ unit: "binary" }), (text) => {
      expect(visibleText(text)).not.toMatch(/[\p{C}\p{Zl}\p{Zp}]/u);
      expect(printableText(text)).not.toMatch(/(?![\n\t])[\p{C}\p{Zl}\p{Zp}]/u);
    }),
  );
});

test("escaped HTML holds no character that could open a tag, an entity or close an attribute", () => {
  expect(escapeHtml(`<img src=x onerror="a('&')">`)).toBe("&lt;img src=x onerror=&quot;a(&#39;&amp;&#39;)&quot;&gt;");
});
