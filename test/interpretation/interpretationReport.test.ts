import { expect, test } from "vitest";
import type { Interpretation } from "../../lib/interpretation/interpret.js";
import { interpretationHtml } from "../../lib/interpretation/interpretationPage.js";
import { type InterpretationReport, interpretationJson } from "../../lib/interpretation/interpretationReport.js";
import { interpretationText } from "../../lib/interpretation/interpretationText.js";
import { chromium, domOf } from "../analysis/browser.js";
import { hostileTokens } from "../features/hostileReport.js";

const evil = "<img src=x onerror=alert(1)>\u001b[2J\u202e\u009b31m'\"&\nEND";

const hostile: Interpretation = {
  latent: 7,
  activeWindows: { train: 30, test: 40 },
  explanation: { name: evil, explanation: `${evil} ${"word ".repeat(40)}`, confidence: 0.25 },
  scores: {
    detection: {
      score: 0.75,
      truePositives: 7,
      falseNegatives: 2,
      trueNegatives: 6,
      falsePositives: 4,
      unanswered: { positive: 1, negative: 0 },
      noAnswers: { "not JSON": 1 },
    },
    surprisal: { score: 0.6, activeReduction: 0.5, silentReduction: -0.25, isCut: true },
  },
  unscored: { fuzzing: "only 3 different active windows of the documents to test on" },
  examples: hostileTokens.map((_, token) => ({
    document: token,
    start: 0,
    tokens: Int32Array.of(token, 0),
    activations: Float32Array.of(2, 0),
    peak: 2,
  })),
};

const report: InterpretationReport = {
  title: `Latents ${evil}`,
  facts: [["judge", evil]],
  interpretations: [
    hostile,
    { ...hostile, latent: 8, explanation: undefined, unexplained: evil, scores: {}, unscored: {} },
  ].map(({ explanation, ...rest }) => (explanation === undefined ? rest : { ...rest, explanation })),
  leftOut: [9, 10],
  scorers: ["detection", "fuzzing", "surprisal"],
  activity: {
    answered: 5,
    cached: 2,
    repeated: 1,
    failed: 0,
    usage: { inputTokens: 900, outputTokens: 100 },
    cost: 0.0125,
  },
  tokenText: (id) => hostileTokens[id]!,
};

test("what a judge or a text says is inert on a terminal, in a page and in JSON", () => {
  const text = interpretationText(report, { colour: false, width: 80, examples: 20 });
  expect(text.replaceAll("\n", "")).not.toMatch(/[\p{C}\p{Zl}\p{Zp}]/u);
  const html = interpretationHtml(report);
  expect(html.replaceAll("\n", "")).not.toMatch(/[\p{C}\p{Zl}\p{Zp}]/u);
  const tags = new Set([...html.matchAll(/<\/?([a-zA-Z][^\s/>]*)/g)].map(([, name]) => name!.toLowerCase()));
  for (const forbidden of ["script", "img", "svg", "iframe", "link", "base", "form"]) {
    expect(tags.has(forbidden), forbidden).toBe(false);
  }
  for (const [, attributes] of html.matchAll(/<[a-zA-Z][^\s/>]*([^>]*)>/g)) {
    expect(attributes!.replace(/"[^"]*"/g, '""')).not.toMatch(/\b(on\w+|style|src|action)\s*=/i);
  }
  expect(html).toContain("Content-Security-Policy");
  const json = interpretationJson(report);
  expect(json).not.toMatch(/[\p{C}\p{Zl}\p{Zp}<]/u);
  expect(JSON.parse(json).latents[0].explanation.name).toBe(evil);
});

test("scores, what was not answered, why there is no score, what was left out and paid are all said", () => {
  const text = interpretationText(report, { colour: false, width: 80, examples: 1 });
  expect(text).toMatch(/^detection 0\.75 \(1 latent\) {3}surprisal 0\.60 \(1 latent\)\n/);
  expect(text).toContain("5 requests answered, 2 from the cache, 1 repeated, 900 + 100 tokens, cost 0.0125\n");
  expect(text).toContain("  detection   0.75  7/9 yes and 6/10 no right, 1 unanswered (replies: not JSON 1)\n");
  expect(text).toContain("  fuzzing        -  only 3 different active windows of the documents to test on\n");
  expect(text).toContain("  surprisal   0.60  loss falls by 0.50 where active, -0.25 where not, explanation cut\n");
  expect(text).toContain("latent 8  not explained\n");
  expect(text).toMatch(/left out, as the cap was reached: latents 9, 10\n$/);
  const html = interpretationHtml(report);
  for (const part of [
    "6/10 no right, 1 unanswered (replies: not JSON 1)",
    "only 3 different active",
    "latents 9, 10",
    "cost 0.0125",
  ]) {
    expect(html).toContain(part);
  }
  const words = text.split("\n").filter((line) => line.includes("word"));
  expect(words.length).toBeGreaterThan(2);
  for (const line of words) expect(line.length).toBeLessThanOrEqual(80);
});

test("every tag of the page that opens is closed, in order", () => {
  const html = interpretationHtml(report);
  const open: string[] = [];
  for (const [, closing, name] of html.matchAll(/<(\/?)([a-z][a-z0-9]*)[^>]*>/g)) {
    if (closing === "/") expect(open.pop()).toBe(name);
    else if (name !== "meta") open.push(name!);
  }
  expect(open).toEqual([]);
});

test.skipIf(chromium === undefined)("a browser shows what the judge says as text", () => {
  const dom = domOf(interpretationHtml(report));
  expect(dom).toContain("<title>Latents &lt;img src=x");
  expect(dom).not.toMatch(/<(script|img)\b/);
});
