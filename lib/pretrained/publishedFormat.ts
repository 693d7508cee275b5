/**
 * What a published format is: a name, what it is known by, and how its files become an SAE. A format is a file beside this
 * one and a line in formats.ts.
 */
import type { z } from "zod";
import { MonosemError } from "../errors.js";
import { isFloatingPoint, type TensorFile, toFloat32 } from "../formats/tensorArray.js";
import { type CheckedSaeConfig, parseSaeConfig } from "../sae/config.js";
import { parameterLayout } from "../sae/parameterLayout.js";
import { refuseNonFinite } from "../sae/saeLensFolder.js";
import type { SaeLoadOptions, StoredSae, StoredWeight } from "../sae/storedSae.js";
import { checkedBy } from "../schemaMessages.js";
import type { Location } from "./location.js";

export interface PublishedFormat {
  readonly name: string;
  /** The files that it is known by, for people. */
  readonly knownBy: string;
  /** By the names of files only. */
  recognises(location: Location): boolean;
  /**
   * @throws MonosemError ERR_NOT_FOUND for a missing file or tensor, ERR_FORMAT for a malformed file or an unexpected
   *   tensor, ERR_UNSUPPORTED for what cannot be said as one of our architectures, ERR_NON_FINITE, ERR_IO
   */
  read(location: Location, options: SaeLoadOptions): Promise<StoredSae>;
}

/** Which tensor of a file a parameter is. */
export interface TensorChoice {
  readonly tensor: string;
  /** Whether it is the transpose of what `parameterLayout` says. */
  readonly transposed?: boolean;
}

/** A parameter that is one of the file's tensors, or follows from them: then as `parameterLayout` says. */
export type WeightChoice = TensorChoice | { readonly values: Float32Array };

/**
 * The parameters of an SAE from a file's tensors.
 *
 * @param choices - by our names, for all parameters of the configuration; a parameter of [dSae] may be a scalar in the file
 * @param options.ignored - tensors that a file may have besides: records of the training
 * @throws MonosemError as `PublishedFormat.read`
 */
export async function readWeights(
  file: TensorFile,
  config: CheckedSaeConfig,
  choices: Readonly<Record<string, WeightChoice>>,
  { ignored = [] }: { readonly ignored?: readonly string[] } = {},
): Promise<StoredSae["weights"]> {
  const wanted = Object.values(choices).flatMap((choice) => ("tensor" in choice ? [choice.tensor] : []));
  refuseTensors(file, [...wanted, ...ignored]);
  const weights: Record<string, StoredWeight> = {};
  for (const { name, shape } of parameterLayout(config)) {
    const choice = choices[name]!;
    if ("values" in choice) {
      weights[name] = { values: choice.values, transposed: false };
      continue;
    }
    const { tensor, transposed = false } = choice;
    const values = await readShaped(file, tensor, transposed ? [...shape].reverse() : shape);
    weights[name] = { values, transposed };
  }
  return weights;
}

/** @throws MonosemError ERR_FORMAT naming tensors besides those that are expected */
function refuseTensors(file: TensorFile, expected: readonly string[]): void {
  const unexpected = [...file.entries.keys()].filter((name) => !expected.includes(name));
  if (unexpected.length === 0) return;
  throw new MonosemError(
    "ERR_FORMAT",
    `${file.path}: unexpected tensor ${unexpected.slice(0, 10).join(", ")}; expected ${expected.join(", ")} and nothing else`,
  );
}

/**
 * A tensor as f32.
 *
 * @param shape - of which it must be, or a scalar that stands for all of a vector
 */
export async function readShaped(file: TensorFile, tensor: string, shape: readonly number[]): Promise<Float32Array> {
  const found = shapeOf(file, tensor);
  const scalar = found.length === 0 && shape.length === 1;
  if (!scalar && found.join() !== shape.join()) {
    throw new MonosemError(
      "ERR_FORMAT",
      `${file.path}: tensor ${tensor} has shape [${found.join(", ")}], expected [${shape.join(", ")}]`,
    );
  }
  const array = await file.read(tensor);
  if (!isFloatingPoint(array.dtype)) {
    throw new MonosemError("ERR_FORMAT", `${file.path}: tensor ${tensor} is ${array.dtype}, expected floating point`);
  }
  const values = toFloat32(array);
  refuseNonFinite(values, `${file.path}: tensor ${tensor}`);
  return scalar ? new Float32Array(shape[0]!).fill(values[0]!) : values;
}

/** @throws MonosemError ERR_NOT_FOUND when the file does not have the tensor */
export function shapeOf(file: TensorFile, tensor: string): readonly number[] {
  const entry = file.entries.get(tensor);
  if (entry !== undefined) return entry.shape;
  const names = [...file.entries.keys()].slice(0, 20).join(", ");
  throw new MonosemError("ERR_NOT_FOUND", `${file.path}: tensor ${tensor} is missing; there are ${names || "none"}`);
}

/**
 * The two sizes of a matrix.
 *
 * @throws MonosemError ERR_FORMAT when it is none
 */
export function matrixShape(file: TensorFile, tensor: string): readonly [rows: number, columns: number] {
  const [rows, columns, ...others] = shapeOf(file, tensor);
  if (rows !== undefined && columns !== undefined && others.length === 0) return [rows, columns];
  throw new MonosemError("ERR_FORMAT", `${file.path}: tensor ${tensor} is no matrix`);
}

/** @throws MonosemError ERR_FORMAT naming the file when the configuration is impossible, which its sizes have made it */
export function checkedConfig(path: string, config: object): CheckedSaeConfig {
  try {
    return parseSaeConfig(config);
  } catch (error) {
    throw new MonosemError("ERR_FORMAT", `${path}: ${(error as Error).message}`, { cause: error });
  }
}

/** @throws MonosemError ERR_FORMAT naming the file, the key and what is wrong with it */
export function parseJson<T>(path: string, schema: z.ZodType<T>, json: unknown): T {
  const result = checkedBy(schema, json);
  if (result.success) return result.data;
  throw new MonosemError("ERR_FORMAT", `${path}: ${result.problems.join("; ")}`);
}

export function unsupported(path: string, what: string): MonosemError {
  return new MonosemError("ERR_UNSUPPORTED", `${path}: ${what}`);
}
