/** From the files of a model to a model on a device. */
import { dirname, extname, join } from "node:path";
import type { Device } from "../engine/device.js";
import { MonosemError } from "../errors.js";
import { exists } from "../formats/exists.js";
import { quotedValue } from "../schemaMessages.js";
import { Checkpoint } from "./checkpoint.js";
import { allTokens, tokenIds } from "./families/family.js";
import { familyOf } from "./families.js";
import { readJsonObject, readJsonObjectIfPresent } from "./jsonFile.js";
import { loadLlama2c } from "./llama2c.js";
import type { ModelSource } from "./locateModel.js";
import type { ModelConfig } from "./modelConfig.js";
import { requireModelMemory } from "./modelMemory.js";
import type { ModelWeights } from "./modelWeights.js";
import { checkProcessing, type ProcessingOptions, processWeights } from "./processing.js";
import { Tokenizer } from "./tokenizer.js";
import { Transformer } from "./transformer.js";
import { WeightLoader } from "./weightLoader.js";

/** How to load a model. */
export interface ModelLoadOptions extends ProcessingOptions {
  /** Options of processing that follow from what the model is, beside those given here. */
  readonly processingFor?: ((config: ModelConfig) => ProcessingOptions) | undefined;
  /**
   * Where its tokenizer is: a folder with tokenizer.json, or a file of llama2.c. Default: the model's folder; for a file
   * of llama2.c, tokenizer.bin beside it. Where there is none, the model takes token ids only.
   */
  readonly tokenizer?: string | undefined;
}

interface Loaded {
  readonly config: ModelConfig;
  readonly weights: ModelWeights;
  /** Those that the weights were read from. */
  readonly files: readonly string[];
  readonly tokenizer: Tokenizer | undefined;
}

/** What `HookedTransformer.load` says. */
export async function loadModel(
  { directory: path, name }: ModelSource,
  device: Device,
  options: ModelLoadOptions,
): Promise<{ readonly model: Transformer } & Pick<Loaded, "tokenizer" | "files">> {
  const load = extname(path) === ".bin" ? fromLlama2c : fromFolder;
  const loaded = await load(path, device, options);
  const { weights, tokenizer, files } = loaded;
  const config = { ...loaded.config, name };
  return {
    model: new Transformer(config, processWeights(weights, config, config.processing, device), device),
    tokenizer,
    files,
  };
}

async function fromFolder(directory: string, device: Device, options: ModelLoadOptions): Promise<Loaded> {
  const path = join(directory, "config.json");
  const json = await readJsonObject(path);
  const family = familyOf(json, path);
  const tokenizer = await loadTokenizer(options.tokenizer, join(directory, "tokenizer.json"));
  const parsed = family.parseConfig(json, directory);
  const stopTokenIds = (await stopTokensForGeneration(directory)) ?? parsed.stopTokenIds;
  const config = completed({ ...parsed, stopTokenIds }, tokenizer, options);
  await using checkpoint = await Checkpoint.open(directory);
  const loader = new WeightLoader(checkpoint, device);
  requireModelMemory(device, loader.bytesOnDevice, config.name, loader.bytesWhileReading);
  try {
    return { config, weights: await family.loadWeights(loader, config), tokenizer, files: checkpoint.paths };
  } catch (error) {
    loader.disposeAll();
    throw error;
  }
}

/**
 * `eos_token_id` of generation_config.json, one or several; undefined where the file, or the entry, is not there.
 *
 * @throws MonosemError ERR_FORMAT
 */
async function stopTokensForGeneration(directory: string): Promise<readonly number[] | undefined> {
  const path = join(directory, "generation_config.json");
  const { eos_token_id: entry } = (await readJsonObjectIfPresent(path)) ?? {};
  if (entry === undefined || entry === null) return undefined;
  const parsed = tokenIds.safeParse(entry);
  if (parsed.success) return allTokens(parsed.data);
  throw new MonosemError(
    "ERR_FORMAT",
    `${path}: eos_token_id must be a token id or a list of them, found ${quotedValue(entry)}`,
  );
}

async function fromLlama2c(path: string, device: Device, options: ModelLoadOptions): Promise<Loaded> {
  const tokenizer = await loadTokenizer(options.tokenizer, join(dirname(path), "tokenizer.bin"));
  const { config, weights } = await loadLlama2c(path, device, (found) => completed(found, tokenizer, options));
  return { config, weights, tokenizer, files: [path] };
}

/** The tokenizer that was named, or the one beside the weights, if there is one. */
async function loadTokenizer(named: string | undefined, beside: string): Promise<Tokenizer | undefined> {
  if (named !== undefined) return await Tokenizer.load(named);
  return (await exists(beside)) ? await Tokenizer.load(beside) : undefined;
}

/** The configuration with what the tokenizer and the options add, checked against them. */
function completed(config: ModelConfig, tokenizer: Tokenizer | undefined, options: ModelLoadOptions): ModelConfig {
  const { vocabularySize = 0, bosTokenId = config.bosTokenId, eosTokenId = config.eosTokenId } = tokenizer ?? {};
  if (vocabularySize > config.vocabularySize) {
    throw new MonosemError(
      "ERR_FORMAT",
      `the tokenizer of ${config.name} has ids up to ${vocabularySize - 1}, but the model has a vocab_size of ` +
        `${config.vocabularySize}: the two do not belong together`,
    );
  }
  const asked = { ...options, ...options.processingFor?.(config) };
  checkProcessing(asked, config);
  const { foldLn = false, centerWritingWeights = false, centerUnembed = false, foldValueBiases = false } = asked;
  const processing = { foldLn, centerWritingWeights, centerUnembed, foldValueBiases };
  const stopTokenIds = [...new Set([...(eosTokenId === undefined ? [] : [eosTokenId]), ...config.stopTokenIds])];
  return { ...config, bosTokenId, eosTokenId, stopTokenIds, processing };
}
