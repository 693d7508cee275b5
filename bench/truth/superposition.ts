/**
 * Toy models of superposition at the sizes of Elhage et al. 2022 (arXiv:2209.10652), beside the same in PyTorch; prints
 * the tables of RESULTS.md.
 *
 *     npm run build:bench && node build/bench/truth/superposition.js [--python PATH] [--quick]
 *
 * With --python, which must be able to import torch, PyTorch trains the same models; without, its columns are left out.
 * --quick takes a tenth of the steps.
 */
import { execFile } from "node:child_process";
import { cpus } from "node:os";
import { fileURLToPath } from "node:url";
import { parseArgs, promisify } from "node:util";
import {
  Device,
  geometricImportance,
  geometryText,
  measureSuperposition,
  type SuperpositionMeasures,
  trainPhaseDiagram,
  trainSuperposition,
} from "monosem";

const { values: flags } = parseArgs({ options: { python: { type: "string" }, quick: { type: "boolean" } } });
const peer = fileURLToPath(new URL("../../../bench/peers/torch_superposition.py", import.meta.url));
const threads = 1;
const device = await Device.open("cpu", { threads });
const stepsOf = (steps: number): number => (flags.quick ? steps / 10 : steps);

interface Experiment {
  readonly title: string;
  readonly features: number;
  readonly dimensions: number;
  /** Feature i has importance ratio^i. */
  readonly importance: number;
  readonly sparsities: readonly number[];
  readonly attempts: number;
  readonly steps: number;
}

const experiments: readonly Experiment[] = [
  {
    title: "5 features in 2 dimensions, importance 0.9^i, the best of 4",
    features: 5,
    dimensions: 2,
    importance: 0.9,
    sparsities: [0, 0.7, 0.8, 0.9, 0.97, 0.99],
    attempts: 4,
    steps: 10_000,
  },
  {
    title: "20 features in 5 dimensions, importance 0.7^i",
    features: 20,
    dimensions: 5,
    importance: 0.7,
    sparsities: [0, 0.7, 0.9, 0.97, 0.99, 0.999],
    attempts: 1,
    steps: 10_000,
  },
  {
    title: "200 features in 20 dimensions, importance 1",
    features: 200,
    dimensions: 20,
    importance: 1,
    sparsities: [0, 0.5, 0.7, 0.8],
    attempts: 1,
    steps: 3000,
  },
];

interface Outcome {
  readonly rows: readonly { readonly loss: number; readonly measures: SuperpositionMeasures }[];
  readonly seconds: number;
}

async function withMonosem(experiment: Experiment): Promise<Outcome> {
  const { features, dimensions, importance, sparsities, attempts, steps } = experiment;
  const start = performance.now();
  const models = await trainSuperposition({
    device,
    features,
    dimensions,
    tasks: sparsities.map((sparsity) => ({ sparsity, importance: geometricImportance(features, importance) })),
    attempts,
    steps,
  });
  const seconds = (performance.now() - start) / 1000;
  return { rows: models.map((model) => ({ loss: model.loss, measures: measureSuperposition(model) })), seconds };
}

async function withPyTorch(python: string, experiment: Experiment): Promise<Outcome> {
  const { features, dimensions } = experiment;
  const settings = JSON.stringify({ ...experiment, threads });
  const { stdout } = await promisify(execFile)(python, [peer, settings], { maxBuffer: 1 << 26 });
  const { models, seconds } = JSON.parse(stdout) as {
    models: { weights: number[]; loss: number }[];
    seconds: number;
  };
  const rows = models.map(({ weights, loss }) => ({
    loss,
    measures: measureSuperposition({ features, dimensions, weights }),
  }));
  return { rows, seconds };
}

function columns({ loss, measures }: Outcome["rows"][number]): string {
  const { squaredNorm, dimensionsPerFeature, represented } = measures;
  const loss4 = Number(loss.toPrecision(4));
  return `${loss4} | ${squaredNorm.toFixed(2)} | ${dimensionsPerFeature.toFixed(3)} | ${represented} | ${geometryText(measures.dimensionality)}`;
}

console.log(`${cpus()[0]?.model}, one thread, Node ${process.version}, ${new Date().toISOString()}`);
for (const experiment of experiments.map((given) => ({ ...given, steps: stepsOf(given.steps) }))) {
  const ours = await withMonosem(experiment);
  const theirs = flags.python === undefined ? undefined : await withPyTorch(flags.python, experiment);
  console.log(`\n${experiment.title}; ${experiment.steps} steps\n`);
  console.log(
    "| S | | loss | \\|W\\|² | D* | represented | features by dimensionality |\n|---|---|---|---|---|---|---|",
  );
  for (const [index, sparsity] of experiment.sparsities.entries()) {
    console.log(`| ${sparsity} | monosem | ${columns(ours.rows[index]!)} |`);
    if (theirs !== undefined) console.log(`| | PyTorch | ${columns(theirs.rows[index]!)} |`);
  }
  const seconds = `monosem ${ours.seconds.toFixed(1)} s`;
  console.log(theirs === undefined ? `\n${seconds}` : `\n${seconds}, PyTorch ${theirs.seconds.toFixed(1)} s`);
}

for (const dimensions of [1, 2] as const) {
  const start = performance.now();
  const { agreement } = await trainPhaseDiagram({ device, dimensions, steps: stepsOf(1000) });
  const seconds = ((performance.now() - start) / 1000).toFixed(1);
  const share = `${(100 * agreement).toFixed(1)} %`;
  console.log(
    `\nPhase diagram, ${dimensions + 1} features in ${dimensions}, 16 x 16 points: theory and training agree at ${share} (${seconds} s)`,
  );
}
await device.close();
