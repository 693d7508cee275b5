/** Where a report on latents goes: a page, or a folder of pages. */
import { stat } from "node:fs/promises";
import type { FeatureReport } from "../features/report.js";
import { REPORT_FILES, writeReportFolder } from "../features/reportFolder.js";
import { writeReportPage } from "../features/reportPage.js";
import { checkOutputFiles, checkOutputFolder } from "./outputFiles.js";
import { startProgress } from "./progress.js";

/**
 * Refuses what `writeReport` could not write, before the work starts.
 *
 * @throws MonosemError as `checkOutputFiles` and `checkOutputFolder`
 */
export async function checkReportOutput(path: string | undefined): Promise<void> {
  if (path === undefined) return;
  if (await isFolder(path)) await checkOutputFolder(path, REPORT_FILES);
  else await checkOutputFiles(path);
}

/** Writes a folder where the path ends in a separator or is one, else a page. */
export async function writeReport(path: string, report: FeatureReport, signal: AbortSignal): Promise<void> {
  if (!(await isFolder(path))) return await writeReportPage(path, report, signal);
  const progress = startProgress("writing the report", report.latents.length, "latents");
  await writeReportFolder(path, report, { signal, onProgress: (latents) => progress.update(latents) }).finally(() =>
    progress.stop(),
  );
}

async function isFolder(path: string): Promise<boolean> {
  if (/[/\\]$/.test(path)) return true;
  return (await stat(path).catch(() => undefined))?.isDirectory() ?? false;
}
