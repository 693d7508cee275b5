import { expect, test } from "vitest";
import { probeHtml } from "../../lib/probing/probePage.js";
import type { NamedProbe } from "../../lib/probing/probeText.js";

const metrics = { rows: 8, positives: 4, accuracy: 0.75, auroc: 0.875, f1: 0.7, precision: 0.7, recall: 0.7 };
const probe = { weights: Float64Array.of(2, -0.5), bias: 0 };
const outcome = { kind: "logistic" as const, probe, penalty: 1, crossValidation: [], train: metrics, test: metrics };
const hostile = "<img src=x onerror=alert(1)>\u202e";

test("a page has a bar for each probe with the control's mark, the features of sparse ones, and no markup of others", () => {
  const probes = [
    { name: hostile, outcome: { ...outcome, control: { accuracy: 0.5, selectivity: 0.25 } } },
    { name: "2 latents", features: [17, 4], outcome: { ...outcome, control: undefined } },
  ] as unknown as NamedProbe[];
  const html = probeHtml(hostile, { facts: [[hostile, hostile]], probes });
  expect(html).not.toContain("<img");
  expect(html).toContain("<bdi>&lt;img src=x onerror=alert(1)&gt;\\u{202e}</bdi>");
  expect(html.match(/<rect x="0" y="2" width="75\.00"/g)).toHaveLength(2);
  expect(html.match(/<line x1="50\.00"/g)).toHaveLength(1);
  expect(html).toContain("<td>75.0%</td><td>0.875</td><td>0.700</td><td>50.0%</td><td>25.0</td>");
  expect(html).toContain("<td>-</td><td>-</td>");
  expect(html).toContain("<li><b>17</b> +2</li><li><b>4</b> -0.5</li>");
});
