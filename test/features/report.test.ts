import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, expect, test } from "vitest";
import { LONGEST_TOKEN, shade } from "../../lib/analysis/featureReport.js";
import type { FeatureReport } from "../../lib/features/report.js";
import { REPORT_FILES, writeReportFolder } from "../../lib/features/reportFolder.js";
import { writeReportPage } from "../../lib/features/reportPage.js";
import { chromium } from "../analysis/browser.js";
import { fullRecord, fullReport, hostileReport, hostileTokens, signedReport } from "./hostileReport.js";

let directory: string;
/** Of each kind of page, by name. */
let pages: ReadonlyMap<string, string>;

const pageNames = ["statistics", "full", "index", "latents-1", "latents-2", "latents-3"] as const;

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "monosem-report-"));
  await writeReportFolder(join(directory, "folder"), fullReport(60));
  const folderPages = ["index", "latents-1", "latents-2", "latents-3"].map(
    async (name) => [name, await readFile(join(directory, "folder", `${name}.html`), "utf8")] as const,
  );
  pages = new Map([
    ["statistics", await pageOf(hostileReport())],
    ["full", await pageOf(fullReport(4))],
    ...(await Promise.all(folderPages)),
  ]);
});

afterAll(() => rm(directory, { recursive: true, force: true }));

async function pageOf(report: FeatureReport): Promise<string> {
  const path = join(directory, "page.html");
  await writeReportPage(path, report);
  return await readFile(path, "utf8");
}

test.each(pageNames)(
  "the policy of %s forbids scripts and the network and admits its one style sheet by hash",
  (name) => {
    const html = pages.get(name)!;
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
  },
);

test.each(pageNames)(
  "%s holds no script, event handler, inline style or address to load from, whatever tokens say",
  (name) => {
    const html = pages.get(name)!;
    const tags = [...html.matchAll(/<\/?([a-zA-Z][^\s/>]*)([^>]*)>/g)];
    const names = new Set(tags.map(([, tag]) => tag!.toLowerCase()));
    for (const forbidden of ["script", "img", "iframe", "object", "embed", "link", "base", "form"]) {
      expect(names.has(forbidden), forbidden).toBe(false);
    }
    for (const [, , attributes] of tags) {
      // Attribute names only: everything between quotes is a value.
      const attributeNames = attributes!.replace(/"[^"]*"/g, '""');
      expect(attributeNames).not.toMatch(/\b(on\w+|style|src|srcset|action|formaction)\s*=/i);
    }
    for (const [, target] of html.matchAll(/href="([^"]*)"/g)) {
      expect(target).toMatch(/^(#latent-\d+|latents-\d+\.html(#latent-\d+)?|index\.html)$/);
    }
  },
);

test.each(pageNames)("in %s, every tag that opens is closed, in order, and no id is there twice", (name) => {
  const html = pages.get(name)!;
  const empty = new Set(["meta", "line", "rect", "input"]);
  const open: string[] = [];
  for (const [tag, closing, element] of html.matchAll(/<(\/?)([a-z][a-z0-9]*)[^>]*>/g)) {
    if (closing === "/") expect(open.pop()).toBe(element);
    else if (!empty.has(element!) || !(tag.endsWith("/>") || ["meta", "input"].includes(element!))) open.push(element!);
  }
  expect(open).toEqual([]);
  const ids = [...html.matchAll(/ id="([^"]*)"/g)].map(([, id]) => id);
  expect(new Set(ids).size).toBe(ids.length);
});

test.each(pageNames)(
  "control characters and direction overrides of tokens never reach %s, long tokens are cut",
  (name) => {
    const html = pages.get(name)!;
    expect(html.replaceAll("\n", "")).not.toMatch(/[\p{C}\p{Zl}\p{Zp}]/u);
    expect(html).toContain("\\u{202e}gnirts desrever");
    expect(html).not.toContain("o".repeat(LONGEST_TOKEN + 1));
    expect(hostileTokens.some((token) => token.length > 10 * LONGEST_TOKEN)).toBe(true);
  },
);

test("a page from statistics in memory shows the summary, every latent asked for, its examples and its tokens", () => {
  const html = pages.get("statistics")!;
  expect(html).toContain("<dt>loss recovered</dt><dd>97.2%</dd>");
  for (const latent of [0, 1]) expect(html).toContain(`<article id="latent-${latent}">`);
  expect(html).not.toContain('id="latent-2"');
  expect(html.match(/<ol class="examples">/g)).toHaveLength(2);
  expect(html).toMatch(/<bdi class="a10 peak" title="[^"]*activation 11\.50">/);
  expect(html).toMatch(/<caption>raises<\/caption><tr><td title="[^"]*logit \+3\.00">.*?<td>\+3\.00<\/td>/);
  expect(html).not.toMatch(/<(summary>activations|summary>documents|h3>similar)/);
  expect(html).not.toMatch(/NaN|undefined|Infinity/);
});

test("a page from full records shows positions, quantiles, tokens, documents and related latents, as links where shown", () => {
  const html = pages.get("full")!;
  const card = /<article id="latent-10">.*?<\/article>/s.exec(html)![0];
  expect(card).toContain("<span>at positions <b>1</b> to <b>63</b></span>");
  expect(card).toContain("<span>first in its context <b>25%</b>, last <b>10%</b></span>");
  expect(card.match(/<details><summary>activations /g)).toHaveLength(2);
  expect(card).toContain("<summary>activations 4.00 to 8.00 <span>25% of its firings</span></summary>");
  expect(card).toMatch(/<caption>fires on<\/caption><tr><td title="[^"]*mean activation 1\.00">.*?<td>20×<\/td>/);
  expect(card).toMatch(/<summary>documents .*<span class="activation" title="mean activation 0\.75">/s);
  expect(card).toContain(
    '<li><a href="#latent-12">12</a> <span>cosine 0.71</span></li><li>998 <span>cosine -0.40</span>',
  );
  expect(card).toContain('<li><a href="#latent-11">11</a> <span>40%</span></li><li>999 <span>10%</span></li>');
  expect(card).toContain('aria-label="Effects of latent 10 on the logits of all tokens"');
  expect(card).toContain("<h3>where it is negative</h3>");
});

test("a recorded text stands as it was given, though its tokens are parts of characters; a token of spaces is seen", async () => {
  const texts = ["\\xE6\\x97", "\\xA5", " ", "\n"];
  const effects = [2, 3].map((token) => ({ token, effect: 1 }));
  const report = hostileReport();
  const html = await pageOf({
    ...report,
    prompts: [{ text: "日 <b>\n", tokens: texts.map((_, token) => ({ token, latents: [] })) }],
    latent: (latent) => ({
      ...fullRecord(latent),
      ...{ examples: [], negativeExamples: [], quantiles: [], tokens: [], documents: [] },
      logits: { raised: effects, lowered: effects, histogram: { firstEdge: 0, binWidth: 1, counts: [2] } },
    }),
    tokenText: (id) => texts[id]!,
  });
  expect(html).toContain("<summary><bdi>日 &lt;b&gt;</bdi></summary>");
  expect(html).toContain('"><bdi>&quot; &quot;</bdi></td>');
  expect(html).toContain("<bdi>&quot; &quot;</bdi></label>");
  expect(html).toContain("<bdi>↵</bdi></label>");
});

test("a latent that never fires and an empty report are pages, too", async () => {
  const dead = {
    ...fullRecord(7),
    ...{ firingCount: 0, density: 0, maxActivation: 0, minActivation: 0, meanActivation: 0 },
    ...{ histogram: { firstEdge: 0, binWidth: 0, counts: [] }, positions: undefined },
    ...{ examples: [], negativeExamples: [], quantiles: [], tokens: [], documents: [], coActive: [], neighbours: [] },
  };
  const html = await pageOf({ ...fullReport(1), latents: [7], latent: () => dead });
  expect(html).toContain("never fires on this text");
  expect(html).not.toMatch(/NaN|undefined|Infinity/);
  expect(await pageOf({ ...fullReport(0), prompts: [] })).not.toContain("<article");
  await writeReportFolder(join(directory, "empty"), fullReport(0));
  expect(await readdir(join(directory, "empty"))).toEqual(["index.html"]);
});

test("a crosscoder's decoder norms are shown, hostile hook names made harmless", async () => {
  const report = hostileReport();
  const decoderNorms = [
    { hook: "blocks.1.hook_resid_post", norm: 0.25 },
    { hook: "<b>\u001b[2J", norm: 1.5 },
  ];
  const html = await pageOf({
    ...report,
    latent: async (latent) => ({ ...(await report.latent(latent)), decoderNorms }),
  });
  expect(html.match(/<span>blocks\.1\.hook_resid_post <b>0\.25<\/b><\/span>/g)).toHaveLength(2);
  expect(html).toContain("<span>&lt;b&gt;\\u{1b}[2J <b>1.50</b></span>");
  expect(pages.get("statistics")).not.toContain("decoder norm");
});

test("negative activations have examples of their own, another shade, and their side of the histogram", async () => {
  expect(pages.get("statistics")).not.toContain("<h3>where it is negative");
  const signed = await pageOf(signedReport());
  expect(signed).toContain("<span>largest <b>6.00</b></span> <span>most negative <b>-9.00</b></span>");
  expect(signed).toContain("<h3>where it is negative</h3>");
  expect(signed.match(/<span class="activation">-9\.00</g)).toHaveLength(1);
  expect(signed).toMatch(/<bdi class="n10 peak" title="[^"]*activation -9\.00">/);
  expect(signed).toMatch(/<bdi class="a7 peak" title="[^"]*activation 6\.00">/);
  expect(signed).toMatch(/>-9\.00<\/text><text [^>]*>6\.00<\/text>/);
});

test("shading runs from 0 for an inactive token to 10 for the strongest, and never hides an active one", () => {
  expect([0, Number.NaN].map((value) => shade(value, 5))).toEqual([0, 0]);
  expect([1e-9, 2.5, 5].map((value) => shade(value, 5))).toEqual([1, 5, 10]);
  expect([-1e-9, -2.5, -5].map((value) => shade(value, 5))).toEqual([-1, -5, -10]);
  expect(shade(1, 0)).toBe(0);
});

test("a prompt offers its tokens and the text as a whole, each with its latents, strongest first, one chosen", () => {
  const html = pages.get("statistics")!;
  const boxes = [...html.matchAll(/<details name="prompt"( open)?>.*?<\/details>/gs)];
  expect(boxes.map(([, open]) => open)).toEqual([" open", undefined]);
  const [first] = boxes[0]!;
  expect(first.match(/<input type="radio" name="prompt-0"/g)).toHaveLength(hostileTokens.length + 1);
  expect(first.match(/ checked>/g)).toHaveLength(1);
  const labels = [...first.matchAll(/<input [^>]*id="([^"]*)"[^>]*><label for="([^"]*)">/g)];
  for (const [, id, label] of labels) expect(label).toBe(id);
  const [whole] = /<div class="panel">.*?<\/div>/s.exec(first)!;
  expect(
    [...whole.matchAll(/latent (?:<a href="#latent-\d+">)?(\d+).*?<span>([\d.]+)/g)].map(([, a, b]) => [a, b]),
  ).toEqual([
    ["0", "5.00"],
    ["1", "5.00"],
    ["2", "5.00"],
  ]);
  // latent 2 is not in this report: its number is no link
  expect(whole).toMatch(/latent <a href="#latent-1">1<\/a>.*latent 2 /);
  expect(first).toContain("no latent is active here");
});

test("a folder has a row per latent, pages of 25, and links that lead to where their latents are", async () => {
  const folder = join(directory, "folder");
  const names = await readdir(folder);
  expect(names.sort()).toEqual(["index.html", "latents-1.html", "latents-2.html", "latents-3.html"]);
  expect(names.every((name) => REPORT_FILES.test(name))).toBe(true);
  expect([...pages.get("index")!.matchAll(/<tr><td><a href="latents-\d+\.html#latent-(\d+)">/g)]).toHaveLength(60);
  for (const name of names) {
    const html = await readFile(join(folder, name), "utf8");
    for (const [, file, anchor] of html.matchAll(/href="([^"#]*)(?:#([^"]*))?"/g)) {
      const target = await readFile(join(folder, file === "" ? name : file!), "utf8");
      if (anchor !== undefined) expect(target, `${name} -> ${file}#${anchor}`).toContain(`id="${anchor}"`);
    }
  }
  expect(pages.get("latents-2")).toMatch(/rel="prev">.*rel="next">/s);
  expect(pages.get("latents-1")).not.toContain('rel="prev"');
  expect(pages.get("latents-3")).not.toContain('rel="next"');
});

test("a latent is asked for once, when its place has come, and only a page's worth is held", async () => {
  const asked: number[] = [];
  const shown: number[] = [];
  const report = fullReport(60);
  const options = { onProgress: (latents: number) => shown.push(latents, asked.length) };
  const latent = async (index: number) => {
    asked.push(index);
    return await report.latent(index);
  };
  await writeReportFolder(join(directory, "counted"), { ...report, latent }, options);
  expect(asked).toEqual(report.latents);
  expect(shown).toEqual([25, 25, 50, 50, 60, 60]);
});

test("a report that fails or is aborted leaves what was there before", async () => {
  const [page, folder] = [join(directory, "kept.html"), join(directory, "kept")];
  await writeFile(page, "before");
  await mkdir(folder);
  await writeFile(join(folder, "index.html"), "before");
  const controller = new AbortController();
  const report = fullReport(60);
  const failing: FeatureReport = {
    ...report,
    latent: (latent) => {
      if (latent === 40) throw new Error("the store is gone");
      return report.latent(latent);
    },
  };
  const aborting: FeatureReport = {
    ...report,
    latent: (latent) => {
      if (latent === 40) controller.abort();
      return report.latent(latent);
    },
  };
  await expect(writeReportPage(page, failing)).rejects.toThrow("the store is gone");
  await expect(writeReportFolder(folder, failing)).rejects.toThrow("the store is gone");
  await expect(writeReportPage(page, aborting, controller.signal)).rejects.toMatchObject({ code: "ERR_ABORTED" });
  await expect(writeReportFolder(folder, aborting, { signal: controller.signal })).rejects.toMatchObject({
    code: "ERR_ABORTED",
  });
  expect(await readFile(page, "utf8")).toBe("before");
  expect(await readdir(folder)).toEqual(["index.html"]);
  expect((await readdir(directory)).filter((name) => name.endsWith(".tmp"))).toEqual([]);
});

test.skipIf(chromium === undefined).each(["statistics", "full", "index"])(
  "a browser runs nothing of %s, asks for nothing else, and applies the style sheet",
  async (name) => {
    const requests: string[] = [];
    const server = createServer((request, response) => {
      requests.push(request.url!);
      response.setHeader("content-type", "text/html").end(pages.get(name));
    });
    await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
    const { port } = server.address() as AddressInfo;
    try {
      const flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"];
      const profile = `--user-data-dir=${join(directory, `profile-${name}`)}`;
      const { stdout } = await promisify(execFile)(
        chromium!,
        [...flags, "--disable-dev-shm-usage", profile, "--dump-dom", `http://127.0.0.1:${port}/report`],
        { maxBuffer: 2 ** 26 },
      );
      expect(stdout).toContain("<title>Features &lt;script&gt;");
      expect(stdout).not.toMatch(/<(script|img|iframe|link)\b/);
      // the browser itself asks for an icon
      expect(requests.filter((url) => url !== "/favicon.ico")).toEqual(["/report"]);
    } finally {
      server.closeAllConnections();
      await new Promise((done) => server.close(done));
    }
  },
);
