import { type FileHandle, open } from "node:fs/promises";
import { join } from "node:path";
import { decimal, loneToken, tokenHtml } from "../analysis/featureReport.js";
import { escapeHtml, visibleHtml } from "../analysis/visibleText.js";
import { checkOptions, type OptionNames } from "../checkArguments.js";
import { throwIfAborted } from "../errors.js";
import { writeDirectoryAtomically } from "../formats/atomicFile.js";
import { beginningOf, type CardContext, latentCard } from "./latentCard.js";
import { promptBox } from "./promptBox.js";
import type { FeatureReport, ReportedLatent } from "./report.js";
import { percent } from "./reportNumbers.js";
import { densitySection, REPORT_FOOTER, reportFrame, reportHeader } from "./reportParts.js";

/** Latents per page: pages of half a megabyte to one. */
const LATENTS_PER_PAGE = 25;

/** What such a folder holds: nothing else is ever in it. */
export const REPORT_FILES: RegExp = /^(index|latents-\d+)\.html$/;

export interface ReportFolderOptions {
  readonly signal?: AbortSignal;
  /** After each page, with the latents written so far. */
  readonly onProgress?: (latents: number) => void;
}

const optionNames: OptionNames<ReportFolderOptions> = {
  signal: "signal",
  onProgress: "function",
};

/**
 * Writes a report as a folder of self-contained HTML pages: `index.html` with a row per latent, and `latents-1.html`,
 * `latents-2.html`, ... with 25 latents each, linked with each other. No page has a script, none loads another file.
 *
 * Each latent is asked for once and forgotten when it is written: memory does not grow with their number.
 *
 * @param path the folder; one of that name is replaced as a whole
 * @throws MonosemError ERR_IO, ERR_ABORTED; and what `report.latent` throws. A previous folder is then in place.
 */
export async function writeReportFolder(
  path: string,
  report: FeatureReport,
  options: ReportFolderOptions = {},
): Promise<void> {
  checkOptions("writeReportFolder", options, optionNames);
  const { signal, onProgress } = options;
  const pageOf = new Map(
    report.latents.map((latent, index) => [latent, pageName(Math.floor(index / LATENTS_PER_PAGE))]),
  );
  const context: CardContext = {
    tokenText: report.tokenText,
    linkTo: (latent) => (pageOf.has(latent) ? `${pageOf.get(latent)}#latent-${latent}` : undefined),
  };
  const pages = Math.ceil(report.latents.length / LATENTS_PER_PAGE);
  await writeDirectoryAtomically(path, async (folder) => {
    await writePieces(join(folder, "index.html"), async (index) => {
      const { head, tail } = reportFrame(report.title);
      await index.appendFile(
        `${head}${reportHeader(report)}<main>\n${densitySection(report)}${promptBox(report.prompts ?? [], context)}\n`,
      );
      for (let page = 0; page < pages; page++) {
        const latents = report.latents.slice(page * LATENTS_PER_PAGE, (page + 1) * LATENTS_PER_PAGE);
        const rows: string[] = [];
        await writePieces(join(folder, pageName(page)), async (file) => {
          await file.appendFile(pageStart(report.title, latents, page, pages));
          for (const number of latents) {
            throwIfAborted(signal, "writing the report");
            const latent = await report.latent(number);
            await file.appendFile(`${latentCard(latent, context)}\n`);
            rows.push(indexRow(latent, context));
          }
          await file.appendFile(`</main>\n${REPORT_FOOTER}${tail}`);
        });
        await index.appendFile(indexSection(rows, latents, page));
        onProgress?.(page * LATENTS_PER_PAGE + latents.length);
      }
      await index.appendFile(`</main>\n${REPORT_FOOTER}${tail}`);
    });
  });
}

function pageName(page: number): string {
  return `latents-${page + 1}.html`;
}

async function writePieces(path: string, write: (file: FileHandle) => Promise<void>): Promise<void> {
  const file = await open(path, "wx");
  try {
    await write(file);
  } finally {
    await file.close();
  }
}

function pageStart(title: string, latents: readonly number[], page: number, pages: number): string {
  const { head } = reportFrame(`${rangeText(latents)}: ${title}`);
  const steps = [
    '<a href="index.html">all latents</a>',
    ...(page > 0 ? [`<a href="${pageName(page - 1)}" rel="prev">previous page</a>`] : []),
    ...(page + 1 < pages ? [`<a href="${pageName(page + 1)}" rel="next">next page</a>`] : []),
  ];
  return `${head}<header>
<h1>${rangeText(latents)}</h1>
<p class="facts"><span>${visibleHtml(title)}</span></p>
</header>
<main>
<nav aria-label="Pages">${steps.join(" ")}</nav>
<nav aria-label="Latents shown">${latents.map((latent) => `<a href="#latent-${latent}">${latent}</a>`).join(" ")}</nav>
`;
}

/** Latents in the order in which they are shown need not ascend. */
function rangeText(latents: readonly number[]): string {
  if (latents.length === 1) return `Latent ${latents[0]}`;
  const ascending = latents.every((latent, index) => index === 0 || latent > latents[index - 1]!);
  return ascending ? `Latents ${latents[0]} to ${latents.at(-1)}` : `Latents ${latents.slice(0, 3).join(", ")}, …`;
}

function indexSection(rows: readonly string[], latents: readonly number[], page: number): string {
  return `<details class="overview index"${page === 0 ? " open" : ""}><summary>${rangeText(latents)}</summary>
<p><a href="${pageName(page)}">page ${page + 1}</a></p>
<table><thead><tr><th>latent</th><th>fires on</th><th>largest</th><th>strongest example</th><th>raises</th></tr></thead><tbody>
${rows.join("\n")}
</tbody></table>
</details>
`;
}

const EXAMPLE_BEFORE = 6;
const RAISED = 4;

function indexRow(latent: ReportedLatent, { tokenText, linkTo }: CardContext): string {
  const example = latent.examples[0] ?? latent.negativeExamples[0];
  const text =
    example === undefined
      ? ""
      : `${beginningOf(example.tokens.subarray(Math.max(0, example.peak - EXAMPLE_BEFORE), example.peak), tokenText)} <bdi class="peak">${tokenHtml(tokenText(example.tokens[example.peak]!))}</bdi>`;
  const raised = (latent.logits?.raised ?? [])
    .slice(0, RAISED)
    .map(({ token }) => escapeHtml(loneToken(tokenText(token)).trim()));
  return `<tr><td><a href="${linkTo(latent.latent)}">${latent.latent}</a></td><td>${percent(latent.density)}</td><td>${decimal(latent.maxActivation)}</td><td class="text"><bdi>${text}</bdi></td><td>${raised.map((token) => `<bdi>${token}</bdi>`).join(", ")}</td></tr>`;
}
