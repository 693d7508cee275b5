/** Where a report on latents goes: the terminal, a page or a folder of pages, and other systems' formats. */
import { stat } from "node:fs/promises";
import { visibleText } from "../analysis/visibleText.js";
import { MonosemError } from "../errors.js";
import { recordPrompt } from "../features/recordPrompt.js";
import type { FeatureReport, RecordedPrompt } from "../features/report.js";
import { REPORT_FILES, writeReportFolder } from "../features/reportFolder.js";
import { writeReportPage } from "../features/reportPage.js";
import { featureReportText } from "../features/reportText.js";
import type { SaeInModel } from "./featureFlags.js";
import { checkOutputFiles, checkOutputFolder } from "./outputFiles.js";
import { startProgress } from "./progress.js";
import { printedColumns, printsColour } from "./terminal.js";

export interface ReportFlags {
  readonly html?: string;
  readonly htmlPrompts?: readonly string[];
  readonly all?: boolean;
  readonly saedashboard?: string;
  readonly neuronpedia?: string;
  readonly examples: number;
}

/**
 * Refuses, before the work starts, a report that could not be written and options of outputs that nobody asked for.
 *
 * @throws MonosemError ERR_CONFIG, ERR_NOT_FOUND
 */
export async function checkReportOutput(flags: ReportFlags): Promise<void> {
  const { all, html, htmlPrompts, saedashboard, neuronpedia } = flags;
  if (htmlPrompts !== undefined && html === undefined) {
    throw new MonosemError("ERR_CONFIG", "--html-prompts are shown in a report: give --html, too");
  }
  if (all && html === undefined && saedashboard === undefined && neuronpedia === undefined) {
    throw new MonosemError(
      "ERR_CONFIG",
      "--all is for a report or an export: give --html, --saedashboard or --neuronpedia, too",
    );
  }
  if (html === undefined) return;
  if (await isFolder(html)) await checkOutputFolder(html, REPORT_FILES);
  else await checkOutputFiles(html);
}

/**
 * Writes and prints a report.
 *
 * @param output.firing the latents that `--all` asks for
 * @param output.writeExports writes what else is asked for, and tells the folders
 */
export async function presentReport(
  report: FeatureReport,
  flags: ReportFlags,
  output: {
    readonly firing: readonly number[];
    readonly writeExports: (report: FeatureReport) => Promise<readonly string[]>;
    readonly signal: AbortSignal;
  },
): Promise<void> {
  const written = flags.all ? { ...report, latents: output.firing } : report;
  // Before anything is printed: whoever reads that may have had enough, as in `| head`, which ends the program.
  if (flags.html !== undefined) await writeHtml(flags.html, written, output.signal);
  const paths = [...(flags.html === undefined ? [] : [flags.html]), ...(await output.writeExports(written))];
  process.stdout.write(
    await featureReportText(report, { colour: printsColour(), width: printedColumns(), examples: flags.examples }),
  );
  if (paths.length > 0) process.stdout.write(`\n${paths.map((path) => `wrote ${visibleText(path)}\n`).join("")}`);
}

/** The prompts that a report is to show. */
export async function recordPrompts(
  { htmlPrompts = [] }: ReportFlags,
  { sae, model, chosen }: SaeInModel,
): Promise<readonly RecordedPrompt[]> {
  const prompts: RecordedPrompt[] = [];
  for (const prompt of htmlPrompts) prompts.push(await recordPrompt({ sae, model, ...chosen, prompt }));
  return prompts;
}

async function writeHtml(path: string, report: FeatureReport, signal: AbortSignal): Promise<void> {
  if (!(await isFolder(path))) return await writeReportPage(path, report, signal);
  const progress = startProgress("writing the report", report.latents.length, "latents");
  await writeReportFolder(path, report, { signal, onProgress: (latents) => progress.update(latents) }).finally(() =>
    progress.stop(),
  );
}

/** A path that ends in a separator, or is a folder. */
async function isFolder(path: string): Promise<boolean> {
  if (/[/\\]$/.test(path)) return true;
  return (await stat(path).catch(() => undefined))?.isDirectory() ?? false;
}
