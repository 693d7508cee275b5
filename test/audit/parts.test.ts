import { writeFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { expect, onTestFinished, test } from "vitest";
import { auditHtml } from "../../lib/audit/auditPage.js";
import { type AuditReport, auditJson, counted, figureText, median, named } from "../../lib/audit/auditReport.js";
import { auditText } from "../../lib/audit/auditText.js";
import { commonTokens, counterfactualPairs } from "../../lib/audit/counterfactualEdits.js";
import { connected, phi } from "../../lib/audit/fragmentation.js";
import { readPairs } from "../../lib/audit/pairFile.js";
import { chromium, domOf } from "../analysis/browser.js";

test("edits leave texts alone to which they do not apply, and change only what they say", () => {
  const edits = (text: string) =>
    Object.fromEntries(counterfactualPairs(text, 1, 2).map(({ edit, edited }) => [edit, edited]));
  const all = edits("Tom and Tom saw 17 dogs and 204 cats.");
  expect(Object.keys(all)).toEqual(["a sentence in front", "another name", "other numbers", "the first letter's case"]);
  const [first, second] = /^(\w+) and (\w+) saw 17 dogs and 204 cats\.$/.exec(all["another name"]!)!.slice(1);
  expect(first).toBe(second);
  expect(first).not.toBe("Tom");
  const digits = /^Tom and Tom saw (\d\d) dogs and (\d{3}) cats\.$/.exec(all["other numbers"]!)!.slice(1).join("");
  for (const [i, digit] of [..."17204"].entries()) expect(digits[i]).not.toBe(digit);
  expect(digits).not.toContain("0");
  expect(all["the first letter's case"]).toBe("tom and Tom saw 17 dogs and 204 cats.");
  expect(all["a sentence in front"]!.endsWith(". Tom and Tom saw 17 dogs and 204 cats.")).toBe(true);
  expect(Object.keys(edits("nobody was there"))).toEqual(["a sentence in front", "the first letter's case"]);
  expect(edits("Tomorrow")["another name"]).toBeUndefined();
});

test("tokens in common are a longest common subsequence", () => {
  expect(commonTokens([1, 2, 3, 4], [9, 1, 3, 4])).toEqual([
    [0, 1],
    [2, 2],
    [3, 3],
  ]);
  const longest = (a: readonly number[], b: readonly number[]): number =>
    a.length === 0 || b.length === 0
      ? 0
      : a[0] === b[0]
        ? 1 + longest(a.slice(1), b.slice(1))
        : Math.max(longest(a.slice(1), b), longest(a, b.slice(1)));
  const tokens = fc.array(fc.integer({ min: 0, max: 3 }), { maxLength: 7 });
  fc.assert(
    fc.property(tokens, tokens, (a, b) => {
      const pairs = commonTokens(a, b);
      expect(pairs).toHaveLength(longest(a, b));
      for (const [index, [i, j]] of pairs.entries()) {
        expect(a[i]).toBe(b[j]);
        if (index > 0) expect(i > pairs[index - 1]![0] && j > pairs[index - 1]![1]).toBe(true);
      }
    }),
  );
});

test("phi is Pearson's correlation of the two events", () => {
  expect(phi([0, 2, 4], [0, 2, 4], 6)).toBeCloseTo(1, 12);
  expect(phi([0, 2, 4], [1, 3, 5], 6)).toBeCloseTo(-1, 12);
  expect(phi([0, 1], [0, 2], 4)).toBeCloseTo(0, 12);
  expect(phi([0, 1, 2], [0, 1, 2], 3)).toBe(0);
  expect(phi([], [1], 3)).toBe(0);
});

test("clusters are connected components", () => {
  const pairs = [
    [5, 6],
    [1, 2],
    [2, 9],
    [6, 7],
    [9, 1],
  ].map(([first, second]) => ({ first: first!, second: second! }));
  expect(connected(pairs)).toEqual([
    [1, 2, 9],
    [5, 6, 7],
  ]);
  expect(connected([])).toEqual([]);
});

test("numbers are short", () => {
  expect([0.94321, null, 0].map((value) => figureText(value, "share"))).toEqual(["94.3%", "-", "0.0%"]);
  expect([0.0021049, 0, 12].map((value) => figureText(value, "number"))).toEqual(["0.0021", "0", "12"]);
  expect([median([3, 1, 2]), median([4, 1]), median([])]).toEqual([2, 2.5, null]);
});

test("one thing is in the singular", () => {
  expect([0, 1, 2].map((count) => counted(count, "pair"))).toEqual(["0 pairs", "1 pair", "2 pairs"]);
  expect([1, 2].map((count) => named(count, "stretch", "stretches"))).toEqual(["stretch", "stretches"]);
});

test("pairs are read, and lines that are none are named", async () => {
  const folder = await mkdtemp(join(tmpdir(), "monosem-audit-"));
  onTestFinished(() => rm(folder, { recursive: true, force: true }));
  const path = join(folder, "pairs.jsonl");
  writeFileSync(path, '{"original":"a","edited":"b","edit":"mine"}\n\n{"original":"c","edited":"d"}\n');
  expect(await readPairs(path)).toEqual([
    { original: "a", edited: "b", edit: "mine" },
    { original: "c", edited: "d", edit: "given pairs" },
  ]);
  writeFileSync(path, '{"original":"a","edited":"b"}\n{"original":"a"}\n');
  await expect(readPairs(path)).rejects.toThrow(`${path}:2 should be a JSON object with texts`);
  writeFileSync(path, "{\n");
  await expect(readPairs(path)).rejects.toMatchObject({ code: "ERR_FORMAT" });
  await expect(readPairs(join(folder, "none.jsonl"))).rejects.toMatchObject({ code: "ERR_NOT_FOUND" });
});

const hostile = `</style><script>document.title="x"</script><img src=x onerror=x()>\u202e\u001b[2J`;

const report: AuditReport = {
  title: `Audit of ${hostile}`,
  facts: [["text", hostile]],
  sections: [
    {
      topic: "firing",
      title: "Dead and dense latents",
      definition: "What never fires. ".repeat(12).trim(),
      figures: [
        {
          name: "dead",
          value: 0.125,
          unit: "share",
          baseline: { name: "chance", value: 0.5 },
          sample: { count: 1000, of: "latents" },
        },
        {
          name: `edit ${hostile}`,
          value: null,
          unit: "number",
          baseline: { name: "none", value: null },
          sample: { count: 0, of: "tokens" },
        },
      ],
      cases: [`latent 3 on ${hostile}`],
      data: { dead: [1] },
    },
    {
      topic: "absorption",
      title: "Absorption",
      definition: "d",
      figures: [],
      cases: [],
      notMeasured: hostile,
      data: {},
    },
  ],
};

test("the text has every figure beside its baseline and its sample, in lines that fit, and nothing that moves the cursor", () => {
  const text = auditText(report, { width: 60 });
  expect(text).toMatch(/^ {2}dead +12\.5% +50\.0% {2}chance +1000 latents$/m);
  expect(text).toContain("not measured:");
  expect(text).not.toContain("\u001b");
  expect(text).not.toContain("\u202e");
  const definition = text.split("\n").filter((line) => line.includes("What never fires."));
  expect(definition.length).toBeGreaterThan(2);
  for (const line of definition) expect(line.length).toBeLessThanOrEqual(60);
  expect(JSON.parse(auditJson(report)).sections[0].data).toEqual({ dead: [1] });
});

test("the page holds nothing of unknown origin as markup", () => {
  const page = auditHtml(report);
  expect(page).not.toContain("<script");
  expect(page).not.toContain("<img");
  expect(page).toContain("Content-Security-Policy");
});

test.skipIf(chromium === undefined)("a browser shows it as text and runs nothing of it", () => {
  const dom = domOf(auditHtml(report));
  expect(dom).toContain("<title>Audit of &lt;/style&gt;");
  expect(dom).not.toContain("<script");
  expect(dom).toContain('<td class="number">12.5%</td>');
});
