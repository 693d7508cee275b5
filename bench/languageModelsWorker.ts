/**
 * monosem's side of languageModels.ts, in the protocol of sideBySide.ts: a checkpoint that the other side wrote, through
 * all blocks, or continued greedily.
 */
import { copyFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { Device, HookedTransformer } from "monosem";

interface Setup {
  model: string;
  work: "forward" | "generate";
  batch: number;
  positions: number;
  newTokens: number;
  threads: number;
  folder: string;
}

/** The work, which resolves to a number that both sides must agree on. */
async function build({
  model,
  work,
  batch,
  positions,
  newTokens,
  threads,
  folder,
}: Setup): Promise<() => Promise<number>> {
  const directory = join(folder, model);
  const tokenizer = fileURLToPath(new URL("../../assets/tiny-gpt2/tokenizer.json", import.meta.url));
  copyFileSync(tokenizer, join(directory, "tokenizer.json"));
  const device = await Device.open("cpu", { threads });
  const transformer = await HookedTransformer.load(directory, device);
  const tokens = Array.from({ length: batch }, (_, sequence) =>
    Int32Array.from({ length: positions }, (_, position) => (sequence * 7919 + position * 104729) % 50000),
  );
  if (work === "generate") {
    const options = { maxNewTokens: newTokens, temperature: 0, stopAtEos: false };
    return async () => (await transformer.generate([1, 2, 3, 4], options))[0]!.reduce((sum, id) => sum + id, 0);
  }
  return async () => {
    using residual = await transformer.forward(tokens, { stopAtLayer: transformer.config.nLayers });
    const values = await residual.readFloat32();
    return values.reduce((sum, value) => sum + value * value, 0) / values.length;
  };
}

let work: (() => Promise<number>) | undefined;
for await (const line of createInterface({ input: process.stdin })) {
  const command = JSON.parse(line) as { setup?: Setup; run?: number };
  let answer: object;
  if (command.setup !== undefined) {
    work = await build(command.setup);
    answer = { check: await work() };
  } else {
    const runs = { wallMs: [] as number[], cpuMs: [] as number[] };
    for (let i = 0; i < command.run!; i++) {
      const [cpu, wall] = [process.cpuUsage(), performance.now()];
      await work!();
      runs.wallMs.push(performance.now() - wall);
      const used = process.cpuUsage(cpu);
      runs.cpuMs.push((used.user + used.system) / 1e3);
    }
    answer = runs;
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
