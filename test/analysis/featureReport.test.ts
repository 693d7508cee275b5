import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { featureReportHtml, LONGEST_TOKEN, shade } from "../../lib/analysis/featureReport.js";
import { hostileReport, hostileTokens, signedReport } from "./hostileReport.js";

const html = featureReportHtml(hostileReport());

test("the page's policy forbids scripts and the network and admits its one style sheet by hash", () => {
  const styles = [...html.matchAll(/<style>([\s\S]*?)<\/style>/g)];
  expect(styles).toHaveLength(1);
  const hash = createHash("sha256").update(styles[0]![1]!).digest("base64");
  const policy = html.match(/http-equiv="Content-Security-Policy" content="([^"]*)"/)![1]!;
  expect(policy.split("; ")).toEqual([
    "default-src 'none'",
    `style-src 'sha256-${hash}'`,
    "base-uri 'none'",
    "form-action 'none'",
  ]);
  // The policy only governs what comes after it.
  expect(html.indexOf("Content-Security-Policy")).toBeLessThan(html.indexOf("<title>"));
});

test("the page holds no script, event handler, inline style or address to load from, whatever the tokens say", () => {
  const tags = [...html.matchAll(/<\/?([a-zA-Z][^\s/>]*)([^>]*)>/g)];
  const names = new Set(tags.map(([, name]) => name!.toLowerCase()));
  for (const forbidden of ["script", "img", "iframe", "object", "embed", "link", "base", "form", "input"]) {
    expect(names.has(forbidden), forbidden).toBe(false);
  }
  for (const [, , attributes] of tags) {
    // Attribute names only: everything between quotes is a value.
    const attributeNames = attributes!.replace(/"[^"]*"/g, '""');
    expect(attributeNames).not.toMatch(/\b(on\w+|style|src|srcset|action|formaction)\s*=/i);
  }
  for (const [, target] of html.matchAll(/href="([^"]*)"/g)) expect(target).toMatch(/^#latent-\d+$/);
});

test("every tag that opens is closed, in order", () => {
  const empty = new Set(["meta", "line", "rect"]);
  const open: string[] = [];
  for (const [tag, closing, name] of html.matchAll(/<(\/?)([a-z][a-z0-9]*)[^>]*>/g)) {
    if (closing === "/") expect(open.pop()).toBe(name);
    else if (!empty.has(name!) || !(tag.endsWith("/>") || name === "meta")) open.push(name!);
  }
  expect(open).toEqual([]);
});

test("control characters and direction overrides of tokens never reach the page", () => {
  expect(html.replaceAll("\n", "")).not.toMatch(/[\p{C}\p{Zl}\p{Zp}]/u);
  expect(html).toContain("\\u{202e}gnirts desrever");
  expect(html).toContain("\\u{1b}[2J");
});

test("long tokens are cut, in the text and in the tooltip", () => {
  expect(html).not.toContain("o".repeat(LONGEST_TOKEN + 1));
  expect(hostileTokens.some((token) => token.length > 10 * LONGEST_TOKEN)).toBe(true);
});

test("the page shows the summary, every latent asked for, its examples and its tokens with their activations", () => {
  expect(html).toContain("<dt>loss recovered</dt><dd>97.2%</dd>");
  for (const latent of [0, 1]) expect(html).toContain(`<article id="latent-${latent}">`);
  expect(html).not.toContain('id="latent-2"');
  expect(html.match(/<ol class="examples">/g)).toHaveLength(2);
  expect(html).toMatch(/<bdi class="a10 peak" title="[^"]*activation 11\.50">/);
  expect(html).toMatch(/<ul class="raises"><li title="[^"]*logit \+3\.00">/);
});

test("shading runs from 0 for an inactive token to 10 for the strongest, and never hides an active one", () => {
  expect([0, Number.NaN].map((value) => shade(value, 5))).toEqual([0, 0]);
  expect([1e-9, 2.5, 5].map((value) => shade(value, 5))).toEqual([1, 5, 10]);
  expect([-1e-9, -2.5, -5].map((value) => shade(value, 5))).toEqual([-1, -5, -10]);
  expect(shade(1, 0)).toBe(0);
});

test("negative activations have examples of their own, another shade, and their side of the histogram", () => {
  expect(html).not.toMatch(/negative</);
  const signed = featureReportHtml(signedReport());
  expect(signed).toContain("<span>largest <b>6.00</b></span> <span>most negative <b>-9.00</b></span>");
  expect(signed).toContain("<h3>where it is negative</h3>");
  expect(signed.match(/<span class="activation">-9\.00</g)).toHaveLength(1);
  expect(signed).toMatch(/<bdi class="n10 peak" title="[^"]*activation -9\.00">/);
  expect(signed).toMatch(/<bdi class="a7 peak" title="[^"]*activation 6\.00">/);
  expect(signed).toMatch(/>-9\.00<\/text><text [^>]*>6\.00<\/text>/);
  expect(signed).toContain("blue where it is negative");
});

const chromium = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"].find(existsSync);

test.skipIf(chromium === undefined)("a browser runs nothing of it and applies the style sheet", () => {
  const directory = mkdtempSync(join(tmpdir(), "monosem-report-"));
  try {
    const path = join(directory, "report.html");
    writeFileSync(path, html);
    const flags = [
      "--headless",
      "--no-sandbox",
      "--disable-gpu",
      "--disable-background-networking",
      "--disable-dev-shm-usage",
    ];
    const profile = `--user-data-dir=${join(directory, "profile")}`;
    const dom = execFileSync(chromium!, [...flags, profile, "--dump-dom", `file://${path}`], {
      encoding: "utf8",
      stdio: ["ignore", "pipe", "ignore"],
    });
    expect(dom).toContain("<title>Features &lt;script&gt;");
    expect(dom).not.toMatch(/<(script|img)\b/);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
});
