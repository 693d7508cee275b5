import type { FeatureExample } from "../../lib/analysis/features.js";
import { FeatureCollector } from "../../lib/features/featureCollector.js";
import type { LatentRecord } from "../../lib/features/latentRecord.js";
import type { FeatureReport } from "../../lib/features/report.js";
import { statisticsLatents } from "../../lib/features/statisticsLatents.js";

/** Token texts that try to break out of a page or to take over a terminal. */
export const hostileTokens: readonly string[] = [
  "</script><img src=x onerror=\"document.title='owned'\">",
  "</style><style>*{display:none}</style>",
  "'\" onmouseover='document.title=1'",
  "\u001b[2J\u001b]0;owned\u0007",
  "\u202egnirts desrever",
  "\u0000\u0007\n\t",
  "<!-- --!> <![CDATA[",
  "&lt;b&gt;",
  `long${"o".repeat(5000)}ng`,
  `tower${"\u0301".repeat(40)}`,
  "\ud800",
  "\u200b\u2066\ufeff zero width",
  "👩‍👩‍👧‍👦🏴󠁧󠁢󠁥󠁮󠁧󠁿",
  "<iframe src=http://127.0.0.1:9/owned></iframe><link rel=stylesheet href=http://127.0.0.1:9/x.css>",
  "<script>document.title='owned'</script>",
  " plain",
];

const words = ["The", " cat", " sat", " on", " the", " mat", "."];

/** A report of one latent that is negative on " cat", positive on " mat". */
export function signedReport(): FeatureReport {
  const collector = new FeatureCollector(1);
  const values = [0, -9, 0, 0, 0, 6, 0];
  const active = values.flatMap((value, position) => (value === 0 ? [] : [{ value, position }]));
  collector.addContext(
    { tokens: Int32Array.from(words.keys()), positions: Int32Array.from(words.keys()) },
    {
      rowOffsets: Float64Array.from(
        { length: words.length + 1 },
        (_, row) => active.filter(({ position }) => position < row).length,
      ),
      features: new Uint32Array(active.length),
      values: Float32Array.from(active, ({ value }) => value),
    },
    0,
  );
  const statistics = collector.statistics();
  return {
    title: "",
    facts: [],
    summary: [],
    densities: statistics,
    latents: [0],
    latent: statisticsLatents(statistics),
    tokenText: (id) => words[id]!,
  };
}

/** A report of latents 0 and 1 of 3 over contexts made of such tokens, with a title and facts no better than they are. */
export function hostileReport(): FeatureReport {
  const collector = new FeatureCollector(3, { examplesPerLatent: 6 });
  const length = hostileTokens.length;
  for (let context = 0; context < 8; context++) {
    const rows = Array.from({ length }, (_, position) => (position + context) % length);
    collector.addContext(
      { tokens: Int32Array.from(rows), positions: Int32Array.from(rows.keys()) },
      {
        rowOffsets: Float64Array.from({ length: length + 1 }, (_, row) => 2 * row),
        features: Uint32Array.from({ length: 2 * length }, (_, entry) => entry % 2),
        values: Float32Array.from({ length: 2 * length }, (_, entry) => 0.5 + ((entry * 7 + context) % 12)),
      },
      0,
    );
  }
  const effects = hostileTokens.map((_, token) => ({ token, effect: 3 - token / 2 }));
  const histogram = { firstEdge: -1, binWidth: 0.5, counts: [1, 4, 0, 11] };
  const statistics = collector.statistics();
  return {
    title: "Features <script>document.title='owned'</script>",
    facts: [
      ["model", '"><svg onload=alert(1)>'],
      ["hook", "blocks.2.hook_resid_post\u202e"],
    ],
    summary: [
      { name: "loss recovered", value: "97.2%", meaning: "of the loss that zeroing the layer costs" },
      { name: "L0", value: "16.0", meaning: "latents active on a token" },
    ],
    densities: statistics,
    latents: [0, 1],
    latent: (latent) => ({
      ...statisticsLatents(statistics)(latent),
      logits: { raised: effects, lowered: [...effects].reverse(), histogram },
    }),
    prompts: [
      {
        text: hostileTokens.join(""),
        tokens: hostileTokens.map((_, token) => ({
          token,
          latents: token % 3 === 2 ? [] : [0, 1, 2].map((latent) => ({ latent, value: 1 + ((token + latent) % 5) })),
        })),
      },
      { text: hostileTokens[0]!, tokens: [{ token: 0, latents: [] }] },
    ],
    tokenText: (id) => hostileTokens[id]!,
  };
}

/** Everything that a pass over a corpus can tell about a latent, of hostile tokens. */
export function fullRecord(latent: number): LatentRecord {
  const length = hostileTokens.length;
  const example = (activation: number, context: number): FeatureExample => ({
    activation,
    context,
    position: 5,
    tokens: Int32Array.from({ length }, (_, index) => (index + context) % length),
    activations: Float32Array.from({ length }, (_, index) => (index === 5 ? activation : index === 7 ? 0.25 : 0)),
    peak: 5,
  });
  const effects = hostileTokens.slice(0, 10).map((_, token) => ({ token, effect: 2 - token / 4 }));
  return {
    latent,
    firingCount: 40,
    density: 0.004,
    maxActivation: 8,
    minActivation: -2,
    meanActivation: 3.5,
    histogram: { firstEdge: -2, binWidth: 0.5, counts: [2, 0, 1, 3, 0, 5, 9, 8, 5, 3, 2, 1, 0, 0, 0, 1] },
    positions: { first: 1, last: 63, atStart: 10, atEnd: 4 },
    examples: [example(8, 0), example(7.5, 3)],
    negativeExamples: [example(-2, 9)],
    quantiles: [
      { low: 4, high: 8, share: 0.25, examples: [example(6, 1), example(4.5, 2)] },
      { low: 0, high: 4, share: 0.5, examples: [example(1.5, 4)] },
      { low: -2, high: 0, share: 0.25, examples: [] },
    ],
    tokens: hostileTokens.map((_, token) => ({ token, count: 20 - token, meanActivation: 1 + token })),
    documents: [{ document: 12, meanActivation: 0.75, tokens: Int32Array.from({ length }, (_, index) => index) }],
    coActive: [
      { latent: latent + 1, overlap: 0.4 },
      { latent: 999, overlap: 0.1 },
    ],
    neighbours: [
      { latent: latent + 2, cosine: 0.71 },
      { latent: 998, cosine: -0.4 },
    ],
    logits: {
      raised: effects,
      lowered: [...effects].reverse(),
      histogram: { firstEdge: -1, binWidth: 0.5, counts: [1, 4, 9, 2] },
    },
  };
}

/** A report of such records: latents 10 to 9 + count. */
export function fullReport(count: number): FeatureReport {
  const latents = Array.from({ length: count }, (_, index) => index + 10);
  return { ...hostileReport(), latents, latent: async (latent) => fullRecord(latent) };
}
