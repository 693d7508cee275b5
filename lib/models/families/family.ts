import { basename, join, resolve } from "node:path";
import { z } from "zod";
import type { Activation } from "../../engine/transformerKernels.js";
import { MonosemError } from "../../errors.js";
import { checkedBy, quotedValue } from "../../schemaMessages.js";
import type { ModelConfig } from "../modelConfig.js";
import type { ModelWeights } from "../modelWeights.js";
import type { WeightLoader } from "../weightLoader.js";

/** A family of models: what its config.json means, and where its weights stand in a checkpoint. */
export interface Family {
  /**
   * Reads a config.json.
   *
   * @param directory - named in the messages; its last part is the model's name
   * @throws MonosemError ERR_FORMAT for missing or impossible values, ERR_UNSUPPORTED for options that are not
   *   implemented
   */
  parseConfig(json: Record<string, unknown>, directory: string): ModelConfig;
  /**
   * Loads the weights.
   *
   * @throws MonosemError ERR_NOT_FOUND for a missing tensor, ERR_SHAPE_MISMATCH, ERR_DTYPE_MISMATCH, ERR_NON_FINITE for
   *   NaN or infinity among the weights, ERR_FORMAT for tensors that the family does not have; each names the tensor
   */
  loadWeights(loader: WeightLoader, config: ModelConfig): Promise<ModelWeights>;
}

/** The engine's name of each activation function of Hugging Face that it has. */
const activations: ReadonlyMap<string, Activation> = new Map([
  ["gelu_new", "gelu_new"],
  ["gelu_pytorch_tanh", "gelu_new"],
  ["gelu", "gelu"],
  ["relu", "relu"],
  ["silu", "silu"],
  ["swish", "silu"],
]);

/** How many of something. The engine counts in 32 bits. */
export const size: z.ZodType<number> = z
  .int()
  .positive()
  .max(2 ** 31 - 1);

/** How many layers, each of which has entries in the configuration. The deepest models have 200. */
export const layers: z.ZodType<number> = z.int().positive().max(1000);

/** Width of a head, whose halves turn at frequencies of their own. The widest have 512. */
export const headSize: z.ZodType<number> = z
  .int()
  .positive()
  .max(2 ** 16);

/** What is added to a variance: from 1e-12 to 1e-5 in real models. More than 1 would flatten activations. */
export const epsilon: z.ZodType<number> = z.number().min(1e-30).max(1);

/** A constant that activations are multiplied with or divided by: in f32 neither 0 nor infinity, nor is what it gives. */
export const constant: z.ZodType<number> = z.number().min(1e-6).max(1e9);

/** Ways to end a text. Models have at most three. */
const mostTokenIds = 1000;

const tokenId = z.int().nonnegative();
// A schema of arrays would make a problem of each entry, before it looks at their number.
const listOfTokenIds = z.custom<number[]>(
  (list) =>
    Array.isArray(list) && list.length <= mostTokenIds && list.every((id) => Number.isSafeInteger(id) && id >= 0),
  `must be a list of at most ${mostTokenIds} token ids`,
);
/** The id of a special token, or of several. */
export const tokenIds: z.ZodType<number | number[] | null | undefined> = z.union([tokenId, listOfTokenIds]).nullish();

/** A config.json that is being read. */
export class FamilyConfig<Schema extends z.ZodType> {
  readonly values: z.infer<Schema>;
  readonly path: string;
  readonly name: string;

  /** @param title - of the family, as in "does not describe a GPT-2" */
  constructor(schema: Schema, json: Record<string, unknown>, directory: string, title: string) {
    this.path = join(directory, "config.json");
    this.name = basename(resolve(directory));
    const parsed = checkedBy(schema, json);
    if (!parsed.success) {
      throw new MonosemError("ERR_FORMAT", `${this.path} does not describe a ${title}: ${parsed.problems.join("; ")}`);
    }
    this.values = parsed.data as z.infer<Schema>;
    if (json.quantization_config != null) {
      this.refuse(
        "ERR_UNSUPPORTED",
        "quantization_config: quantised weights are not supported; use the f32, f16 or bf16 ones",
      );
    }
  }

  refuse(code: "ERR_FORMAT" | "ERR_UNSUPPORTED", problem: string): never {
    throw new MonosemError(code, `${this.path}: ${problem}`);
  }

  activation(key: string, name: string): Activation {
    return (
      activations.get(name) ??
      this.refuse(
        "ERR_UNSUPPORTED",
        `${key} ${quotedValue(name)} is not supported; supported are ${[...activations.keys()].join(", ")}`,
      )
    );
  }

  /** `whole` divided by `parts`. */
  share(wholeKey: string, whole: number, partsKey: string, parts: number): number {
    if (whole % parts !== 0) {
      this.refuse("ERR_FORMAT", `${wholeKey} (${whole}) must be a multiple of ${partsKey} (${parts})`);
    }
    return whole / parts;
  }
}

/** What a configuration says of a kind of token: one id, several or none. */
export function allTokens(ids: number | readonly number[] | null | undefined): readonly number[] {
  return [ids ?? []].flat();
}

export function firstToken(ids: number | readonly number[] | null | undefined): number | undefined {
  return allTokens(ids)[0];
}
