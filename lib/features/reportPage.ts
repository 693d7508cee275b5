import { throwIfAborted } from "../errors.js";
import { writeFileAtomically } from "../formats/atomicFile.js";
import { latentCard } from "./latentCard.js";
import { promptBox } from "./promptBox.js";
import type { FeatureReport } from "./report.js";
import { densitySection, REPORT_FOOTER, reportFrame, reportHeader } from "./reportParts.js";

/**
 * Writes a report as one self-contained HTML page: no script, no network (`htmlPage`). Latents are written one by one, so
 * that memory does not grow with their number; the page does, by 10 to 40 KB a latent: `writeReportFolder` is for many.
 *
 * @throws MonosemError ERR_IO, ERR_ABORTED; and what `report.latent` throws. The page is then not written.
 */
export async function writeReportPage(path: string, report: FeatureReport, signal?: AbortSignal): Promise<void> {
  await writeFileAtomically(path, async (handle) => {
    for await (const piece of pagePieces(report)) {
      throwIfAborted(signal, "writing the report");
      await handle.appendFile(piece);
    }
  });
}

async function* pagePieces(report: FeatureReport): AsyncGenerator<string> {
  const shown = new Set(report.latents);
  const linkTo = (latent: number): string | undefined => (shown.has(latent) ? `#latent-${latent}` : undefined);
  const context = { tokenText: report.tokenText, linkTo };
  const { head, tail } = reportFrame(report.title);
  yield `${head}${reportHeader(report)}<main>\n${densitySection(report)}${promptBox(report.prompts ?? [], context)}
<nav aria-label="Latents shown">${report.latents.map((latent) => `<a href="#latent-${latent}">${latent}</a>`).join(" ")}</nav>
`;
  for (const latent of report.latents) yield `${latentCard(await report.latent(latent), context)}\n`;
  yield `</main>\n${REPORT_FOOTER}${tail}`;
}
