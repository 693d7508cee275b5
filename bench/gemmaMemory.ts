/**
 * Does Gemma-2-2B in bf16 fit into 8 GB? Writes a checkpoint of its shapes (weights of zeros: a sparse file that takes no
 * room on the disk), loads it, runs a context of 1,024 tokens up to a hook point and generates, and prints the process'
 * peak memory. Zeros take the memory and the time that any numbers take.
 *
 *     npm run bench:gemma-memory
 */
import { copyFileSync, ftruncateSync, mkdtempSync, openSync, rmSync, writeFileSync, writeSync } from "node:fs";
import { cpus, tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { Device, HookedTransformer } from "monosem";

// google/gemma-2-2b: config.json
const sizes = { hidden: 2304, mlp: 9216, layers: 26, heads: 8, keyHeads: 4, head: 256, vocabulary: 256_000 };
const config = {
  model_type: "gemma2",
  hidden_size: sizes.hidden,
  intermediate_size: sizes.mlp,
  num_hidden_layers: sizes.layers,
  num_attention_heads: sizes.heads,
  num_key_value_heads: sizes.keyHeads,
  head_dim: sizes.head,
  vocab_size: sizes.vocabulary,
  max_position_embeddings: 8192,
  query_pre_attn_scalar: 256,
  rms_norm_eps: 1e-6,
  rope_theta: 10_000,
  sliding_window: 4096,
  attn_logit_softcapping: 50,
  final_logit_softcapping: 30,
  hidden_activation: "gelu_pytorch_tanh",
  bos_token_id: 0,
  eos_token_id: 1,
};

function tensorShapes(): ReadonlyMap<string, readonly number[]> {
  const { hidden, mlp, layers, heads, keyHeads, head, vocabulary } = sizes;
  const shapes = new Map<string, readonly number[]>([
    ["model.embed_tokens.weight", [vocabulary, hidden]],
    ["model.norm.weight", [hidden]],
  ]);
  for (let layer = 0; layer < layers; layer++) {
    for (const [name, shape] of [
      ["input_layernorm", [hidden]],
      ["post_attention_layernorm", [hidden]],
      ["pre_feedforward_layernorm", [hidden]],
      ["post_feedforward_layernorm", [hidden]],
      ["self_attn.q_proj", [heads * head, hidden]],
      ["self_attn.k_proj", [keyHeads * head, hidden]],
      ["self_attn.v_proj", [keyHeads * head, hidden]],
      ["self_attn.o_proj", [hidden, heads * head]],
      ["mlp.gate_proj", [mlp, hidden]],
      ["mlp.up_proj", [mlp, hidden]],
      ["mlp.down_proj", [hidden, mlp]],
    ] as const) {
      shapes.set(`model.layers.${layer}.${name}.weight`, shape);
    }
  }
  return shapes;
}

/** @returns the bytes of the weights */
function writeCheckpoint(folder: string): number {
  let end = 0;
  const header: Record<string, object> = {};
  for (const [name, shape] of tensorShapes()) {
    const begin = end;
    end += 2 * shape.reduce((product, length) => product * length, 1);
    header[name] = { dtype: "BF16", shape, data_offsets: [begin, end] };
  }
  const json = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(json.length));
  const file = openSync(join(folder, "model.safetensors"), "w");
  writeSync(file, Buffer.concat([length, json]));
  ftruncateSync(file, 8 + json.length + end);
  writeFileSync(join(folder, "config.json"), JSON.stringify(config));
  for (const name of ["tokenizer.json", "tokenizer_config.json"]) {
    copyFileSync(fileURLToPath(new URL(`../../assets/tiny-gpt2/${name}`, import.meta.url)), join(folder, name));
  }
  return end;
}

const gibibytes = (bytes: number): string => `${(bytes / 2 ** 30).toFixed(2)} GiB`;
const peak = (): string => gibibytes(process.resourceUsage().maxRSS * 1024);
const folder = mkdtempSync(join(tmpdir(), "monosem-gemma-"));
try {
  console.log(`${cpus()[0]?.model}, ${cpus().length} cores, Node ${process.version}, ${new Date().toISOString()}`);
  console.log(`weights in bf16: ${gibibytes(writeCheckpoint(folder))}`);
  const device = await Device.open("cpu");
  let started = performance.now();
  const seconds = (): string => {
    const passed = (performance.now() - started) / 1000;
    started = performance.now();
    return `${passed.toFixed(1)} s`;
  };
  const model = await HookedTransformer.load(folder, device);
  await device.synchronize();
  console.log(`loaded in ${seconds()}; peak ${peak()}`);
  const tokens = [Array.from({ length: 1024 }, (_, i) => i % 2000)];
  await (await model.activations(tokens, "blocks.12.hook_resid_post")).readFloat32();
  console.log(`1,024 tokens to blocks.12.hook_resid_post in ${seconds()}; peak ${peak()}`);
  await model.generate(tokens, { maxNewTokens: 8, stopAtEos: false });
  console.log(`8 tokens behind them in ${seconds()}; peak ${peak()}`);
  await device.close();
} finally {
  rmSync(folder, { recursive: true });
}
