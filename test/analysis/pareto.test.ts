import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { paretoFront, qualitiesOf, type SweepPoint } from "../../lib/analysis/pareto.js";
import { paretoHtml } from "../../lib/analysis/paretoPage.js";
import { paretoSvg } from "../../lib/analysis/paretoPicture.js";
import { paretoText } from "../../lib/analysis/paretoText.js";
import { hostileTokens } from "../features/hostileReport.js";

function point(l0: number, explainedVariance: number, rest: Partial<SweepPoint> = {}): SweepPoint {
  return { name: `${l0}/${explainedVariance}`, architecture: "topk", dSae: 64, l0, explainedVariance, ...rest };
}

describe("the Pareto front", () => {
  test("is what no other point beats, whatever the order; equal points do not beat each other", () => {
    const l0s = fc.constantFrom(0, 1, 2, 3.5);
    const qualities = fc.constantFrom(-0.5, 0, 0.5, 1);
    fc.assert(
      fc.property(fc.array(fc.tuple(l0s, qualities), { maxLength: 12 }), (pairs) => {
        const points = pairs.map(([l0, quality]) => point(l0, quality));
        const beaten = (p: SweepPoint): boolean =>
          points.some(
            (q) =>
              q.l0 <= p.l0 &&
              q.explainedVariance >= p.explainedVariance &&
              (q.l0 < p.l0 || q.explainedVariance > p.explainedVariance),
          );
        const front = paretoFront(points, "explainedVariance");
        const useful = points.filter(({ explainedVariance }) => explainedVariance > 0);
        expect(new Set(front)).toEqual(new Set(useful.filter((p) => !beaten(p))));
        expect(front).toHaveLength(new Set(front).size);
      }),
    );
  });

  test("names an SAE that has diverged by the magnitude", () => {
    expect(paretoText([point(2, -9.43e12)])).toContain(" -9.4e+14%");
    expect(paretoText([point(2, -0.5)])).toContain(" -50.00%");
  });

  test("has no SAE that reconstructs no better than the mean activation, alone at its L0 or not, and says so", () => {
    const diverged = point(0, -480, { name: "diverged", lossRecovered: 0.5 });
    const mean = point(1, 0, { name: "mean", lossRecovered: 0.1 });
    const good = point(8, 0.9, { name: "good", lossRecovered: 0.4 });
    for (const quality of ["explainedVariance", "lossRecovered"] as const) {
      expect(paretoFront([diverged, mean, good], quality)).toEqual([good]);
      expect(paretoFront([diverged], quality)).toEqual([]);
    }
    const table = paretoText([diverged, mean, good]).split("\n");
    expect(table.filter((line) => line.includes(" *"))).toEqual([expect.stringMatching(/^good /)]);
    const explanation = "; what reconstructs no better than the mean activation is never marked";
    expect(table.at(-2)!.endsWith(explanation)).toBe(true);
    expect(paretoHtml({ title: "t", facts: [], points: [diverged, good] })).toContain(explanation);
    expect(paretoText([good])).not.toContain("never marked");
  });

  test("a quality counts only where all have it", () => {
    expect(qualitiesOf([point(1, 0.5, { lossRecovered: 0.9 }), point(2, 0.6)])).toEqual(["explainedVariance"]);
    expect(qualitiesOf([point(1, 0.5, { lossRecovered: 0.9 })])).toEqual(["lossRecovered", "explainedVariance"]);
  });
});

const sweep = [
  point(32, 0.8, { name: "k32", lossRecovered: 0.97 }),
  point(8, 0.6, { name: "k8", lossRecovered: 0.9 }),
  point(40, 0.7, { name: "l1", architecture: "relu", lossRecovered: 0.98 }),
];

test("the table is sorted by L0 and marks each column's front", () => {
  expect(paretoText(sweep)).toBe(
    [
      "SAE  architecture  latents    L0  loss recovered    explained variance",
      "k8   topk               64   8.0          90.00% *              60.00% *",
      "k32  topk               64  32.0          97.00% *              80.00% *",
      "l1   relu               64  40.0          98.00% *              70.00%",
      "* no other SAE has as low an L0 and as much loss recovered or explained variance",
      "",
    ].join("\n"),
  );
});

describe("SAEs at different places in a model", () => {
  const at = (layer: number, l0: number, quality: number, rest: Partial<SweepPoint> = {}): SweepPoint => {
    const hook = `blocks.${layer}.hook_resid_post`;
    return point(l0, quality, { name: `${layer}/${l0}`, hooks: { input: [hook], output: [hook] }, ...rest });
  };
  const transcoder = at(1, 9, 0.1, {
    name: "t",
    hooks: { input: ["blocks.1.hook_resid_post"], output: ["blocks.1.hook_mlp_out"] },
  });
  const points = [at(1, 8, 0.9), at(1, 16, 0.8), at(2, 9, 0.5), at(2, 4, 0.4), transcoder];

  test("are not compared: each hook, each target and each model has its front", () => {
    expect(paretoFront(points, "explainedVariance").map(({ name }) => name)).toEqual(["2/4", "1/8", "2/9", "t"]);
    const models = [point(1, 0.9, { modelName: "a" }), point(2, 0.1, { modelName: "b" })];
    expect(paretoFront(models, "explainedVariance")).toHaveLength(2);
  });

  test("stand together in the table, which names the hook", () => {
    expect(paretoText(points)).toBe(
      [
        "SAE   hook                                              architecture  latents    L0  explained variance",
        "1/8   blocks.1.hook_resid_post                          topk               64   8.0              90.00% *",
        "1/16  blocks.1.hook_resid_post                          topk               64  16.0              80.00%",
        "t     blocks.1.hook_resid_post → blocks.1.hook_mlp_out  topk               64   9.0              10.00% *",
        "2/4   blocks.2.hook_resid_post                          topk               64   4.0              40.00% *",
        "2/9   blocks.2.hook_resid_post                          topk               64   9.0              50.00% *",
        "* no other SAE at the same hook has as low an L0 and as much explained variance",
        "",
      ].join("\n"),
    );
    const html = paretoHtml({ title: "", facts: [], points });
    expect(html).toContain('<th scope="col" class="name">hook</th>');
    expect(html.match(/<td class="best">/g)).toHaveLength(4);
    expect(html).toContain("no other SAE at the same hook has");
  });

  test("have lines of their own in the picture", () => {
    const svg = paretoSvg(points);
    expect(svg.match(/stroke-opacity="\.45"/g)).toHaveLength(3);
    expect(svg).toContain(">topk, blocks.2.hook_resid_post</text>");
    expect(svg.match(/\(dominated\)/g)).toHaveLength(1);
    expect(svg).toContain("<title>1/16: L0 16.0, explained variance 80.00% (dominated)</title>");
    const long = "x".repeat(100);
    const alike = [at(1, 1, 0.5, { architecture: `${long}a` }), at(1, 2, 0.6, { architecture: `${long}b` })];
    expect(paretoSvg(alike).match(/stroke-opacity="\.45"/g)).toHaveLength(2);
  });
});

const hostile = hostileTokens.map((name, index) =>
  point(index + 1, index / 10, {
    name,
    architecture: `${name}${index}`,
    hooks: { input: [name], output: [`${name}${index % 2}`] },
    lossRecovered: 0.5,
  }),
);

describe("the picture", () => {
  test("has a symbol and a title for each SAE in each panel, dominated ones pale", () => {
    const svg = paretoSvg(sweep);
    expect(svg.match(/<title>/g)).toHaveLength(6);
    expect(svg.match(/\(dominated\)/g)).toHaveLength(1);
    expect(svg).toContain("<title>l1: L0 40.0, explained variance 70.00% (dominated)</title>");
    expect(svg).toContain(">loss recovered</text>");
    expect(paretoSvg(sweep.map(({ lossRecovered: _, ...rest }) => rest))).not.toContain("loss recovered");
  });

  test("has finite coordinates for one SAE, equal ones, an L0 of 0, and qualities far below 0", () => {
    for (const points of [
      [point(5, 0.5)],
      [point(5, 0.5), point(5, 0.5)],
      [point(0, 0)],
      [point(0, -30), point(700, 1)],
      [point(0.03, 0.2), point(2000, 0.9)],
    ]) {
      const svg = paretoSvg(points);
      expect(svg).not.toMatch(/NaN|Infinity|undefined/);
      expect(svg.match(/<title>/g)).toHaveLength(points.length);
      // two labels at least on either axis
      expect(svg.match(/text-anchor="end">-?[\d.]+%</g)!.length).toBeGreaterThanOrEqual(2);
    }
  });

  test("has three to eight ticks at round numbers along the L0, whatever it spans", () => {
    const ticksOf = (low: number, high: number): readonly number[] => {
      const svg = paretoSvg([point(low, 0.5), point(high, 0.6)]);
      return [...svg.matchAll(/text-anchor="middle">([\d.]+)</g)].map(([, tick]) => Number(tick));
    };
    expect(ticksOf(8, 32)).toEqual([7, 10, 15, 20, 30]);
    expect(ticksOf(10, 1000)).toEqual([10, 20, 50, 100, 200, 500, 1000]);
    expect(ticksOf(0.1, 10_000)).toEqual([0.1, 1, 10, 100, 1000, 10_000]);
    const logarithms = fc.double({ min: -2, max: 4, noNaN: true });
    fc.assert(
      fc.property(logarithms, logarithms, (a, b) => {
        const ticks = ticksOf(10 ** Math.min(a, b), 10 ** Math.max(a, b));
        expect(ticks.length).toBeGreaterThanOrEqual(3);
        expect(ticks.length).toBeLessThanOrEqual(8);
      }),
    );
  });

  test("explains filled and hollow only where SAEs are compared", () => {
    expect(paretoSvg(sweep)).toContain(">hollow: another one is<");
    expect(paretoSvg(sweep.slice(0, 1))).not.toMatch(/>(filled|hollow)/);
    expect(paretoHtml({ title: "", facts: [], points: sweep.slice(0, 1) })).not.toMatch(/class="best"/);
  });

  test("lets no name out of its text, and needs no style but attributes", () => {
    const svg = paretoSvg(hostile);
    expect(svg.replaceAll("\n", "")).not.toMatch(/[\p{C}\p{Zl}\p{Zp}]/u);
    const names = [...svg.matchAll(/<\/?([a-zA-Z][^\s/>]*)/g)].map(([, name]) => name);
    expect([...new Set(names)].sort()).toEqual(["path", "rect", "svg", "text", "title"]);
    for (const [, attributes] of svg.matchAll(/<[a-z]+([^>]*)>/g)) {
      expect(attributes!.replace(/"[^"]*"/g, '""')).not.toMatch(/\b(on\w+|style|href|class)\s*=/i);
    }
  });
});

test("the page shows picture and table under a policy that allows nothing else, whatever the names are", () => {
  const html = paretoHtml({ title: "<script>", facts: [["<b>", "</style>"]], points: [...sweep, ...hostile] });
  expect(html).toContain("default-src 'none'; style-src 'sha256-");
  expect(html.replaceAll("\n", "")).not.toMatch(/[\p{C}\p{Zl}\p{Zp}]/u);
  expect(html).not.toMatch(/<(script|img|iframe|link)/i);
  expect(html).toContain("<span>&lt;b&gt; <b>&lt;/style&gt;</b></span>");
  expect(html).not.toContain("o".repeat(100));
  expect(html.match(/<style>/g)).toHaveLength(1);
  expect(html.match(/<tr>/g)).toHaveLength(1 + sweep.length + hostile.length);
  expect(html).toContain('<td class="best">98.00%</td>');
  // words are not broken to make columns fit: the table scrolls instead
  expect(html).toMatch(/th,td\{[^}]*white-space:nowrap\}/);
  expect(html).toMatch(/\.table\{overflow-x:auto/);
  const open: string[] = [];
  for (const [tag, closing, name] of html.matchAll(/<(\/?)([a-z][a-z0-9]*)[^>]*>/g)) {
    if (closing === "/") expect(open.pop()).toBe(name);
    else if (name !== "meta" && !tag.endsWith("/>")) open.push(name!);
  }
  expect(open).toEqual([]);
});
