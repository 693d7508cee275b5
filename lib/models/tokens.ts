import { kindOf } from "../checkArguments.js";
import { Tensor } from "../engine/tensor.js";
import { MonosemError } from "../errors.js";

/** Token ids of a batch of sequences of one length; as a tensor i32 [batch, positions]. */
export type Tokens = readonly (readonly number[] | Int32Array)[] | Tensor;

/** What a model reads: a text or token ids, or several of one kind. */
export type Prompt =
  | string
  | readonly string[]
  | readonly number[]
  | Int32Array
  | readonly (readonly number[] | Int32Array)[];

/** Sequences as long as the longest of them, with 0 behind shorter ones: what stands behind a token changes nothing in it. */
export function paddedBehind(sequences: readonly (readonly number[] | Int32Array)[]): number[][] {
  const positions = Math.max(0, ...sequences.map(({ length }) => length));
  return sequences.map((ids) => [...ids, ...new Array<number>(positions - ids.length).fill(0)]);
}

/** As {@link Prompt}; or ids in a tensor i32 [batch, positions]. */
export type ModelInput = Prompt | Tensor;

/**
 * The texts, or lists of token ids, of a prompt.
 *
 * @throws MonosemError ERR_INVALID_ARGUMENT for anything else
 */
export function promptsOf(prompt: Prompt): readonly string[] | readonly (readonly number[] | Int32Array)[] {
  if (typeof prompt === "string") return [prompt];
  if (prompt instanceof Int32Array || isNumbers(prompt)) return [prompt];
  if (isTexts(prompt) || isLists(prompt)) return prompt;
  throw new MonosemError(
    "ERR_INVALID_ARGUMENT",
    `expected a text, token ids, or a list of texts or of lists of token ids; found ${kindOf(prompt)}` +
      `${Array.isArray(prompt) ? ` with ${[...new Set((prompt as unknown[]).map(kindOf))].slice(0, 3).join(", ")}` : ""}`,
  );
}

function isNumbers(prompt: Prompt): prompt is readonly number[] {
  return Array.isArray(prompt) && prompt.length > 0 && prompt.every((id) => typeof id === "number");
}

function isTexts(prompt: Prompt): prompt is readonly string[] {
  return Array.isArray(prompt) && prompt.length > 0 && prompt.every((text) => typeof text === "string");
}

function isLists(prompt: Prompt): prompt is readonly (readonly number[] | Int32Array)[] {
  return Array.isArray(prompt) && prompt.every((ids) => Array.isArray(ids) || ids instanceof Int32Array);
}

/** Token ids that were checked against a model, sequence after sequence. */
export interface TokenBatch {
  readonly ids: Int32Array;
  readonly batch: number;
  readonly positions: number;
}

/**
 * Checks token ids against a model. Ids in a tensor are read back for it, which waits for the work queued before.
 *
 * @throws MonosemError ERR_SHAPE_MISMATCH for sequences of different lengths or a tensor that is not [batch,
 *   positions], ERR_DTYPE_MISMATCH for a tensor that is not i32, ERR_INVALID_ARGUMENT for an empty batch, a sequence
 *   longer than the context, and an id outside the vocabulary (naming sequence, position and id)
 */
export async function checkTokens(
  tokens: Tokens,
  model: { readonly contextSize: number; readonly vocabularySize: number },
): Promise<TokenBatch> {
  const found = tokens instanceof Tensor ? await fromTensor(tokens) : fromArrays(tokens);
  const { ids, batch, positions } = found;
  if (batch === 0 || positions === 0) {
    throw new MonosemError("ERR_INVALID_ARGUMENT", `no tokens: ${batch} sequences of ${positions} positions`);
  }
  if (positions > model.contextSize) {
    throw new MonosemError(
      "ERR_INVALID_ARGUMENT",
      `sequences of ${positions} tokens are longer than the model's context of ${model.contextSize}; cut them`,
    );
  }
  for (let i = 0; i < ids.length; i++) {
    if (ids[i]! < 0 || ids[i]! >= model.vocabularySize) {
      refuseId(ids[i]!, Math.floor(i / positions), i % positions, `from 0 to ${model.vocabularySize - 1}`);
    }
  }
  return found;
}

async function fromTensor(tokens: Tensor): Promise<TokenBatch> {
  if (tokens.dtype !== "i32") {
    throw new MonosemError("ERR_DTYPE_MISMATCH", `tokens must be an i32 tensor, found ${tokens.dtype}`);
  }
  const [batch, positions] = tokens.shape;
  if (tokens.shape.length !== 2 || batch === undefined || positions === undefined) {
    throw new MonosemError(
      "ERR_SHAPE_MISMATCH",
      `tokens must have shape [batch, positions], found [${tokens.shape.join(", ")}]`,
    );
  }
  return { ids: (await tokens.read()) as Int32Array, batch, positions };
}

function fromArrays(sequences: readonly (readonly number[] | Int32Array)[]): TokenBatch {
  const positions = sequences[0]?.length ?? 0;
  const ids = new Int32Array(sequences.length * positions);
  for (const [sequence, tokens] of sequences.entries()) {
    if (tokens.length !== positions) {
      throw new MonosemError(
        "ERR_SHAPE_MISMATCH",
        `sequences of a batch must have one length: sequence 0 has ${positions} tokens, sequence ${sequence} has ${tokens.length}`,
      );
    }
    for (let position = 0; position < positions; position++) {
      const id = tokens[position]!;
      // An Int32Array would silently hold another number.
      if ((id | 0) !== id) refuseId(id, sequence, position, "integers");
      ids[sequence * positions + position] = id;
    }
  }
  return { ids, batch: sequences.length, positions };
}

function refuseId(id: number, sequence: number, position: number, expected: string): never {
  throw new MonosemError(
    "ERR_INVALID_ARGUMENT",
    `token id ${id} at position ${position} of sequence ${sequence} is not in the vocabulary; ids are ${expected}`,
  );
}
