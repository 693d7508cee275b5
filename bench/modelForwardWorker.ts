/**
 * monosem's side of modelForward.ts, in the protocol of sideBySide.ts: the residual stream after some layers of a GPT-2,
 * by `HookedTransformer.activations`, which checks the tokens and uploads them too.
 */
import { createInterface } from "node:readline";
import { Device, HookedTransformer } from "monosem";

interface Setup {
  model: string;
  layers: number;
  batch: number;
  positions: number;
  threads: number;
}

async function build({ model, layers, batch, positions, threads }: Setup) {
  const device = await Device.open("cpu", { threads });
  const transformer = await HookedTransformer.load(model, device);
  const { vocabularySize } = transformer.config;
  const tokens = Array.from({ length: batch }, (_, sequence) =>
    Int32Array.from({ length: positions }, (_, position) => (sequence * 7919 + position * 104729) % vocabularySize),
  );
  const forward = () => transformer.activations(tokens, `blocks.${layers - 1}.hook_resid_post`);
  return { device, forward };
}

let work: Awaited<ReturnType<typeof build>> | undefined;
for await (const line of createInterface({ input: process.stdin })) {
  const command = JSON.parse(line) as { setup?: Setup; run?: number };
  let answer: object;
  if (command.setup !== undefined) {
    work = await build(command.setup);
    using result = await work.forward();
    const values = await result.readFloat32();
    const squares = values.reduce((sum, value) => sum + value * value, 0);
    answer = { device: work.device.description, meanSquare: squares / values.length };
  } else if (command.run !== undefined) {
    const runs = { wallMs: [] as number[], cpuMs: [] as number[] };
    for (let i = 0; i < command.run; i++) {
      const [cpu, wall] = [process.cpuUsage(), performance.now()];
      using _ = await work!.forward();
      await work!.device.synchronize();
      runs.wallMs.push(performance.now() - wall);
      const used = process.cpuUsage(cpu);
      runs.cpuMs.push((used.user + used.system) / 1e3);
    }
    answer = runs;
  } else {
    answer = { peakMiB: process.resourceUsage().maxRSS / 1024 };
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
