/**
 * The tiny GPT-2 up to a hook point beside PyTorch on the same weights and tokens, paired in one run; prints a table
 * for RESULTS.md.
 *
 *     npm run bench:model -- [rounds] [--python PATH] [--json FILE]
 *
 * PyTorch and safetensors must be importable by that Python; they are no part of the project's dependencies.
 */
import { writeFileSync } from "node:fs";
import { cpus } from "node:os";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { alternate, Worker } from "./sideBySide.js";

const { values, positionals } = parseArgs({
  options: { python: { type: "string", default: "python3" }, json: { type: "string" } },
  allowPositionals: true,
});
const rounds = Number(positionals[0] ?? 30);
const peer = fileURLToPath(new URL("../../bench/peers/gpt2_forward.py", import.meta.url));
const own = fileURLToPath(new URL("./modelForwardWorker.js", import.meta.url));
const model = fileURLToPath(new URL("../../assets/tiny-gpt2", import.meta.url));
const threads = 2;

console.log(
  `${cpus()[0]?.model}, ${cpus().length} cores, Node ${process.version}, ${rounds} rounds, ${new Date().toISOString()}`,
);
console.log("tokens per second; ratio = PyTorch's time / monosem's, median of paired rounds\n");
console.log("| batch x positions | up to | monosem | PyTorch | ratio wall | ratio CPU |");
console.log("|---|---|---|---|---|---|");
const results: object[] = [];
for (const [batch, positions, layers] of [
  [16, 128, 3],
  [16, 128, 4],
  [1, 256, 3],
] as const) {
  const workers = { ours: new Worker(process.execPath, [own]), theirs: new Worker(values.python, [peer]) };
  const setup = { model, layers, batch, positions, threads };
  const ours = await workers.ours.setup(setup);
  const theirs = await workers.theirs.setup(setup);
  const deviation = Math.abs(Number(ours.meanSquare) / Number(theirs.meanSquare) - 1);
  if (!(deviation < 1e-4)) throw new Error(`the two sides compute different things: ${JSON.stringify([ours, theirs])}`);
  const comparison = await alternate(workers.ours, workers.theirs, rounds);
  workers.ours.stop();
  workers.theirs.stop();
  const speed = ({ wallMs }: { wallMs: number }): string => ((batch * positions) / wallMs / 1e-3).toFixed(0);
  console.log(
    `| ${batch} x ${positions} | blocks.${layers - 1}.hook_resid_post | ${speed(comparison.ours)} | ` +
      `${speed(comparison.theirs)} | ${comparison.wallRatio.toFixed(2)} | ${comparison.cpuRatio.toFixed(2)} |`,
  );
  results.push({ ...setup, model: "tiny-gpt2", comparison });
}
if (values.json !== undefined) writeFileSync(values.json, `${JSON.stringify(results, null, 2)}\n`);
