import type { PhaseDiagram, SuperpositionPhase } from "./superpositionPhases.js";
import { fixed, line, logarithmicTicks, mixedColour, type Picture, text } from "./superpositionPicture.js";

const SIDE = 260;
const LEFT = 62;
const TOP = 40;
const GAP = 34;
const BOTTOM = 72;

/** How a phase would look in a trained model that shows it perfectly. */
const PHASES: readonly { readonly phase: SuperpositionPhase; readonly norm: number; readonly superposition: number }[] =
  [
    { phase: "not represented", norm: 0, superposition: 0 },
    { phase: "superposition", norm: 1, superposition: 1 },
    { phase: "dedicated dimension", norm: 1, superposition: 0 },
  ];

/**
 * Theory and trained models side by side: relative importance of the extra feature to the right, feature density
 * downwards; the stronger the colour the larger the extra feature's norm, blue without superposition, red with it.
 */
export function phaseDiagramPicture(diagram: PhaseDiagram): Picture {
  const { dimensions, theory, trained } = diagram;
  const ideal = new Map(PHASES.map((look) => [look.phase, look]));
  const parts = [
    panel(diagram, LEFT, "theory: the best of the exact solutions", (row, column) => ideal.get(theory[row]![column]!)!),
    panel(diagram, LEFT + SIDE + GAP, "trained models", (row, column) => trained[row]![column]!),
    ...logarithmicTicks(0.01, 1).map((tick) => {
      const y = TOP + (Math.log10(1 / tick) / 2) * SIDE;
      return line([LEFT - 4, y], [LEFT, y]) + text(LEFT - 8, y + 4, String(tick), { anchor: "end" });
    }),
    `<text transform="translate(12 ${TOP + SIDE / 2}) rotate(-90)" text-anchor="middle">density 1 - S</text>`,
    text(LEFT + SIDE + GAP / 2, TOP + SIDE + 36, "importance of the extra feature, that of the others being 1", {
      anchor: "middle",
    }),
    ...PHASES.map(({ phase, norm, superposition }, index) => {
      const x = LEFT + 60 + 150 * index;
      const swatch = `<rect x="${x}" y="${TOP + SIDE + 50}" width="12" height="12" ${fill(norm, superposition)} stroke="currentColor" stroke-opacity="0.3"/>`;
      return swatch + text(x + 18, TOP + SIDE + 60, phase);
    }),
    text(2, 14, `The extra feature of ${dimensions + 1} in ${dimensions === 1 ? "one dimension" : "two dimensions"}`, {
      size: 13,
      bold: true,
    }),
  ];
  return {
    name: `phase-diagram-${dimensions + 1}-in-${dimensions}`,
    label: "Phase diagram of the extra feature, in theory and in trained models",
    width: LEFT + 2 * SIDE + GAP + 14,
    height: TOP + SIDE + BOTTOM,
    content: parts.join(""),
  };
}

/** Each point of the diagram is the middle of its cell; the outermost cells reach half a cell beyond the axes' ends and are cut. */
function panel(
  { relativeImportances, densities }: PhaseDiagram,
  left: number,
  title: string,
  look: (row: number, column: number) => { readonly norm: number; readonly superposition: number },
): string {
  const bounds = (count: number, index: number): readonly [number, number] => {
    const step = SIDE / (count - 1);
    return [Math.max(0, (index - 0.5) * step), Math.min(SIDE, (index + 0.5) * step)];
  };
  const cells = densities.flatMap((density, row) =>
    relativeImportances.map((importance, column) => {
      const { norm, superposition } = look(row, column);
      const [x0, x1] = bounds(relativeImportances.length, column);
      const [y0, y1] = bounds(densities.length, row);
      return `<rect x="${fixed(left + x0)}" y="${fixed(TOP + y0)}" width="${fixed(x1 - x0)}" height="${fixed(y1 - y0)}" ${fill(norm, superposition)}><title>importance ${Number(importance.toPrecision(3))}, density ${Number(density.toPrecision(3))}: |W| ${norm.toFixed(2)}, superposition ${superposition.toFixed(2)}</title></rect>`;
    }),
  );
  const ticks = logarithmicTicks(0.1, 10).map((tick) => {
    const x = left + ((Math.log10(tick) + 1) / 2) * SIDE;
    return line([x, TOP + SIDE], [x, TOP + SIDE + 4]) + text(x, TOP + SIDE + 16, String(tick), { anchor: "middle" });
  });
  return [
    text(left + SIDE / 2, TOP - 8, title, { anchor: "middle" }),
    `<g shape-rendering="crispEdges">${cells.join("")}</g>`,
    `<rect x="${left}" y="${TOP}" width="${SIDE}" height="${SIDE}" fill="none" stroke="currentColor" stroke-opacity="0.5"/>`,
    ...ticks,
  ].join("");
}

function fill(norm: number, superposition: number): string {
  const colour = mixedColour([47, 111, 208], [213, 73, 58], Math.min(1, superposition));
  return `fill="${colour}" fill-opacity="${fixed(Math.min(1, norm))}"`;
}
