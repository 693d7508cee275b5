/**
 * SAE encode and training step beside PyTorch, paired in one run; prints a table for RESULTS.md.
 *
 *     npm run bench:sae -- [rounds] [--only TEXT] [--python PATH] [--json FILE]
 *
 * `--only`: the rows whose name holds this text, for example Gated.
 *
 * PyTorch must be importable by that Python (pip install torch==2.13.0); it is no part of the project's dependencies.
 */
import { writeFileSync } from "node:fs";
import { cpus } from "node:os";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { alternate, Worker } from "./sideBySide.js";

const { values, positionals } = parseArgs({
  options: {
    python: { type: "string", default: "python3" },
    json: { type: "string" },
    only: { type: "string", default: "" },
  },
  allowPositionals: true,
});
const rounds = Number(positionals[0] ?? 7);
const peer = fileURLToPath(new URL("../../bench/peers/torch_sae.py", import.meta.url));
const own = fileURLToPath(new URL("./saeWorker.js", import.meta.url));

const shape = { batch: 4096, dIn: 768, k: 32, threads: 2 };
/** Where the density decides how many latents are active: so many per token, as with a trained SAE. */
const l0 = 64;
const cases = [8192, 24576]
  .flatMap((dSae) => [
    { name: "encode, top 32 exact | bare x W^T + b", ours: "encode", theirs: "encode", dSae, density: 0 },
    { name: "TopK step | dense autograd", ours: "topk", theirs: "topk", dSae, density: 0 },
    { name: "TopK step | sparse, OpenAI/EleutherAI style", ours: "topk", theirs: "topk-sparse", dSae, density: 0 },
    { name: "ReLU + L1 step, 1 % dense | dense autograd", ours: "relu", theirs: "relu", dSae, density: 0.01 },
    { name: "ReLU + L1 step, 50 % dense | dense autograd", ours: "relu", theirs: "relu", dSae, density: 0.5 },
    { name: "ReLU + L1 step, L0 64 | dense autograd", ours: "relu", theirs: "relu", dSae, density: l0 / dSae },
    { name: "BatchTopK step | as SAELens", ours: "batchtopk", theirs: "batchtopk", dSae, density: 0 },
    { name: "Matryoshka step, 3 levels | as SAELens", ours: "matryoshka", theirs: "matryoshka", dSae, density: 0 },
    { name: "JumpReLU step, L0 64 | as SAELens", ours: "jumprelu", theirs: "jumprelu", dSae, density: l0 / dSae },
    { name: "Gated step, L0 64 | as SAELens", ours: "gated", theirs: "gated", dSae, density: l0 / dSae },
    { name: "soft-gated step | dense autograd", ours: "soft-gated", theirs: "soft-gated", dSae, density: 0.5 },
  ])
  .filter(({ name }) => name.includes(values.only));

const instructionSet = process.env.MONOSEM_ISA ?? "the best instruction set";
console.log(
  `${instructionSet}, ${cpus()[0]?.model}, ${cpus().length} cores, Node ${process.version}, ${rounds} rounds, ${new Date().toISOString()}`,
);
console.log(
  "times in ms: wall (CPU / threads); ratio = PyTorch / monosem, median of paired rounds; peak memory in MiB\n",
);
console.log(
  "| dSae | monosem \\| PyTorch | monosem | PyTorch | ratio wall | ratio CPU | peak monosem | peak PyTorch |",
);
console.log("|---|---|---|---|---|---|---|---|");
const results: object[] = [];
for (const { name, ours, theirs, dSae, density } of cases) {
  const workers = { ours: new Worker(process.execPath, [own]), theirs: new Worker(values.python, [peer]) };
  await workers.ours.setup({ ...shape, variant: ours, dSae, density });
  await workers.theirs.setup({ ...shape, variant: theirs, dSae, density });
  const c = await alternate(workers.ours, workers.theirs, rounds);
  const peaks = { ours: (await workers.ours.peak()).peakMiB, theirs: (await workers.theirs.peak()).peakMiB };
  workers.ours.stop();
  workers.theirs.stop();
  const time = ({ wallMs, cpuMs }: { wallMs: number; cpuMs: number }): string =>
    `${wallMs.toFixed(0)} (${(cpuMs / shape.threads).toFixed(0)})`;
  console.log(
    `| ${dSae} | ${name.replace("|", "\\|")} | ${time(c.ours)} | ${time(c.theirs)} | ${c.wallRatio.toFixed(2)} | ` +
      `${c.cpuRatio.toFixed(2)} | ${peaks.ours.toFixed(0)} | ${peaks.theirs.toFixed(0)} |`,
  );
  results.push({ name, dSae, density, ...shape, comparison: c, peaksMiB: peaks });
}
if (values.json !== undefined) writeFileSync(values.json, `${JSON.stringify(results, null, 2)}\n`);
