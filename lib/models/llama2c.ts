/**
 * Checkpoints of llama2.c (github.com/karpathy/llama2.c), such as the TinyStories models: a Llama whose rotary pairs are
 * neighbours, in one file of little-endian numbers.
 *
 *     version 0   7 i32: dim, hidden_dim, n_layers, n_heads, n_kv_heads, vocab_size (negative: an unembedding of its
 *                 own), seq_len; then f32: embedding, attention norms, W_Q, W_K, W_V, W_O, MLP norms, W_gate, W_out, W_in,
 *                 final norm, a table of cosines and one of sines, the unembedding if it is not the embedding
 *     version 1   "ak42", i32 1, the 7 i32 with a positive vocab_size, u8: whether the embedding is the unembedding,
 *                 zeros up to byte 256; then f32: attention norms, MLP norms, final norm, embedding, W_Q, W_K, W_V, W_O,
 *                 W_gate, W_out, W_in, the unembedding
 *
 * Each of these holds all layers, one after the other; matrices are [out, in].
 */
import { type FileHandle, open } from "node:fs/promises";
import { basename } from "node:path";
import type { Device } from "../engine/device.js";
import type { Tensor } from "../engine/tensor.js";
import { MonosemError } from "../errors.js";
import { type ModelConfig, unprocessed } from "./modelConfig.js";
import { requireModelMemory } from "./modelMemory.js";
import type { ModelWeights } from "./modelWeights.js";

const headerBytes = 28;
const magic = 0x616b3432; // "ak42"
const headerBytesOfVersion1 = 256;
const mostOfAnything = 2 ** 24;

/** Tensors of one kind, one per layer, in the order of the file. */
interface Section {
  readonly name: string;
  readonly count: number;
  readonly shape: readonly number[];
}

type Sizes = Pick<
  ModelConfig,
  | "dModel"
  | "dMlp"
  | "dHead"
  | "nHeads"
  | "nKeyValueHeads"
  | "nLayers"
  | "contextSize"
  | "vocabularySize"
  | "tiedEmbeddings"
>;

/** What the beginning of a file says. */
export interface Llama2cHeader {
  readonly config: ModelConfig;
  /** Where the numbers begin. */
  readonly offset: number;
  readonly sections: readonly Section[];
  /** How many numbers there are. */
  readonly elements: number;
}

/**
 * Loads a checkpoint.
 *
 * @param complete - adds to the configuration what the file does not say, or refuses it, before any weight is read
 * @throws MonosemError ERR_NOT_FOUND, ERR_IO, ERR_FORMAT where the file is no such checkpoint or not as long as its
 *   header says, ERR_UNSUPPORTED for a quantised one, ERR_NON_FINITE, ERR_OUT_OF_MEMORY
 */
export async function loadLlama2c(
  path: string,
  device: Device,
  complete: (config: ModelConfig) => ModelConfig,
): Promise<{ readonly config: ModelConfig; readonly weights: ModelWeights }> {
  const handle = await openFile(path);
  const tensors: Tensor[] = [];
  try {
    const fileBytes = (await handle.stat()).size;
    const {
      config: found,
      offset,
      sections,
      elements,
    } = parseHeader(await readHeader(handle, fileBytes), fileBytes, path);
    const config = complete(found);
    requireModelMemory(device, 4 * elements, config.name);

    const loaded = new Map<string, Tensor[]>();
    let position = offset;
    for (const { name, count, shape } of sections) {
      const size = shape.reduce((a, b) => a * b, 1);
      const parts: Tensor[] = [];
      for (let i = 0; i < count; i++, position += 4 * size) {
        if (name === "cosines" || name === "sines") continue; // computed anew, in double
        const values = await readFloats(handle, position, size, path);
        const bad = values.findIndex((value) => !Number.isFinite(value));
        if (bad >= 0) {
          throw new MonosemError(
            "ERR_NON_FINITE",
            `${path}: ${name} of layer ${i} holds ${values[bad]} at element ${bad}`,
          );
        }
        const tensor = device.tensor(values, shape);
        tensors.push(tensor);
        parts.push(tensor);
      }
      loaded.set(name, parts);
    }
    const of = (name: string, layer = 0): Tensor => loaded.get(name)![layer]!;
    const blocks = Array.from({ length: config.nLayers }, (_, layer) => ({
      ln1: { weight: of("ln1", layer) },
      queries: { weights: of("queries", layer) },
      keys: { weights: of("keys", layer) },
      values: { weights: of("values", layer) },
      attentionOutput: { weights: of("attentionOutput", layer) },
      ln2: { weight: of("ln2", layer) },
      mlpGate: { weights: of("mlpGate", layer) },
      mlpInput: { weights: of("mlpInput", layer) },
      mlpOutput: { weights: of("mlpOutput", layer) },
    }));
    const tokenEmbedding = of("embedding");
    const unembedding = { weights: config.tiedEmbeddings ? tokenEmbedding : of("unembedding") };
    return { config, weights: { tokenEmbedding, blocks, finalNorm: { weight: of("finalNorm") }, unembedding } };
  } catch (error) {
    for (const tensor of tensors) tensor.dispose();
    throw error;
  } finally {
    await handle.close();
  }
}

/**
 * Reads the beginning of a file, at least its first 256 bytes where it has as many.
 *
 * @throws MonosemError ERR_FORMAT, ERR_UNSUPPORTED
 */
export function parseHeader(bytes: Buffer, fileBytes: number, path: string): Llama2cHeader {
  const refuse = (problem: string): never => {
    throw new MonosemError("ERR_FORMAT", `${path} is no llama2.c checkpoint: ${problem}`);
  };
  if (bytes.length < headerBytes) refuse(`it has ${bytes.length} bytes`);
  const versioned = bytes.readUInt32LE(0) === magic;
  const version = versioned ? bytes.readInt32LE(4) : 0;
  if (version !== 0 && version !== 1) {
    throw new MonosemError(
      "ERR_UNSUPPORTED",
      `${path}: version ${version} (quantised) is not supported; use version 0 or 1`,
    );
  }
  if (versioned && bytes.length < headerBytesOfVersion1) refuse(`it has ${bytes.length} bytes`);
  const at = versioned ? 8 : 0;
  const [dModel, dMlp, nLayers, nHeads, nKeyValueHeads, vocabulary, contextSize] = Array.from({ length: 7 }, (_, i) =>
    bytes.readInt32LE(at + 4 * i),
  ) as [number, number, number, number, number, number, number];
  const sizes = { dim: dModel, hidden_dim: dMlp, n_layers: nLayers, n_heads: nHeads, n_kv_heads: nKeyValueHeads };
  for (const [name, value] of Object.entries({ ...sizes, vocab_size: Math.abs(vocabulary), seq_len: contextSize })) {
    if (value < 1 || value > mostOfAnything) refuse(`${name} is ${value}`);
  }
  if (dModel % nHeads !== 0 || nHeads % nKeyValueHeads !== 0 || (dModel / nHeads) % 2 !== 0) {
    refuse(`dim ${dModel}, n_heads ${nHeads} and n_kv_heads ${nKeyValueHeads} do not fit together`);
  }
  const dHead = dModel / nHeads;
  const tiedEmbeddings = versioned ? bytes[at + headerBytes] === 1 : vocabulary > 0;
  const found: Sizes = {
    dModel,
    dMlp,
    dHead,
    nHeads,
    nKeyValueHeads,
    nLayers,
    contextSize,
    vocabularySize: Math.abs(vocabulary),
    tiedEmbeddings,
  };
  // First of all: what the file does not hold is not made room for either.
  const offset = versioned ? headerBytesOfVersion1 : headerBytes;
  const sections = sectionsOf(found, versioned);
  const elements = sections.reduce((sum, { count, shape }) => sum + count * shape.reduce((a, b) => a * b, 1), 0);
  if (!Number.isSafeInteger(4 * elements) || offset + 4 * elements !== fileBytes) {
    refuse(`it has ${fileBytes} bytes, but its header asks for ${offset + 4 * elements} (is it truncated?)`);
  }
  const perLayer = <T>(value: T): T[] => Array.from({ length: nLayers }, () => value);
  const config: ModelConfig = {
    architecture: "llama",
    name: basename(path, ".bin"),
    ...found,
    normalization: "rms",
    normEpsilon: 1e-5,
    activation: "silu",
    gatedMlp: true,
    parallelBlocks: false,
    postNorms: false,
    queryKeyNorms: false,
    biases: { queriesKeysValues: false, attentionOutput: false, mlp: false },
    rotary: {
      frequencies: Array.from({ length: dHead / 2 }, (_, i) => 10000 ** ((-2 * i) / dHead)),
      factor: 1,
      interleaved: true,
    },
    attentionScales: perLayer(1 / Math.sqrt(dHead)),
    attentionWindows: perLayer(undefined),
    attentionSoftCap: undefined,
    logitSoftCap: undefined,
    embeddingScale: 1,
    processing: unprocessed,
    bosTokenId: undefined, // the tokenizer knows
    eosTokenId: undefined,
    stopTokenIds: [],
  };
  return { config, offset, sections, elements };
}

function sectionsOf(config: Sizes, versioned: boolean): readonly Section[] {
  const { dModel, dMlp, dHead, nHeads, nKeyValueHeads, nLayers, contextSize, vocabularySize } = config;
  const one = (name: string, ...shape: number[]): Section => ({ name, count: 1, shape });
  const perLayer = (name: string, ...shape: number[]): Section => ({ name, count: nLayers, shape });
  const [ln1, ln2, finalNorm] = [perLayer("ln1", dModel), perLayer("ln2", dModel), one("finalNorm", dModel)];
  const embedding = one("embedding", vocabularySize, dModel);
  const attention = [
    perLayer("queries", nHeads * dHead, dModel),
    perLayer("keys", nKeyValueHeads * dHead, dModel),
    perLayer("values", nKeyValueHeads * dHead, dModel),
    perLayer("attentionOutput", dModel, nHeads * dHead),
  ];
  const mlp = [
    perLayer("mlpGate", dMlp, dModel),
    perLayer("mlpOutput", dModel, dMlp),
    perLayer("mlpInput", dMlp, dModel),
  ];
  const unembedding = config.tiedEmbeddings ? [] : [one("unembedding", vocabularySize, dModel)];
  return versioned
    ? [ln1, ln2, finalNorm, embedding, ...attention, ...mlp, ...unembedding]
    : [
        embedding,
        ln1,
        ...attention,
        ln2,
        ...mlp,
        finalNorm,
        one("cosines", contextSize, dHead / 2),
        one("sines", contextSize, dHead / 2),
        ...unembedding,
      ];
}

async function openFile(path: string): Promise<FileHandle> {
  try {
    return await open(path, "r");
  } catch (error) {
    const missing = (error as NodeJS.ErrnoException).code === "ENOENT";
    throw new MonosemError(
      missing ? "ERR_NOT_FOUND" : "ERR_IO",
      missing ? `${path} does not exist` : `${path} cannot be read: ${(error as Error).message}`,
      { cause: error },
    );
  }
}

async function readHeader(handle: FileHandle, fileBytes: number): Promise<Buffer> {
  const bytes = Buffer.alloc(Math.min(headerBytesOfVersion1, fileBytes));
  await handle.read(bytes, 0, bytes.length, 0);
  return bytes;
}

async function readFloats(handle: FileHandle, position: number, count: number, path: string): Promise<Float32Array> {
  const values = new Float32Array(count);
  const bytes = new Uint8Array(values.buffer);
  for (let done = 0; done < bytes.length; ) {
    const { bytesRead } = await handle.read(bytes, done, Math.min(bytes.length - done, 2 ** 30), position + done);
    if (bytesRead === 0) throw new MonosemError("ERR_FORMAT", `${path} became shorter while it was read`);
    done += bytesRead;
  }
  return values;
}
