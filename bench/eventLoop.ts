/**
 * How long the event loop is held up while a TopK SAE trains in the same process: 4096 x 768 -> 24576 on stored
 * activations (shuffled), and 2048 x 192 -> 1536 on the activations of the small GPT-2 in assets/.
 *
 *     npm run bench:event-loop
 *
 * A timer fires every millisecond; a delay is how much later than that it fired.
 */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { monitorEventLoopDelay } from "node:perf_hooks";
import { fileURLToPath } from "node:url";
import {
  ActivationBuffer,
  type ActivationSource,
  Corpus,
  Device,
  HookedTransformer,
  parseConfig,
  RandomGenerator,
  StoredActivations,
  Trainer,
  writeSafetensors,
} from "monosem";

const device = await Device.open("cpu");
const folder = await mkdtemp(join(tmpdir(), "monosem-bench-"));
console.log(`${device.description}, Node ${process.version}, ${new Date().toISOString()}`);
console.log("| training | steps | p50 ms | p99 ms | max ms |\n|---|---|---|---|---|");

async function measure(name: string, source: ActivationSource, config: ReturnType<typeof parseConfig>): Promise<void> {
  const trainer = await Trainer.create({ sae: config.sae, training: config.training, source, device });
  const delays = monitorEventLoopDelay({ resolution: 1 });
  const steps = trainer.run();
  await steps.next();
  delays.enable();
  for await (const _ of steps);
  delays.disable();
  const late = (nanoseconds: number): string => Math.max(0, nanoseconds / 1e6 - 1).toFixed(2);
  console.log(
    `| ${name} | ${config.training.steps} | ${late(delays.percentile(50))} | ${late(delays.percentile(99))} | ${late(delays.max)} |`,
  );
  trainer.dispose();
  trainer.sae.dispose();
  source.dispose();
}

const rows = 16_384;
const file = join(folder, "activations.safetensors");
{
  const values = device.empty([rows, 768]);
  new RandomGenerator(0).normal(values);
  await writeSafetensors(file, { activations: { shape: [rows, 768], data: await values.readFloat32() } });
  values.dispose();
}
await measure(
  "stored activations, 4096 x 768 -> 24576",
  await StoredActivations.open(file, device, { shuffle: true, seed: 0 }),
  parseConfig({
    sae: { architecture: "topk", dIn: 768, dSae: 24576, k: 32 },
    data: { activations: file },
    training: { steps: 20, logEvery: 10 },
    output: folder,
  }),
);

const model = await HookedTransformer.load(fileURLToPath(new URL("../../assets/tiny-gpt2", import.meta.url)), device);
const prompts = Array.from({ length: 64 }, () => [model.config.bosTokenId!]);
const texts = await model.generate(prompts, { maxNewTokens: 255, stopAtEos: false });
await measure(
  "tiny GPT-2, 2048 x 192 -> 1536",
  await ActivationBuffer.create({
    model,
    hook: "blocks.2.hook_resid_post",
    corpus: Corpus.fromDocuments(texts.map((tokens) => model.tokenizer.decode(tokens))),
    contextSize: 128,
    prependBos: true,
    excludeSpecialTokens: true,
    bufferTokens: 32_768,
    seed: 0,
  }),
  parseConfig({
    sae: { architecture: "topk", dIn: 192, dSae: 1536, k: 16 },
    data: { activations: file },
    training: { steps: 200, batchSize: 2048 },
    output: folder,
  }),
);
await device.close();
await rm(folder, { recursive: true });
