import { join } from "node:path";
import { type Command, InvalidArgumentError, Option } from "commander";
import { visibleText } from "../analysis/visibleText.js";
import type { Device } from "../engine/device.js";
import { writeFileAtomically } from "../formats/atomicFile.js";
import { makeDirectory } from "../formats/makeDirectory.js";
import { measureSuperposition } from "../toy/superpositionMeasures.js";
import { geometricImportance } from "../toy/superpositionModel.js";
import { superpositionLegend } from "../toy/superpositionModelPicture.js";
import { phaseDiagramPageHtml, superpositionPageHtml } from "../toy/superpositionPage.js";
import { phaseDiagramPicture } from "../toy/superpositionPhasePicture.js";
import { type PhaseDiagram, type SuperpositionPhase, trainPhaseDiagram } from "../toy/superpositionPhases.js";
import { type Picture, pictureFile } from "../toy/superpositionPicture.js";
import {
  modelPictures,
  type SuperpositionEntry,
  type SuperpositionReport,
  summaryColumns,
  summaryRows,
  sweepPictures,
} from "../toy/superpositionReport.js";
import { type SuperpositionProgress, trainSuperposition } from "../toy/superpositionTraining.js";
import { withInterruption } from "./interruption.js";
import {
  type DeviceFlags,
  deviceOption,
  naturalNumber,
  nonNegativeNumber,
  positiveInteger,
  withDevice,
} from "./options.js";
import { checkOutputFiles } from "./outputFiles.js";
import { type Progress, startProgress } from "./progress.js";
import { registerToySynthetic } from "./toySynthetic.js";

interface TrainingFlags extends DeviceFlags {
  readonly dimensions: number;
  readonly steps: number;
  readonly batchSize: number;
  readonly lr: number;
  readonly attempts: number;
  readonly seed: number;
  readonly html?: string;
  readonly svg?: string;
  readonly json?: boolean;
}

interface SuperpositionFlags extends TrainingFlags {
  readonly features: number;
  readonly sparsity: readonly number[];
  readonly importance: readonly number[];
  readonly linear?: boolean;
}

interface PhaseFlags extends TrainingFlags {
  readonly dimensions: 1 | 2;
  readonly points: number;
}

export function registerToy(program: Command): void {
  const toy = program
    .command("toy")
    .helpCommand(false)
    .summary("toy models of superposition; synthetic data with known features")
    .description(
      "Experiments on data whose features are known (Elhage et al. 2022, Toy Models of Superposition, arXiv:2209.10652). Without a command it is superposition.",
    )
    .addHelpText(
      "after",
      `
Examples:
  monosem toy
  monosem toy --features 20 --dimensions 5 --importance 0.7 --sparsity 0 0.7 0.9 0.97 0.99 --html toy.html
  monosem toy phases --html phases.html`,
    );
  registerSuperposition(toy);
  registerPhases(toy);
  registerToySynthetic(toy);
}

function registerSuperposition(toy: Command): void {
  const command = toy
    .command("superposition", { isDefault: true })
    .summary("squeeze features into fewer dimensions, at one or more sparsities")
    .description(
      `Trains models x̂ = ReLU(WᵀWx + b) on features that are 0 with probability S and else uniform in [0, 1), one for each sparsity and importance, and prints what became of the features: |W|² (about the number represented), D* = m / |W|² (dimensions per feature), how many have a norm above 1/2, and how many have which dimensionality D: 1 alone, 3/4 tetrahedron, 2/3 triangle, 1/2 antipodal pair, 2/5 pentagon, 3/8 square antiprism, 0 not represented.`,
    )
    .option("--features <n>", "features", positiveInteger, 5)
    .option("--dimensions <m>", "dimensions that they are squeezed into", positiveInteger, 2)
    .addOption(
      new Option("--sparsity <S...>", "probability that a feature is 0")
        .argParser(severalOf(sparsity))
        .default([0, 0.7, 0.9, 0.97, 0.99], "0 0.7 0.9 0.97 0.99"),
    )
    .addOption(
      new Option("--importance <r...>", "feature i has importance r^i")
        .argParser(severalOf(nonNegativeNumber))
        .default([0.9], "0.9"),
    )
    .option("--linear", "leave out the ReLU")
    // Being the default, it gets the name of a command that there is not.
    .allowExcessArguments();
  addTrainingOptions(
    command,
    { steps: 10_000, batchSize: 1024, lr: 1e-3, attempts: 4 },
    "weights, biases, losses and measures of the models",
  )
    .addHelpText(
      "after",
      `
Examples:
  monosem toy superposition --sparsity 0 0.9 0.99 --html toy.html
  monosem toy superposition --features 200 --dimensions 20 --importance 1 --sparsity 0 0.5 0.7 0.8 0.9 --steps 5000 --attempts 1 --svg pictures`,
    )
    .action((flags: SuperpositionFlags, { args: [unknown] }: Command) => {
      if (unknown !== undefined) {
        const names = toy.commands.map((command) => command.name()).join(", ");
        toy.error(`unknown command '${unknown}': the commands of toy are ${names}`);
      }
      return withInterruption((signal) => withDevice(flags, (device) => superposition(flags, device, signal)));
    });
}

function registerPhases(toy: Command): void {
  const command = toy
    .command("phases")
    .summary("the phase diagram: when is one feature too many left out, superposed, or given a dimension?")
    .description(
      "Trains models of one feature more than there are dimensions, over the importance of that extra feature (0.1 to 10) and the density 1 - S of all features (1 to 0.01), and prints what became of it, beside the best of the solutions whose loss is known exactly. Where two of these are about equal, a trained model may find a better one in between: --json tells both losses.",
    )
    .option("--dimensions <m>", "1 or 2", oneOrTwo, 1)
    .option("--points <n>", "points along each axis", positiveInteger, 16);
  addTrainingOptions(
    command,
    { steps: 1000, batchSize: 512, lr: 1e-2, attempts: 10 },
    "at each point, phase and loss in theory, and phase, norm, superposition and loss of the trained model",
  )
    .addHelpText(
      "after",
      `
Examples:
  monosem toy phases
  monosem toy phases --dimensions 2 --points 32 --html phases.html --svg pictures`,
    )
    .action((flags: PhaseFlags) =>
      withInterruption((signal) => withDevice(flags, (device) => phases(flags, device, signal))),
    );
}

function addTrainingOptions(
  command: Command,
  defaults: { readonly steps: number; readonly batchSize: number; readonly lr: number; readonly attempts: number },
  jsonContent: string,
): Command {
  return command
    .option("--steps <n>", "training steps", positiveInteger, defaults.steps)
    .option("--batch-size <n>", "inputs per step", positiveInteger, defaults.batchSize)
    .option("--lr <rate>", "learning rate of AdamW", nonNegativeNumber, defaults.lr)
    .option(
      "--attempts <n>",
      "train each model so many times, keep the one of the lowest expected loss",
      positiveInteger,
      defaults.attempts,
    )
    .option("--seed <n>", "of weights and data", naturalNumber, 0)
    .option("--html <file>", "also write a self-contained HTML page with pictures")
    .option("--svg <folder>", "also write the pictures as SVG files")
    .option("--json", `print one JSON object instead of the table: ${jsonContent}`)
    .addOption(deviceOption())
    .option("--threads <n>", "CPU threads; models this small hardly gain from more", positiveInteger, 1);
}

async function superposition(flags: SuperpositionFlags, device: Device, signal: AbortSignal): Promise<void> {
  const { features, dimensions, steps, batchSize, lr: learningRate, attempts, seed } = flags;
  await preparePictures(flags);
  const settings = flags.importance.flatMap((ratio) => flags.sparsity.map((sparsity) => ({ ratio, sparsity })));
  const models = await withProgress(steps, (onProgress) =>
    trainSuperposition({
      device,
      features,
      dimensions,
      output: flags.linear ? "linear" : "relu",
      tasks: settings.map(({ ratio, sparsity }) => ({ sparsity, importance: geometricImportance(features, ratio) })),
      attempts,
      steps,
      batchSize,
      learningRate,
      seed,
      signal,
      onProgress,
    }),
  );
  const entries = models.map((model, index): SuperpositionEntry => {
    const { ratio } = settings[index]!;
    return { importance: ratio === 1 ? "1" : `${ratio}^i`, model, measures: measureSuperposition(model) };
  });
  const report: SuperpositionReport = {
    facts: [["model", flags.linear ? "x̂ = WᵀWx + b" : "x̂ = ReLU(WᵀWx + b)"], ...trainingFacts(flags)],
    entries,
  };
  const pictures = [superpositionLegend(), ...modelPictures(report), ...sweepPictures(report)];
  const written = await writePictures(flags, () => superpositionPageHtml(report), pictures);
  print(
    flags,
    flags.json
      ? jsonText({ models: entries.map(({ model, measures }) => ({ ...model, ...measures })) })
      : table(report),
    written,
  );
}

async function phases(flags: PhaseFlags, device: Device, signal: AbortSignal): Promise<void> {
  const { dimensions, points, steps, batchSize, lr: learningRate, attempts, seed } = flags;
  await preparePictures(flags);
  const diagram = await withProgress(steps, (onProgress) =>
    trainPhaseDiagram({
      device,
      dimensions,
      points,
      attempts,
      steps,
      batchSize,
      learningRate,
      seed,
      signal,
      onProgress,
    }),
  );
  const page = (): string => phaseDiagramPageHtml(diagram, trainingFacts(flags));
  const written = await writePictures(flags, page, [phaseDiagramPicture(diagram)]);
  print(flags, flags.json ? jsonText(diagram) : phaseText(diagram), written);
}

async function withProgress<Result>(
  steps: number,
  work: (onProgress: (progress: SuperpositionProgress) => void) => Promise<Result>,
): Promise<Result> {
  let progress: Progress | undefined;
  try {
    return await work(({ step, loss }) => {
      // Not before the first report: options that cannot be used should leave no bar behind.
      progress ??= startProgress("training", steps, "steps");
      progress.update(step, `loss ${loss.toPrecision(4)}`);
    });
  } finally {
    progress?.stop();
  }
}

/** Before the work starts, so that it does not go into pictures that cannot be written. */
async function preparePictures({ html, svg }: TrainingFlags): Promise<void> {
  await checkOutputFiles(html);
  if (svg !== undefined) await makeDirectory(svg);
}

/** @returns the paths of what was written */
async function writePictures(
  { html, svg }: TrainingFlags,
  page: () => string,
  pictures: readonly Picture[],
): Promise<readonly string[]> {
  const files: (readonly [path: string, content: string])[] = [];
  if (html !== undefined) files.push([html, page()]);
  if (svg !== undefined) {
    for (const picture of pictures) files.push([join(svg, `${picture.name}.svg`), pictureFile(picture)]);
  }
  for (const [path, content] of files) await writeFileAtomically(path, content);
  return files.map(([path]) => path);
}

/** After the files are written: whoever reads may have had enough, as in `| head`, which ends the program. */
function print({ json }: TrainingFlags, text: string, written: readonly string[]): void {
  process.stdout.write(text);
  // With --json the standard output holds nothing else.
  const stream = json ? process.stderr : process.stdout;
  for (const path of written) stream.write(`wrote ${visibleText(path)}\n`);
}

function trainingFacts({ steps, batchSize, lr, attempts, seed }: TrainingFlags): SuperpositionReport["facts"] {
  return Object.entries({ steps, "batch size": batchSize, "learning rate": lr, attempts, seed }).map(
    ([name, value]) => [name, String(value)] as const,
  );
}

function table(report: SuperpositionReport): string {
  const rows = [summaryColumns, ...summaryRows(report)];
  const widths = summaryColumns.map((_, column) => Math.max(...rows.map((row) => row[column]!.length)));
  const lines = rows.map((row) =>
    row.map((cell, column) => (column === row.length - 1 ? cell : cell.padStart(widths[column]!))).join("  "),
  );
  return `${lines.join("\n")}\n`;
}

const PHASE_MARKS: Readonly<Record<SuperpositionPhase, string>> = {
  "not represented": "·",
  superposition: "x",
  "dedicated dimension": "#",
};

/** Theory and trained models as two blocks of marks, one line for each density. */
function phaseText({ densities, theory, trained, agreement, relativeImportances }: PhaseDiagram): string {
  const width = Math.max("theory".length, relativeImportances.length);
  const lines = densities.map((density, row) => {
    const [left, right] = [theory[row]!, trained[row]!.map(({ phase }) => phase)].map((phases) =>
      phases.map((phase) => PHASE_MARKS[phase]).join(""),
    );
    return `${density.toFixed(3).padStart("density".length)}  ${left!.padEnd(width)}  ${right}`;
  });
  const legend = Object.entries(PHASE_MARKS).map(([phase, mark]) => `${mark} ${phase}`);
  return [
    `density  ${"theory".padEnd(width)}  trained`,
    ...lines,
    `importance of the extra feature from ${relativeImportances[0]} (left) to ${relativeImportances.at(-1)} (right)`,
    `the extra feature: ${legend.join(", ")}`,
    `theory and trained models agree at ${(100 * agreement).toFixed(0)}% of the points`,
    "",
  ].join("\n");
}

/** Typed arrays as lists of numbers. */
function jsonText(value: unknown): string {
  const plain = (_: string, part: unknown): unknown =>
    part instanceof Float32Array || part instanceof Float64Array ? Array.from(part) : part;
  return `${JSON.stringify(value, plain)}\n`;
}

/** Collects the values of an option that takes several. */
function severalOf(parse: (text: string) => number): (text: string) => readonly number[] {
  let given: readonly number[] = [];
  return (text) => {
    given = [...given, parse(text)];
    return given;
  };
}

function sparsity(text: string): number {
  const value = nonNegativeNumber(text);
  if (value >= 1) throw new InvalidArgumentError("expected a number from 0 to less than 1.");
  return value;
}

function oneOrTwo(text: string): 1 | 2 {
  if (text === "1" || text === "2") return Number(text) as 1 | 2;
  throw new InvalidArgumentError("expected 1 or 2.");
}
