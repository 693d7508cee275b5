/**
 * Models of the sizes of GPT-2 small and Pythia 160M, with random weights, beside Hugging Face transformers, paired in
 * one run; prints a table for RESULTS.md.
 *
 *     npm run bench:language-models -- [rounds] [--python PATH] [--json FILE]
 *
 * torch and transformers must be importable by that Python; they are no part of the project's dependencies.
 */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { cpus, tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { alternate, Worker } from "./sideBySide.js";

const { values, positionals } = parseArgs({
  options: { python: { type: "string", default: "python3" }, json: { type: "string" } },
  allowPositionals: true,
});
const rounds = Number(positionals[0] ?? 10);
const peer = fileURLToPath(new URL("../../bench/peers/transformers_models.py", import.meta.url));
const own = fileURLToPath(new URL("./languageModelsWorker.js", import.meta.url));
const threads = 2;

console.log(
  `${cpus()[0]?.model}, ${cpus().length} cores, Node ${process.version}, ${rounds} rounds, ${new Date().toISOString()}`,
);
console.log("ms of wall clock (CPU); ratio = transformers' time / monosem's, median of paired rounds\n");
console.log("| model | work | monosem | transformers | ratio wall | ratio CPU |");
console.log("|---|---|---|---|---|---|");
const folder = mkdtempSync(join(tmpdir(), "monosem-bench-"));
const results: object[] = [];
try {
  for (const model of ["gpt2-small", "pythia-160m"]) {
    for (const [work, attention] of [
      ["forward", "eager"],
      ["forward", "sdpa"],
      ["generate", "eager"],
      ["generate", "sdpa"],
    ] as const) {
      const workers = { ours: new Worker(process.execPath, [own]), theirs: new Worker(values.python, [peer]) };
      const setup = { model, work, attention, batch: 16, positions: 128, newTokens: 16, threads, folder };
      const theirs = await workers.theirs.setup(setup); // writes the model
      const ours = await workers.ours.setup(setup);
      const deviation = Math.abs(Number(ours.check) / Number(theirs.check) - 1);
      if (!(deviation < 1e-3))
        throw new Error(`the two sides compute different things: ${JSON.stringify([ours, theirs])}`);
      const comparison = await alternate(workers.ours, workers.theirs, rounds);
      workers.ours.stop();
      workers.theirs.stop();
      const times = ({ wallMs, cpuMs }: { wallMs: number; cpuMs: number }) =>
        `${wallMs.toFixed(0)} (${cpuMs.toFixed(0)})`;
      const what = work === "forward" ? "16 x 128 through all blocks" : "16 new tokens of one sequence";
      console.log(
        `| ${model} | ${what}, ${attention} | ${times(comparison.ours)} | ${times(comparison.theirs)} | ` +
          `${comparison.wallRatio.toFixed(2)} | ${comparison.cpuRatio.toFixed(2)} |`,
      );
      results.push({ ...setup, comparison });
    }
  }
} finally {
  rmSync(folder, { recursive: true });
}
if (values.json !== undefined) writeFileSync(values.json, `${JSON.stringify(results, null, 2)}\n`);
