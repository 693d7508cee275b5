import { createHash } from "node:crypto";
import { expect, test } from "vitest";
import { measureSuperposition } from "../../lib/toy/superpositionMeasures.js";
import { superpositionModelPicture } from "../../lib/toy/superpositionModelPicture.js";
import { phaseDiagramPageHtml, superpositionPageHtml } from "../../lib/toy/superpositionPage.js";
import { phaseDiagramPicture } from "../../lib/toy/superpositionPhasePicture.js";
import type { PhaseDiagram } from "../../lib/toy/superpositionPhases.js";
import { logarithmicTicks, pictureFile, superpositionColour } from "../../lib/toy/superpositionPicture.js";
import {
  geometryText,
  modelPictures,
  type SuperpositionEntry,
  type SuperpositionReport,
  summaryRows,
  sweepPictures,
} from "../../lib/toy/superpositionReport.js";

function entry(sparsity: number, vectors: readonly (readonly number[])[], importance = "0.9^i"): SuperpositionEntry {
  const [features, dimensions] = [vectors.length, vectors[0]!.length];
  const model = {
    features,
    dimensions,
    output: "relu" as const,
    sparsity,
    importance: vectors.map((_, i) => 0.9 ** i),
    weights: Float32Array.from(vectors.flat()),
    bias: Float32Array.from(vectors, (_, i) => (i - 1) / 10),
    loss: 0.125,
  };
  return { importance, model, measures: measureSuperposition(model) };
}

const plane = [
  [1, 0],
  [-1, 0],
  [0, 1],
];
const hostile = `<script>alert(1)</script>" onload='x' \u202e`;
const report: SuperpositionReport = {
  facts: [["model", hostile]],
  entries: [entry(0, plane), entry(0.9, plane, hostile), entry(0.99, plane, hostile)],
};
const diagram: PhaseDiagram = {
  dimensions: 1,
  relativeImportances: [0.1, 10],
  densities: [1, 0.01],
  theory: [
    ["not represented", "dedicated dimension"],
    ["superposition", "superposition"],
  ],
  theoreticalLosses: [
    [0.1, 0.1],
    [0.1, 0.1],
  ],
  trained: [
    [
      { phase: "not represented", norm: 0, superposition: 0, loss: 0.1 },
      { phase: "dedicated dimension", norm: 1, superposition: 0, loss: 0.1 },
    ],
    [
      { phase: "superposition", norm: 1, superposition: 1, loss: 0.1 },
      { phase: "superposition", norm: 1.2, superposition: 3, loss: 0.1 },
    ],
  ],
  agreement: 1,
};

const pages = { models: superpositionPageHtml(report), phases: phaseDiagramPageHtml(diagram, report.facts) };

test.each(Object.entries(pages))(
  "the page of %s allows its one style sheet only and holds nothing to run or load",
  (_, html) => {
    const style = html.match(/<style>([\s\S]*?)<\/style>/)![1]!;
    const hash = createHash("sha256").update(style).digest("base64");
    expect(html).toContain(
      `content="default-src 'none'; style-src 'sha256-${hash}'; base-uri 'none'; form-action 'none'"`,
    );
    const tags = [...html.matchAll(/<\/?([a-zA-Z][^\s/>]*)([^>]*)>/g)];
    for (const [, name, attributes] of tags) {
      expect(["script", "img", "iframe", "object", "link", "base", "form", "image", "use", "a"]).not.toContain(name);
      expect(attributes!.replace(/"[^"]*"/g, '""')).not.toMatch(/\b(on\w+|style|src|href)\s*=/i);
    }
    expect(html.replaceAll("\n", "").match(/[\p{C}\p{Zl}\p{Zp}]/u)).toBeNull();
    expect(html.match(/NaN|Infinity|undefined/)).toBeNull();
  },
);

test.each(Object.entries(pages))("every tag of the page of %s that opens is closed, in order", (_, html) => {
  const open: string[] = [];
  for (const [tag, closing, name] of html.matchAll(/<(\/?)([a-z][a-z0-9]*)[^>]*>/gi)) {
    if (closing === "/") expect(open.pop()).toBe(name);
    else if (name !== "meta" && !tag.endsWith("/>")) open.push(name!);
  }
  expect(open).toEqual([]);
});

test("the page shows the table, a picture of each model, and the two curves", () => {
  expect(pages.models).toContain("3 features in 2 dimensions");
  expect(pages.models.match(/<svg /g)).toHaveLength(1 + 3 + 2);
  expect(pages.models).toContain("<td>0.9</td>");
  expect(summaryRows(report)[0]).toEqual(["0", "0.9^i", "0.1250", "3.00", "0.667", "3", "1 ×1, 1/2 ×2"]);
  expect(pages.phases).toContain("agree at 100% of the points");
});

test("models of one sparsity are shown without curves", () => {
  const single: SuperpositionReport = { facts: [], entries: [entry(0.5, plane)] };
  expect(sweepPictures(single)).toEqual([]);
  expect(superpositionPageHtml(single).match(/<svg /g)).toHaveLength(1 + 1);
});

test("pictures are files of their own, with names that a file can have", () => {
  const pictures = [...modelPictures(report), ...sweepPictures(report), phaseDiagramPicture(diagram)];
  expect(new Set(pictures.map(({ name }) => name)).size).toBe(pictures.length);
  for (const picture of pictures) {
    expect(picture.name).toMatch(/^[\w.-]+$/);
    const file = pictureFile(picture);
    expect(file).toMatch(/^<svg xmlns="http:\/\/www\.w3\.org\/2000\/svg" viewBox="0 0 [\d.]+ [\d.]+" /);
    expect(file.endsWith("</svg>\n")).toBe(true);
    expect(file).not.toMatch(/NaN|Infinity|undefined|&(?!amp;|lt;|gt;|quot;|#39;)/);
  }
});

test("arrows, bars and heat map stand where the weights say", () => {
  const { model, measures } = entry(0.5, plane);
  const { content } = superpositionModelPicture(model, measures, { name: "m", title: "t" });
  // Room for 1.1: a unit is (150 / 2 - 9) / 1.1 = 60 from the middle (77, 121); up is positive.
  expect(content).toContain('<line x1="77" y1="121" x2="137" y2="121"');
  expect(content).toContain('<line x1="77" y1="121" x2="17" y2="121"');
  expect(content).toContain('<line x1="77" y1="121" x2="77" y2="61"');
  expect(content).toContain("<title>feature 1: |W| 1.000, superposition 1.000</title>");
  // WᵀW: ones on the diagonal in blue, -1 for the pair in red.
  expect(content.match(/<path fill="#2f6fd0" fill-opacity="1" d="(M[^M]*){3}"/g)).toHaveLength(1);
  expect(content.match(/<path fill="#d5493a" fill-opacity="1" d="(M[^M]*){2}"/g)).toHaveLength(1);
});

test("nothing represented, one feature, and many features can be drawn", () => {
  const nothing = entry(0.5, [
    [0, 0],
    [0, 0],
  ]);
  expect(nothing.measures.dimensionsPerFeature).toBe(Number.POSITIVE_INFINITY);
  const many = entry(
    0.9,
    Array.from({ length: 250 }, (_, i) => [Math.sin(i), Math.cos(i), i / 250]),
  );
  for (const entries of [[nothing, entry(0.9, plane)], [entry(0, [[1]])], [many]]) {
    const html = superpositionPageHtml({ facts: [], entries });
    expect(html.replaceAll("<td>Infinity</td>", "").match(/NaN|Infinity|undefined/)).toBeNull();
    expect(html.length).toBeLessThan(2_000_000);
  }
});

test("dimensionalities are counted by the arrangement that they are near", () => {
  expect(geometryText([0.5, 0.49, 0.4, 0.02, 0.9, 1, 0.37])).toBe("1 ×1, 1/2 ×2, 2/5 ×1, 3/8 ×1, 0 ×1, other ×1");
  expect(geometryText([])).toBe("");
});

test("colours run from blue to yellow and stay there; ticks are round numbers inside the axis", () => {
  expect(superpositionColour(0)).toBe("#3454be");
  expect(superpositionColour(0.5)).toBe("#cc4276");
  expect(superpositionColour(1)).toBe("#f6c43c");
  expect(superpositionColour(7)).toBe(superpositionColour(1));
  expect(logarithmicTicks(0.01, 1)).toEqual([0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1]);
  expect(logarithmicTicks(1, 1000)).toEqual([1, 10, 100, 1000]);
  expect(logarithmicTicks(1, 33)).toEqual([1, 2, 5, 10, 20]);
});
