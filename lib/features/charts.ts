/** Histograms as SVG, drawn without inline styles: pages with `REPORT_STYLE` colour them. */
import type { Histogram } from "../analysis/activationHistogram.js";
import { decimal } from "../analysis/featureReport.js";
import type { LatentDensities } from "./report.js";
import { integer, percent } from "./reportNumbers.js";

/** How many latents fire how often: counts by density, four bins a decade, with an axis of percentages. */
export function densityChart({ densityHistogram: { firstEdge, binWidth, counts } }: LatentDensities): string {
  const [width, height, left, bottom] = [720, 110, 44, 34];
  const most = Math.max(1, ...counts);
  const step = (width - left) / Math.max(1, counts.length);
  const bars = counts.map((count, bin) => {
    const barTop = height * (1 - barHeight(count, most));
    const low = 10 ** (firstEdge + bin * binWidth);
    const high = 10 ** (firstEdge + (bin + 1) * binWidth);
    return `<rect x="${fixed(left + bin * step + 1)}" y="${fixed(barTop + 10)}" width="${fixed(Math.max(1, step - 2))}" height="${fixed(height - barTop)}"><title>${integer(count)} latents fire on ${percent(low)} to ${percent(high)} of tokens</title></rect>`;
  });
  const decades = Array.from({ length: -firstEdge + 1 }, (_, index) => firstEdge + index);
  const labels = decades.map((decade) => {
    const x = left + ((decade - firstEdge) / binWidth) * step;
    const anchor = decade === 0 ? "end" : "middle";
    return `<line x1="${fixed(x)}" x2="${fixed(x)}" y1="${height + 10}" y2="${height + 15}"/><text x="${fixed(x)}" y="${height + bottom - 4}" text-anchor="${anchor}">${percent(10 ** decade)}</text>`;
  });
  return `<svg class="density" viewBox="0 0 ${width} ${height + 10 + bottom}" role="img" aria-label="Number of latents by the share of tokens on which they fire">
<text x="${left - 6}" y="20" text-anchor="end">${integer(most)}</text><text x="${left - 6}" y="${height + 10}" text-anchor="end">0</text>
<line x1="${left}" x2="${width}" y1="${height + 10}" y2="${height + 10}"/>
${bars.join("")}${labels.join("")}
</svg>`;
}

/**
 * Counts over a range of values, with its ends and 0 marked.
 *
 * @param labels.description what the chart shows, for readers who do not see it
 * @param labels.counted what is counted, in the plural, such as "tokens"
 */
export function histogramChart(
  { firstEdge, binWidth, counts }: Histogram,
  { description, counted }: { readonly description: string; readonly counted: string },
): string {
  const [width, height] = [240, 64];
  const most = Math.max(1, ...counts);
  const step = width / Math.max(1, counts.length);
  const bars = counts.map((count, bin) => {
    if (count === 0) return "";
    const barTop = height * (1 - barHeight(count, most));
    const low = firstEdge + bin * binWidth;
    return `<rect x="${fixed(bin * step + 0.5)}" y="${fixed(barTop)}" width="${fixed(Math.max(0.5, step - 1))}" height="${fixed(height - barTop)}"><title>${integer(count)} ${counted} between ${decimal(low)} and ${decimal(low + binWidth)}</title></rect>`;
  });
  const end = firstEdge + counts.length * binWidth;
  const zero = binWidth === 0 ? 0 : (-firstEdge / binWidth) * step;
  const zeroMark =
    firstEdge < 0 && end > 0 ? `<line x1="${fixed(zero)}" x2="${fixed(zero)}" y1="0" y2="${height}"/>` : "";
  const roomForZero = Math.min(zero, width - zero) > 40;
  return `<svg viewBox="0 0 ${width} ${height + 18}" role="img" aria-label="${description}">
${bars.join("")}<line x1="0" x2="${width}" y1="${height}" y2="${height}"/>${zeroMark}${roomForZero ? `<text x="${fixed(zero)}" y="${height + 14}" text-anchor="middle">0</text>` : ""}<text x="0" y="${height + 14}">${edge(firstEdge)}</text><text x="${width}" y="${height + 14}" text-anchor="end">${edge(end)}</text>
</svg>`;
}

/** 0.0 to 1.0 of the chart's height, by count; a bin that is not empty stays visible. */
function barHeight(count: number, most: number): number {
  return count === 0 ? 0 : Math.max(0.02, count / most);
}

function edge(value: number): string {
  return value === 0 ? "0" : decimal(value);
}

function fixed(coordinate: number): string {
  return String(Math.round(coordinate * 100) / 100);
}
