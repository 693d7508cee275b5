/**
 * What gathering features costs beside the model's forward pass: a model of GPT-2 small's size and an SAE of 24,576
 * latents (top-k 32), both with random weights, on random tokens. Batch by batch, in one process, the model alone runs up
 * to the hook, and then the whole pass on the same tokens (model, SAE, metrics, collector). Prints a table for RESULTS.md.
 *
 *     npm run bench:feature-store -- [tokens] [--layer N]
 *
 * Random activations are the hard case: every latent fires, on many different tokens, and none is rare.
 */
import { copyFileSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { cpus, loadavg, tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import {
  buildFeatureStore,
  Corpus,
  collectFeatures,
  Device,
  HookedTransformer,
  Sae,
  type SafetensorsInput,
  writeSafetensors,
} from "monosem";

const { values, positionals } = parseArgs({
  options: { layer: { type: "string", default: "11" } },
  allowPositionals: true,
});
const tokens = Number(positionals[0] ?? 100_000);
const hook = `blocks.${values.layer}.hook_resid_post`;
const [dModel, dMlp, nLayers, vocabulary, contextSize, perBatch] = [768, 3072, 12, 50257, 128, 8];
const [dSae, k] = [24_576, 32];

interface Cost {
  wallMs: number;
  cpuMs: number;
}

function stopwatch(): () => Cost {
  const [cpu, wall] = [process.cpuUsage(), performance.now()];
  return () => {
    const { user, system } = process.cpuUsage(cpu);
    return { wallMs: performance.now() - wall, cpuMs: (user + system) / 1e3 };
  };
}

/** Numbers that look random, in [-1, 1]. */
function random(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 31 - 1;
  };
}

async function writeModel(folder: string): Promise<void> {
  const next = random(1);
  const normal = (...shape: number[]): SafetensorsInput => {
    const size = shape.reduce((product, length) => product * length, 1);
    return { shape, data: Float32Array.from({ length: size }, () => next() * 0.035) };
  };
  const constant = (value: number, width: number): SafetensorsInput => ({
    shape: [width],
    data: new Float32Array(width).fill(value),
  });
  const tensors: Record<string, SafetensorsInput> = {
    "wte.weight": normal(vocabulary, dModel),
    "wpe.weight": normal(1024, dModel),
    "ln_f.weight": constant(1, dModel),
    "ln_f.bias": constant(0, dModel),
  };
  for (let layer = 0; layer < nLayers; layer++) {
    for (const [name, inputs, outputs] of [
      ["attn.c_attn", dModel, 3 * dModel],
      ["attn.c_proj", dModel, dModel],
      ["mlp.c_fc", dModel, dMlp],
      ["mlp.c_proj", dMlp, dModel],
    ] as const) {
      tensors[`h.${layer}.${name}.weight`] = normal(inputs, outputs);
      tensors[`h.${layer}.${name}.bias`] = constant(0, outputs);
    }
    for (const norm of ["ln_1", "ln_2"]) {
      tensors[`h.${layer}.${norm}.weight`] = constant(1, dModel);
      tensors[`h.${layer}.${norm}.bias`] = constant(0, dModel);
    }
  }
  await writeSafetensors(join(folder, "model.safetensors"), tensors);
  writeFileSync(
    join(folder, "config.json"),
    JSON.stringify({
      model_type: "gpt2",
      n_layer: nLayers,
      n_head: 12,
      n_embd: dModel,
      n_positions: 1024,
      vocab_size: vocabulary,
      activation_function: "gelu_new",
      layer_norm_epsilon: 1e-5,
      bos_token_id: 0,
      eos_token_id: 0,
    }),
  );
  copyFileSync(
    fileURLToPath(new URL("../../assets/tiny-gpt2/tokenizer.json", import.meta.url)),
    join(folder, "tokenizer.json"),
  );
}

const folder = mkdtempSync(join(tmpdir(), "monosem-bench-"));
try {
  await writeModel(folder);
  const device = await Device.open("cpu", { threads: 2 });
  const model = await HookedTransformer.load(folder, device);
  const sae = Sae.create({ architecture: "topk", dIn: dModel, dSae, k, applyBDecToInput: true }, device, 1, {
    metadata: { hookName: hook, prependBos: false },
  });
  console.log(
    `${cpus()[0]?.model}, ${cpus().length} cores, load ${loadavg()[0]!.toFixed(1)}, Node ${process.version}, ${new Date().toISOString()}`,
  );

  const next = random(2);
  const forward: Cost = { wallMs: 0, cpuMs: 0 };
  /** One batch after the other; before each, the model alone on the same tokens. */
  async function* contexts(): AsyncGenerator<Int32Array> {
    for (let done = 0; done < tokens; done += perBatch * contextSize) {
      const batch = Array.from({ length: perBatch }, () =>
        Int32Array.from({ length: contextSize }, () => 1 + Math.floor(((next() + 1) / 2) * (vocabulary - 2))),
      );
      const stop = stopwatch();
      using activations = await model.activations(batch, hook);
      using corner = device.kernels.sliceRows(activations, 0, 1);
      await corner.readFloat32();
      const cost = stop();
      forward.wallMs += cost.wallMs;
      forward.cpuMs += cost.cpuMs;
      yield* batch;
    }
  }
  // Warms up; what is measured begins after it.
  using warm = await model.activations([Int32Array.from({ length: contextSize }, (_, token) => token + 1)], hook);
  await warm.readFloat32();
  const stop = stopwatch();
  const marks: { tokens: number; ms: number }[] = [];
  const { statistics } = await collectFeatures({
    sae,
    model,
    contexts: contexts(),
    contextsPerBatch: perBatch,
    onProgress: (progress) => marks.push({ tokens: progress.tokens, ms: stop().cpuMs - forward.cpuMs }),
  });
  const all = stop();
  const pass: Cost = { wallMs: all.wallMs - forward.wallMs, cpuMs: all.cpuMs - forward.cpuMs };
  const perToken = ({ wallMs, cpuMs }: Cost): string =>
    `${((1e3 * wallMs) / statistics.tokens).toFixed(0)} (${((1e3 * cpuMs) / statistics.tokens).toFixed(0)})`;
  const share = (part: keyof Cost): string => `${(100 * (pass[part] / forward[part] - 1)).toFixed(1)} %`;
  console.log(`\n${statistics.tokens} tokens up to ${hook}; µs per token, wall clock (CPU, 2 threads)\n`);
  console.log("| model alone | whole pass | more, wall | more, CPU | latents that fire |\n|---|---|---|---|---|");
  console.log(
    `| ${perToken(forward)} | ${perToken(pass)} | ${share("wallMs")} | ${share("cpuMs")} | ${dSae - statistics.deadLatents} |`,
  );
  const half = marks[Math.floor(marks.length / 2)]!;
  const last = marks.at(-1)!;
  console.log(
    `\nCPU µs per token of the pass: first half ${((1e3 * half.ms) / half.tokens).toFixed(0)}, second half ${((1e3 * (last.ms - half.ms)) / (last.tokens - half.tokens)).toFixed(0)}`,
  );

  const corpus = Corpus.fromDocuments(["She looked at him for a long time, and then she said no. ".repeat(400)]);
  const store = join(folder, "store");
  let writing: (() => Cost) | undefined;
  const written = await buildFeatureStore(store, {
    sae,
    model,
    corpus,
    contextSize,
    prependBos: false,
    tokens: 4096,
    onProgress: () => {
      writing ??= stopwatch();
    },
  });
  const cost = writing!();
  await written.close();
  console.log(
    `\nneighbours, logit effects and the store of ${dSae} latents: ${(cost.wallMs / 1e3).toFixed(0)} s (${(cost.cpuMs / 1e3).toFixed(0)} s CPU); peak memory ${(process.resourceUsage().maxRSS / 2 ** 20).toFixed(2)} GiB`,
  );
  await device.close();
} finally {
  rmSync(folder, { recursive: true });
}
