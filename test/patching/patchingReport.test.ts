import { expect, test } from "vitest";
import { patchingHtml } from "../../lib/patching/patchingPage.js";
import { patchingPicture, patchingPictures } from "../../lib/patching/patchingPicture.js";
import { effectText, type PatchingReport, patchingText } from "../../lib/patching/patchingReport.js";
import { pictureFile } from "../../lib/toy/superpositionPicture.js";
import { chromium, domOf } from "../analysis/browser.js";
import { hostileTokens } from "../features/hostileReport.js";

function reportOf(columns: readonly string[], effects: readonly (readonly number[])[]): PatchingReport {
  return {
    title: "Patching <script>document.title='owned'</script>",
    facts: [
      ["metric", "m\u001b[2J\u202e"],
      ["x", '"><img src=x onerror=alert(1)>'],
    ],
    maps: [
      {
        title: "resid_pre <b>of</b> each layer",
        rowTitle: "layer",
        rows: effects.map((_, i) => String(i)),
        columns,
        effects,
      },
    ],
  };
}

test("numbers stand below their tokens, what is nothing is a dot, and maps go on below", () => {
  const report = reportOf(
    [" the", " cat", " caterpillar"],
    [
      [0.001, -0.5, 1],
      [12.345, -0.004, 0.005],
    ],
  );
  const lines = patchingText(report, { colour: false, width: 60 }).split("\n");
  expect(lines.slice(0, 2)).toEqual(["metric  m\\u{1b}[2J\\u{202e}", 'x       "><img src=x onerror=alert(1)>']);
  expect(lines.slice(3)).toEqual([
    "resid_pre <b>of</b> each layer",
    "layer      the      cat caterpi…",
    "0            ·    -0.50    +1.00",
    "1       +12.35        ·    +0.01",
    "",
  ]);
  const narrow = patchingText(report, { colour: false, width: 24 }).split("\n");
  expect(narrow.slice(3)).toEqual([
    "resid_pre <b>of</b> each layer",
    "layer      the      cat",
    "0            ·    -0.50",
    "1       +12.35        ·",
    "layer caterpi…",
    "0        +1.00",
    "1        +0.01",
    "",
  ]);
});

test("on a terminal effects are coloured by sign and size, and nothing else is", () => {
  const text = patchingText(reportOf(["a", "b", "c"], [[0.05, -1, 7]]), { colour: true, width: 80 });
  expect(text).toContain("   +0.05 \u001b[48;5;33;38;5;16m   -1.00\u001b[0m \u001b[48;5;202;38;5;16m   +7.00\u001b[0m");
  expect(text.split("\u001b")).toHaveLength(5);
});

test("effects are rounded to what is read", () => {
  expect([0, -0, 0.0049, -0.0049, 0.006, -1.234].map(effectText)).toEqual(["·", "·", "·", "·", "+0.01", "-1.23"]);
});

test("pictures name every cell, stack, and stand on white as files", () => {
  const { maps } = reportOf(["a", "b"], [[0.25, -2]]);
  const picture = patchingPicture(maps[0]!);
  expect(picture.content.match(/<title>layer 0, [ab]: -?[\d.]+<\/title>/g)).toEqual([
    "<title>layer 0, a: 0.2500</title>",
    "<title>layer 0, b: -2.0000</title>",
  ]);
  const two = patchingPictures([maps[0]!, maps[0]!]);
  expect(two.height).toBe(2 * picture.height);
  expect(pictureFile(two)).toContain('fill="#fff"');
  for (const [, opacity] of two.content.matchAll(/fill-opacity="([\d.]+)"/g))
    expect(Number(opacity)).toBeLessThanOrEqual(0.9);
});

const hostile = reportOf(hostileTokens, [hostileTokens.map((_, i) => i / 6 - 1), hostileTokens.map(() => 0)]);

test("hostile tokens are harmless on a terminal, in pictures and in a page", () => {
  const html = patchingHtml(hostile);
  const svg = pictureFile(patchingPictures(hostile.maps));
  for (const shown of [patchingText(hostile, { colour: false, width: 80 }), svg, html]) {
    expect(shown).not.toContain("\u001b");
    expect(shown).not.toContain("\u202e");
    expect(shown).not.toContain("\u0000");
  }
  for (const markup of [html, svg]) expect(markup).not.toMatch(/<(script|img|b)\b/);
  expect(html.match(/<style>/g)).toHaveLength(1);
  expect(html).not.toContain("style=");
  expect(html).toContain("default-src 'none'; style-src 'sha256-");
});

test.skipIf(chromium === undefined)("a browser runs nothing of it", () => {
  const dom = domOf(patchingHtml(hostile));
  expect(dom).toContain("<title>Patching &lt;script&gt;");
  expect(dom).not.toMatch(/<(script|img)\b/);
  expect(dom.match(/<rect /g)!.length).toBe(2 * hostileTokens.length);
});
