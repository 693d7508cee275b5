/** Synthetic data as files: the truth, from which every sample can be drawn again, and samples for other programs. */
import { readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import type { Device } from "../engine/device.js";
import type { Tensor } from "../engine/tensor.js";
import { MonosemError, throwIfAborted } from "../errors.js";
import { writeDirectoryAtomically } from "../formats/atomicFile.js";
import { parseJsonText } from "../formats/jsonText.js";
import { makeDirectory } from "../formats/makeDirectory.js";
import { SafetensorsFile, SafetensorsWriter, writeSafetensors } from "../formats/safetensors.js";
import { parseSyntheticConfig, type SyntheticConfig, type SyntheticOptions } from "./syntheticConfig.js";
import { SyntheticModel } from "./syntheticModel.js";

/** Of the file of the truth: marks what it is, and how to read it. */
const format = "monosem synthetic data 1";

/** Names of the file of the truth and of the folder of samples in what {@link writeSynthetic} writes. */
export const truthFileName = "truth.safetensors";
export const samplesFolderName = "activations";

/** Samples drawn, and read from the device, at once. */
const rowsAtOnce = 8192;

/** Samples per file: half a gigabyte at width 128. */
const rowsPerShard = 2 ** 20;

/**
 * Writes the truth: directions [features, dIn], bias [dIn], probabilities, means, deviations [features], factors
 * [features, rank] (unless the rank is 0), all F32, and the configuration as metadata.
 *
 * @throws MonosemError ERR_IO.
 */
export async function saveSyntheticModel(model: SyntheticModel, path: string): Promise<void> {
  const tensors: Record<string, { shape: readonly number[]; data: Float32Array }> = {};
  for (const [name, tensor] of Object.entries(tensorsOf(model))) {
    tensors[name] = { shape: tensor.shape, data: await tensor.readFloat32() };
  }
  await writeSafetensors(path, tensors, { format, config: JSON.stringify(model.config) });
}

/**
 * Reads what {@link saveSyntheticModel} wrote; the model draws the same samples again.
 *
 * @param path - the file, or the folder that {@link writeSynthetic} wrote
 * @throws MonosemError ERR_NOT_FOUND, ERR_FORMAT, ERR_CONFIG, ERR_SHAPE_MISMATCH, ERR_NON_FINITE, ERR_IO.
 */
export async function loadSyntheticModel(path: string, device: Device): Promise<SyntheticModel> {
  const isFolder = (await stat(path).catch(() => undefined))?.isDirectory() ?? false;
  await using file = await SafetensorsFile.open(isFolder ? join(path, truthFileName) : path);
  const config = configOf(file);
  const read = async (name: string): Promise<Tensor> => {
    const { shape } = file.entry(name);
    const data = await file.readFloat32(name);
    if (!data.every(Number.isFinite)) {
      throw new MonosemError("ERR_NON_FINITE", `${name} of ${file.path} holds NaN or infinity`);
    }
    return device.tensor(data, shape);
  };
  const [directions, bias, probabilities, means, deviations, factors] = [
    await read("directions"),
    await read("bias"),
    await read("probabilities"),
    await read("means"),
    await read("deviations"),
    config.correlation.rank > 0 ? await read("factors") : undefined,
  ];
  const distribution = { probabilities, means, deviations, factors, ...config.hierarchy };
  return new SyntheticModel(config, { directions, bias, distribution });
}

/**
 * Writes a folder with the truth (truth.safetensors) and samples: activations/activations-00000.safetensors and so on, F32
 * [rows, dIn] under "activations", in the order of their numbers. The folder appears as a whole at the end.
 *
 * @throws MonosemError ERR_CONFIG when the folder exists and is not empty; ERR_ABORTED by the signal; ERR_IO.
 */
export async function writeSynthetic(
  model: SyntheticModel,
  directory: string,
  options: {
    readonly samples: number;
    readonly firstSample?: number;
    readonly signal?: AbortSignal | undefined;
    /** Called with the number of samples written so far. */
    readonly onProgress?: (samples: number) => void;
  },
): Promise<void> {
  await makeEmptyFolder(directory);
  const { samples, firstSample = 0, signal, onProgress } = options;
  await writeDirectoryAtomically(directory, async (temporary) => {
    await saveSyntheticModel(model, join(temporary, truthFileName));
    await makeDirectory(join(temporary, samplesFolderName));
    for (let shard = 0; shard * rowsPerShard < samples; shard++) {
      const first = shard * rowsPerShard;
      const name = `activations-${String(shard).padStart(5, "0")}.safetensors`;
      await writeSamples(model, join(temporary, samplesFolderName, name), {
        first: firstSample + first,
        rows: Math.min(rowsPerShard, samples - first),
        signal,
        onProgress: (rows) => onProgress?.(first + rows),
      });
    }
  });
}

/**
 * Makes the folder that {@link writeSynthetic} writes to.
 *
 * @throws MonosemError ERR_CONFIG when it exists and is not empty; ERR_IO.
 */
export async function makeEmptyFolder(directory: string): Promise<void> {
  await makeDirectory(directory);
  if ((await readdir(directory)).length > 0) {
    throw new MonosemError("ERR_CONFIG", `the folder ${directory} is not empty: remove it, or choose another`);
  }
}

async function writeSamples(
  model: SyntheticModel,
  path: string,
  shard: { first: number; rows: number; signal: AbortSignal | undefined; onProgress: (rows: number) => void },
): Promise<void> {
  const { first, rows, signal, onProgress } = shard;
  const shape = [rows, model.config.dIn];
  const writer = await SafetensorsWriter.create(path, [{ name: "activations", dtype: "F32", shape }]);
  try {
    for (let row = 0; row < rows; row += rowsAtOnce) {
      throwIfAborted(signal, "writing synthetic data");
      const count = Math.min(rowsAtOnce, rows - row);
      using codes = model.codes(count, first + row);
      using activations = model.activations(codes);
      await writer.write("activations", await activations.readFloat32());
      onProgress(row + count);
    }
  } catch (error) {
    await writer.abort();
    throw error;
  }
  await writer.close();
}

function tensorsOf({ truth }: SyntheticModel): Readonly<Record<string, Tensor>> {
  const { directions, bias, distribution } = truth;
  const { probabilities, means, deviations, factors } = distribution;
  return { directions, bias, probabilities, means, deviations, ...(factors && { factors }) };
}

function configOf(file: SafetensorsFile): SyntheticConfig {
  const found = file.metadata.format;
  if (found !== format) {
    const which = found === undefined ? "no format" : `the format ${JSON.stringify(found)}`;
    throw new MonosemError(
      "ERR_FORMAT",
      `${file.path} is no truth of synthetic data, the ${truthFileName} that \`monosem toy synthetic\` writes: ` +
        `its metadata name ${which}, expected "${format}"`,
    );
  }
  const json = parseJsonText(file.metadata.config ?? "", `the configuration in ${file.path}`);
  return parseSyntheticConfig(json as SyntheticOptions);
}
