/**
 * What the architectures make of the same activations: loss recovered and L0 in the tiny GPT-2, at equal tokens, all
 * trained side by side on one stream.
 *
 *     npm run bench:quality                       # text that the model writes itself, as in the demo
 *     npm run bench:quality -- --steps 3000 --corpus 'texts/*.txt' --held-out 'more/*.txt'
 *
 * TopK, BatchTopK, Matryoshka and JumpReLU are told their L0. The others have a coefficient: a few of them are trained,
 * and the one that comes nearest to that L0 is shown.
 */
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import {
  ActivationBuffer,
  Corpus,
  contexts,
  Device,
  evaluateAllInModel,
  HookedTransformer,
  limitTokens,
  parseConfig,
  Trainer,
  type TrainingProgress,
} from "monosem";

const { values: flags } = parseArgs({
  options: {
    steps: { type: "string", default: "1500" },
    tokens: { type: "string", default: "400000" },
    l0: { type: "string", default: "16" },
    corpus: { type: "string", multiple: true },
    "held-out": { type: "string", multiple: true },
  },
});
const modelFolder = fileURLToPath(new URL("../../assets/tiny-gpt2", import.meta.url));
const hook = "blocks.2.hook_resid_post";
const cut = { contextSize: 128, prependBos: true };
const steps = Number(flags.steps);
const l0 = Number(flags.l0);
const [dSae, batchSize] = [1536, 2048];

/** The SAEs by the name of their row; the members of a row differ in their coefficient. */
const rows: Readonly<Record<string, readonly object[]>> = {
  relu: [2.5, 3.5, 5].map((l1Coefficient) => ({ architecture: "relu", l1Coefficient })),
  "relu, p-annealed to 0.5": [0.8, 1.3, 2].map((l1Coefficient) => ({
    architecture: "relu",
    l1Coefficient,
    pEnd: 0.5,
    pAnnealStart: Math.round(steps / 3),
    pAnnealSteps: Math.round(steps / 2),
  })),
  gated: [2.2, 3, 4].map((l1Coefficient) => ({ architecture: "gated", l1Coefficient })),
  jumprelu: [{ architecture: "jumprelu", targetL0: l0, l0Coefficient: 10, bandwidth: 0.5, initialThreshold: 0.5 }],
  topk: [{ architecture: "topk", k: l0, auxK: 32 }],
  batchtopk: [{ architecture: "batchtopk", k: l0, auxK: 32 }],
  "matryoshka (96, 384)": [{ architecture: "matryoshka", k: l0, auxK: 32, widths: [96, 384] }],
};

const device = await Device.open("auto");
const model = await HookedTransformer.load(modelFolder, device);
const corpus = flags.corpus ? await Corpus.fromFiles(flags.corpus) : await written(Number(flags.tokens), 1);
const heldOut = flags["held-out"] ? await Corpus.fromFiles(flags["held-out"]) : await written(20_000, 2);

const list = Object.entries(rows).flatMap(([row, members]) =>
  members.map((own, i) => ({ row, name: `${row.replaceAll(/[^\w.]+/g, "-")}-${i}`, own })),
);
const config = parseConfig({
  sae: list.map(({ name, own }) => ({
    name,
    dIn: model.hookWidth(hook),
    dSae,
    deadAfterTokens: 500_000,
    bDecInit: "geometric-median",
    normalizeActivations: "expected-average-only-in",
    ...own,
  })),
  data: { model: modelFolder, hook, corpus: ["in memory"], ...cut },
  training: {
    batchSize,
    steps,
    lr: 8e-4,
    lrWarmupSteps: Math.min(100, steps),
    l1WarmupSteps: Math.round(steps / 4),
    lrDecaySteps: Math.round(0.3 * steps),
    logEvery: Math.max(1, Math.floor(steps / 20)),
  },
  output: "unused",
});
const source = await ActivationBuffer.create({
  model,
  hook,
  corpus,
  ...cut,
  excludeSpecialTokens: true,
  bufferTokens: 131_072,
  seed: 0,
});
const { output: _, ...run } = config;
const trainer = await Trainer.create({ ...run, source, device });
const last = new Map<string, TrainingProgress>();
const began = performance.now();
for await (const progress of trainer.run()) {
  last.set(progress.name!, progress);
  if (progress.name === list[0]!.name) process.stderr.write(`step ${progress.step} of ${steps}\n`);
}
const seconds = (performance.now() - began) / 1000;

const evaluations = await evaluateAllInModel({
  saes: trainer.saes,
  hook,
  model,
  contexts: limitTokens(contexts(heldOut, model.tokenizer, cut), 20_000),
});
const measured = list.map(({ row, name, own }, i) => {
  const { lossRecovered, klDivergence } = evaluations[i]!;
  const { l0: trainedL0, explainedVariance, deadFraction } = last.get(name)!;
  return { row, own, lossRecovered, klDivergence, l0: trainedL0, explainedVariance, deadFraction };
});
const percent = (value: number): string => `${(100 * value).toFixed(1)} %`;
process.stdout.write(
  `${steps} steps of ${batchSize} tokens, ${model.hookWidth(hook)} -> ${dSae}, ${list.length} SAEs side by side in ${seconds.toFixed(0)} s\n\n` +
    "| architecture | L0 | loss recovered | KL | explained variance | dead |\n|---|---|---|---|---|---|\n",
);
for (const row of Object.keys(rows)) {
  const distance = (value: number): number => Math.abs(Math.log(value / l0));
  const [best] = measured.filter((one) => one.row === row).sort((a, b) => distance(a.l0) - distance(b.l0));
  const { own, l0: found, lossRecovered, klDivergence, explainedVariance, deadFraction } = best!;
  const coefficient = "l1Coefficient" in own ? `, λ = ${String(own.l1Coefficient)}` : "";
  process.stdout.write(
    `| ${row}${coefficient} | ${found.toFixed(1)} | ${percent(lossRecovered)} | ${klDivergence.toFixed(4)} | ` +
      `${percent(explainedVariance)} | ${percent(deadFraction)} |\n`,
  );
}
process.stderr.write(
  `${JSON.stringify(measured.map(({ row, own, l0: found, lossRecovered }) => ({ row, ...own, l0: found, lossRecovered })))}\n`,
);
await device.close();

/** Text that the model makes up, sampled at temperature 0.8. */
async function written(tokens: number, seed: number): Promise<Corpus> {
  const { contextSize, bosTokenId, eosTokenId } = model.config;
  const documents: string[] = [];
  for (let done = 0, round = 0; done < tokens; round++) {
    const sequences = await model.generate(
      Array.from({ length: 128 }, () => [bosTokenId!]),
      {
        maxNewTokens: contextSize - 1,
        temperature: 0.8,
        seed: seed * 1_000 + round,
        prependBos: false,
        stopAtEos: false,
      },
    );
    for (const sequence of sequences) {
      done += sequence.length;
      const ends = [-1, ...sequence.flatMap((token, i) => (token === eosTokenId ? [i] : [])), sequence.length];
      for (let i = 1; i < ends.length; i++) {
        const document = sequence.slice(ends[i - 1]! + 1, ends[i]);
        if (document.length > 0) documents.push(model.tokenizer.decode(document));
      }
    }
  }
  return Corpus.fromDocuments(documents);
}
