import { expect, test } from "vitest";
import { FeatureCollector } from "../../lib/features/featureCollector.js";
import type { FeatureReport } from "../../lib/features/report.js";
import { featureReportText } from "../../lib/features/reportText.js";
import { statisticsLatents } from "../../lib/features/statisticsLatents.js";
import { hostileReport, signedReport } from "./hostileReport.js";

const ESCAPE = "\u001b";
const ANSI = new RegExp(`${ESCAPE}\\[[0-9;]*m`, "g");

const words = ["The", " cat", " sat", " on", " the", " mat", ".", " It", " slept"];

function smallReport(): FeatureReport {
  const collector = new FeatureCollector(1);
  const values = [0, 9, 1, 0, 0, 6, 0, 0, 0];
  const active = values.flatMap((value, position) => (value > 0 ? [{ value, position }] : []));
  collector.addContext(
    { tokens: Int32Array.from(words.keys()), positions: Int32Array.from(words.keys()) },
    {
      rowOffsets: Float64Array.from({ length: 10 }, (_, row) => active.filter(({ position }) => position < row).length),
      features: new Uint32Array(active.length),
      values: Float32Array.from(active, ({ value }) => value),
    },
    0,
  );
  const statistics = collector.statistics();
  return {
    title: "",
    facts: [],
    summary: [{ name: "L0", value: "0.33", meaning: "" }],
    densities: statistics,
    latents: [0],
    latent: statisticsLatents(statistics),
    tokenText: (id) => words[id]!,
  };
}

test("without colour, strongly active tokens stand in brackets and weakly active ones do not", async () => {
  const text = await featureReportText(smallReport(), { colour: false, width: 80, examples: 3 });
  expect(text).toBe(
    ["L0 0.33", "", "latent 0  fires on 33% of tokens", "    9.00  The [cat] sat on the [mat]. It slept", ""].join(
      "\n",
    ),
  );
});

test("an activation that is small is told from none", async () => {
  const report = smallReport();
  const latent = async (index: number) => {
    const found = await report.latent(index);
    const small = found.examples.map((example) => ({
      ...example,
      activation: example.activation / 1e4,
      activations: example.activations.map((value) => value / 1e4),
    }));
    return { ...found, maxActivation: found.maxActivation / 1e4, examples: small };
  };
  const text = await featureReportText({ ...report, latent }, { colour: false, width: 80, examples: 3 });
  expect(text).toContain(" 9.0e-4  The [cat] sat on the [mat].");
});

test("with colour, active tokens have a background that grows with the activation", async () => {
  const text = await featureReportText(smallReport(), { colour: true, width: 80, examples: 3 });
  expect(text).toContain("\u001b[38;5;16;48;5;202m cat\u001b[0m\u001b[38;5;16;48;5;230m sat\u001b[0m on");
  expect(text.replace(ANSI, "")).toContain("    9.00  The cat sat on the mat. It slept");
});

test("negative activations have examples of their own, in braces or on another background", async () => {
  const text = await featureReportText(signedReport(), { colour: false, width: 80, examples: 1 });
  expect(text.trimStart()).toBe(
    [
      "latent 0  fires on 29% of tokens, from -9.00 to 6.00",
      "    6.00  The {cat} sat on the [mat].",
      "   -9.00  The {cat} sat on the [mat].",
      "",
    ].join("\n"),
  );
  const coloured = await featureReportText(signedReport(), { colour: true, width: 80, examples: 1 });
  expect(coloured).toContain("\u001b[38;5;16;48;5;39m cat\u001b[0m sat");
});

test("a line keeps to the width and holds the peak", async () => {
  for (const width of [20, 24, 30, 41]) {
    const text = await featureReportText(smallReport(), { colour: false, width, examples: 1 });
    const line = text.split("\n").at(-2)!;
    expect(line.length).toBeLessThanOrEqual(width);
    expect(line).toContain("[cat]");
  }
});

test("a token of spaces alone is seen among those that a latent raises", async () => {
  const report = smallReport();
  const texts = [" cat", " ", "\n", "  "];
  const raised = texts.map((_, token) => ({ token, effect: 4 - token }));
  const histogram = { firstEdge: 0, binWidth: 1, counts: [4] };
  const withLogits: FeatureReport = {
    ...report,
    latent: async (latent) => ({
      ...(await report.latent(latent)),
      examples: [],
      logits: { raised, lowered: [], histogram },
    }),
    tokenText: (id) => texts[id]!,
  };
  const text = await featureReportText(withLogits, { colour: false, width: 80, examples: 3 });
  expect(text).toContain('\n  raises  cat  " "  ↵  "  "\n');
});

test("hostile tokens cannot send a control sequence of their own, with or without colour", async () => {
  for (const colour of [false, true]) {
    const text = await featureReportText(hostileReport(), { colour, width: 100, examples: 6 });
    const rest = text.replace(ANSI, "").replaceAll("\n", "");
    expect(rest).not.toMatch(/[\p{C}\p{Zl}\p{Zp}]/u);
    if (!colour) expect(text).not.toContain("\u001b");
  }
});

test("a crosscoder's decoder norms stand under the latent, hostile hook names made harmless", async () => {
  const report = hostileReport();
  const decoderNorms = [
    { hook: "blocks.1.hook_resid_post", norm: 0.25 },
    { hook: "<b>\u001b[2J", norm: 1.5 },
  ];
  const crosscoder: FeatureReport = {
    ...report,
    latent: async (latent) => ({ ...(await report.latent(latent)), decoderNorms }),
  };
  const text = await featureReportText(crosscoder, { colour: false, width: 80, examples: 1 });
  expect(text).toContain("  decoder norm 0.25 at blocks.1.hook_resid_post\n  decoder norm 1.50 at <b>\\u{1b}[2J\n");
});
