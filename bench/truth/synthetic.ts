/**
 * What the architectures recover of the true features of synthetic data, at equal samples and matched L0, beside SAELens
 * trained on the same samples; prints the table of RESULTS.md.
 *
 *     npm run build:bench && node build/bench/truth/synthetic.js [--samples N] [--python PATH --data DIR] [--json FILE]
 *
 *   --samples N        samples to train on (20,000,000)
 *   --features, --dimensions, --width   of the data and of the SAEs (1024, 128, 512)
 *   --lr X             learning rate (3e-4); fewer samples need a larger one, for Adam's steps are of its size
 *   --l0 N             default: the mean number of the `width` most frequent features that fire, rounded
 *   --architectures a,b,...   default: all
 *   --python PATH      a Python with sae-lens; without it, SAELens is left out
 *   --data DIR         where the samples are written for SAELens (4 * samples * dimensions bytes), or lie already
 *   --json FILE        the rows as JSON, rewritten after each
 *
 * Batches of 1024, Adam, gradients clipped to norm 1, 2 threads, in both systems. TopK, BatchTopK, Matryoshka and
 * JumpReLU (by its quadratic loss) are told the L0; the others are trained again and again until it fits (matchL0.ts), at first on a tenth of the samples with
 * ten times the learning rate, because L0 falls for as long as the weights can move. The wall time is that of the training
 * shown alone, in which monosem draws the samples and SAELens reads them.
 */
import { execFile } from "node:child_process";
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { cpus, tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs, promisify } from "node:util";
import {
  Device,
  heldOutSample,
  loadSyntheticModel,
  measureRecovery,
  parseConfig,
  type Recovery,
  Sae,
  SyntheticActivations,
  SyntheticModel,
  Trainer,
  writeSynthetic,
} from "monosem";
import { matchL0 } from "./matchL0.js";

const { values: flags } = parseArgs({
  options: {
    samples: { type: "string", default: "20000000" },
    features: { type: "string", default: "1024" },
    dimensions: { type: "string", default: "128" },
    width: { type: "string", default: "512" },
    lr: { type: "string", default: "3e-4" },
    l0: { type: "string" },
    architectures: { type: "string", default: "relu,gated,jumprelu,topk,batchtopk,matryoshka" },
    python: { type: "string" },
    data: { type: "string" },
    json: { type: "string" },
  },
});
const samples = Number(flags.samples);
const dIn = Number(flags.dimensions);
const dSae = Number(flags.width);
const lr = Number(flags.lr);
const [batchSize, threads] = [1024, 2];
/** Of the search for a coefficient. */
const searchSamples = Math.max(batchSize, Math.round(samples / 10));
const learningRate = (count: number): number => (lr * samples) / count;
const measuredSamples = Math.min(500_000, Math.max(10_000, Math.round(samples / 10)));
const peer = fileURLToPath(new URL("../../../bench/peers/saelens_synthetic.py", import.meta.url));

/** A latent is dead in SAELens when it has not fired for 1000 batches. */
const deadAfterTokens = 1000 * batchSize;
/** Inner widths as published, 128, 512 and 2048 of 4096. */
const matryoshkaWidths = [dSae / 32, dSae / 8, dSae / 2].map(Math.round);

interface Contender {
  /** Its name in SAELens; undefined: SAELens lacks it, or trains it in another way. */
  readonly saelens?: string;
  /** First guess of the coefficient; undefined: it is told its L0. */
  readonly start?: number;
  /** `value` is the L0 or the coefficient. */
  readonly sae: (value: number) => object;
}

const contenders: Readonly<Record<string, Contender>> = {
  relu: { saelens: "standard", start: 2, sae: (l1Coefficient) => ({ l1Coefficient }) },
  gated: { saelens: "gated", start: 2, sae: (l1Coefficient) => ({ l1Coefficient }) },
  jumprelu: {
    saelens: "jumprelu",
    sae: (targetL0) => ({
      normalizeActivations: "expected-average-only-in",
      targetL0,
      l0Coefficient: 40,
      bandwidth: 0.5,
      initialThreshold: 0.1,
    }),
  },
  topk: { saelens: "topk", sae: (l0) => ({ k: Math.round(l0), auxK: dIn / 2 }) },
  batchtopk: { saelens: "batchtopk", sae: (k) => ({ k, auxK: dIn / 2 }) },
  matryoshka: { saelens: "matryoshka", sae: (k) => ({ k, auxK: dIn / 2, widths: matryoshkaWidths }) },
};

interface Trained extends Recovery {
  readonly wallSeconds: number;
  readonly cpuSeconds: number;
}

interface Row extends Trained {
  readonly system: string;
  readonly architecture: string;
  readonly coefficient: number | undefined;
}

const device = await Device.open("cpu", { threads });
const scratch = mkdtempSync(join(tmpdir(), "truth-"));
const model = await modelOfTheRun();
const targetL0 = flags.l0 === undefined ? Math.round(await reachableL0()) : Number(flags.l0);

const rows: Row[] = [];
try {
  console.log(
    `${device.description}, ${cpus()[0]?.model}, Node ${process.version}, ${new Date().toISOString()}; ${samples} samples of ` +
      `${model.config.features} features in ${dIn} dimensions, ${dSae} latents, L0 ${targetL0}, learning rate ${lr}\n`,
  );
  console.log(
    "| architecture | | coefficient | L0 | F1 | precision | recall | MCC | MMCS | uniqueness | explained variance | shrinkage | dead | wall s | CPU s |",
  );
  console.log(`|${"---|".repeat(15)}`);
  for (const architecture of flags.architectures.split(",")) {
    const contender = contenders[architecture];
    if (contender === undefined) throw new Error(`unknown architecture ${architecture}`);
    await compete("monosem", architecture, contender, (value, count) =>
      trainOurs(architecture, contender, value, count),
    );
    const { saelens } = contender;
    if (flags.python !== undefined && saelens !== undefined) {
      await compete("SAELens", architecture, contender, (value, count) => trainTheirs(saelens, value, count));
    }
  }
  reportOrder();
} finally {
  rmSync(scratch, { recursive: true, force: true });
}
await device.close();

/** The data of `--data`, if it is there. */
async function modelOfTheRun(): Promise<SyntheticModel> {
  const truth = flags.data === undefined ? undefined : join(flags.data, "truth.safetensors");
  const found =
    truth !== undefined && existsSync(truth)
      ? await loadSyntheticModel(truth, device)
      : await SyntheticModel.create({ features: Number(flags.features), dIn }, device);
  if (found.config.dIn !== dIn || found.config.features !== Number(flags.features)) {
    throw new Error(`${flags.data} holds data of another size`);
  }
  if (flags.python !== undefined) {
    if (flags.data === undefined) throw new Error("SAELens reads its samples from a folder: say --data DIR");
    if (!existsSync(truth!)) await writeSynthetic(found, flags.data, { samples });
  }
  return found;
}

/** How many of the dSae most frequent features fire in a sample. */
async function reachableL0(): Promise<number> {
  const count = 100_000;
  const codes = model.codes(count, heldOutSample);
  const { features } = await codes.read();
  codes.dispose();
  return features.reduce((sum, feature) => sum + (feature < dSae ? 1 : 0), 0) / count;
}

async function compete(
  system: string,
  architecture: string,
  contender: Contender,
  train: (value: number, samples: number) => Promise<Trained>,
): Promise<void> {
  // What fitted ours is a good first guess for theirs: the losses are the same.
  const start = rows.find((row) => row.architecture === architecture)?.coefficient ?? contender.start;
  const { coefficient, result } =
    start === undefined
      ? { coefficient: undefined, result: await train(targetL0, samples) }
      : await matchL0(targetL0, start, (value, full) => train(value, full ? samples : searchSamples));
  const row = { system, architecture, coefficient, ...result };
  rows.push(row);
  const figures = [row.f1, row.precision, row.recall, row.mcc, row.mmcs, row.uniqueness, row.explainedVariance];
  console.log(
    `| ${architecture} | ${system} | ${coefficient?.toPrecision(3) ?? ""} | ${row.l0.toFixed(2)} | ` +
      `${[...figures, row.shrinkage].map((figure) => figure.toFixed(4)).join(" | ")} | ${row.deadLatents} | ` +
      `${row.wallSeconds.toFixed(1)} | ${row.cpuSeconds.toFixed(1)} |`,
  );
  if (flags.json !== undefined) writeFileSync(flags.json, `${JSON.stringify({ targetL0, samples, rows }, null, 2)}\n`);
}

async function trainOurs(architecture: string, contender: Contender, value: number, count: number): Promise<Trained> {
  const { sae, training } = parseConfig({
    sae: { architecture, dIn, dSae, deadAfterTokens, ...contender.sae(value) },
    data: { activations: "drawn" },
    training: {
      tokens: count,
      batchSize,
      lr: learningRate(count),
      l1WarmupSteps: contender.start === undefined ? 0 : Math.floor(count / batchSize / 3),
      logEvery: Number.MAX_SAFE_INTEGER,
      checkpointEvery: Number.MAX_SAFE_INTEGER,
    },
    output: "none",
  });
  const source = new SyntheticActivations(model);
  const cpu = process.cpuUsage();
  const start = performance.now();
  const trainer = await Trainer.create({ sae, training, source, device });
  for await (const _ of trainer.run());
  await device.synchronize();
  const wallSeconds = (performance.now() - start) / 1e3;
  const used = process.cpuUsage(cpu);
  const recovery = await measureRecovery(trainer.sae, model, { samples: measuredSamples });
  trainer.sae.dispose();
  trainer.dispose();
  return { ...recovery, wallSeconds, cpuSeconds: (used.user + used.system) / 1e6 };
}

async function trainTheirs(architecture: string, value: number, count: number): Promise<Trained> {
  const output = join(scratch, "saelens");
  const options = {
    activations: join(flags.data!, "activations"),
    output,
    architecture,
    value,
    samples: count,
    dIn,
    dSae,
    batchSize,
    lr: learningRate(count),
    threads,
    matryoshkaWidths: [...matryoshkaWidths, dSae],
  };
  const { stdout } = await promisify(execFile)(flags.python!, [peer, JSON.stringify(options)], { maxBuffer: 2 ** 26 });
  const times = JSON.parse(stdout.trim().split("\n").at(-1)!) as Pick<Trained, "wallSeconds" | "cpuSeconds">;
  const sae = await Sae.load(output, device);
  const recovery = await measureRecovery(sae, model, { samples: measuredSamples });
  sae.dispose();
  rmSync(output, { recursive: true });
  return { ...recovery, ...times };
}

/** Whether the architectures stand in the order of the published table (SynthSAEBench-16k at L0 25). */
function reportOrder(): void {
  const published = [
    ["matryoshka", "batchtopk"],
    ["batchtopk", "relu"],
    ["jumprelu", "relu"],
  ] as const;
  for (const system of new Set(rows.map((row) => row.system))) {
    for (const [better, worse] of published) {
      const [a, b] = [better, worse].map((name) =>
        rows.find((row) => row.system === system && row.architecture === name),
      );
      if (a === undefined || b === undefined) continue;
      const verdict = (metric: "f1" | "mcc"): string =>
        `${metric} ${a[metric].toFixed(4)} and ${b[metric].toFixed(4)}: ${a[metric] > b[metric] ? "yes" : "NO"}`;
      console.log(`\n${system}, ${better} above ${worse} as published? ${verdict("f1")}, ${verdict("mcc")}`);
    }
  }
}
