import type { FeatureReport } from "../../lib/analysis/featureReport.js";
import { FeatureCollector } from "../../lib/features/featureCollector.js";

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
  "z\u0301\u0301\u0301\u0301",
  "\ud800",
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
  return {
    title: "",
    facts: [],
    summary: [],
    statistics: collector.statistics(),
    latents: [0],
    tokenText: (id) => words[id]!,
  };
}

/** A report of two latents over contexts made of such tokens, with a title and facts no better than they are. */
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
    statistics: collector.statistics(),
    latents: [0, 1],
    logitEffects: [0, 1].map((latent) => ({ latent, raised: effects, lowered: [...effects].reverse() })),
    tokenText: (id) => hostileTokens[id]!,
  };
}
