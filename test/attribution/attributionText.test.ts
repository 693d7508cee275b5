import { expect, test } from "vitest";
import { attributionHtml } from "../../lib/attribution/attributionPage.js";
import { attributionText } from "../../lib/attribution/attributionText.js";

const facts = [
  ["score", "1"],
  ["measure", "evil\u001b[2J\u202e"],
] as const;
const players = [
  { label: "up", value: 2, standardError: 0.25 },
  { label: "down\u001b[31m", value: -1, standardError: 0.1 },
  { label: "x".repeat(100), value: 0, standardError: 0 },
];

test("values are aligned, bars as long as they are large, labels cut and harmless", () => {
  const lines = attributionText({ facts, players }, { colour: false }).split("\n");
  expect(lines[0]).toBe("score    1");
  expect(lines[1]).toBe("measure  evil\\u{1b}[2J\\u{202e}");
  expect(lines[3]).toBe(`+2.0000 ± 0.2500  ${"█".repeat(24)}  up`);
  expect(lines[4]).toBe(`-1.0000 ± 0.1000  ${"░".repeat(12)}${" ".repeat(12)}  down\\u{1b}[31m`);
  expect(lines[5]).toBe(`+0.0000 ± 0.0000  ${" ".repeat(24)}  ${"x".repeat(48)}…`);
});

test("in colour, what raises the score is orange and what lowers it blue, and nothing else is coloured", () => {
  const text = attributionText({ facts, players }, { colour: true });
  expect(text).toContain(`\u001b[38;5;208m${"█".repeat(24)}\u001b[0m`);
  expect(text).toContain(`\u001b[38;5;39m${"░".repeat(12)}\u001b[0m`);
  expect(text.split("\u001b")).toHaveLength(5);
});

test("players that do nothing have no bars, an unknown error is not shown, no players are no rows", () => {
  const idle = [{ label: "a", value: 0, standardError: Number.NaN }];
  expect(attributionText({ facts, players: idle }, { colour: true })).toMatch(/\n\+0\.0000 +a\n$/);
  expect(attributionText({ facts, players: [] }, { colour: false })).toContain("score");
});

test("the page shades the text, draws bars to both sides, and takes nothing of a hostile label as markup", () => {
  const hostile = "<img src=x onerror=alert(1)>\u202e";
  const text = [
    { label: hostile, value: 2 },
    { label: "<b>", value: -1 },
    { label: "idle", value: 0 },
  ];
  const html = attributionHtml({ title: hostile, facts: [[hostile, hostile]], players: text, text });
  expect(html).not.toMatch(/<(img|b)[ >]/);
  expect(html).toContain("&lt;img src=x onerror=alert(1)&gt;\\u{202e}");
  expect(html).toMatch(/<bdi class="a10" title="\+2\.0000">&lt;img/);
  expect(html).toMatch(/<bdi class="n5" title="-1\.0000">&lt;b&gt;<\/bdi>/);
  expect(html).toMatch(/<bdi class="a0" title="\+0\.0000">idle/);
  expect(html).toContain('<rect class="raises" x="100.00" y="1" width="100.00" height="10"/>');
  expect(html).toContain('<rect class="lowers" x="50.00" y="1" width="50.00" height="10"/>');
  const latents = attributionHtml({ title: "t", facts: [], players });
  expect(latents).not.toContain('class="prompt');
  expect(latents).toContain("+2.0000 ± 0.2500");
});
