import { fileURLToPath } from "node:url";
import { type SafetensorsArray, SafetensorsFile } from "../../lib/formats/safetensors.js";

/** The folder of the project's own small model. */
export const tinyGpt2Directory: string = fileURLToPath(new URL("../../assets/tiny-gpt2", import.meta.url));

const fixtures = new URL("../fixtures/tiny-gpt2/", import.meta.url);

/** Where the tokenizer examples and the greedy text are. */
export const textFixture: string = fileURLToPath(new URL("text.json", fixtures));

/** PyTorch's activations; fixtures/tiny-gpt2/make_reference.py says which. */
export async function readReference(): Promise<Map<string, SafetensorsArray>> {
  await using file = await SafetensorsFile.open(fileURLToPath(new URL("reference.safetensors", fixtures)));
  const arrays = new Map<string, SafetensorsArray>();
  for (const name of file.entries.keys()) arrays.set(name, await file.read(name));
  return arrays;
}

/** Largest difference over the largest magnitude, of the finite elements; the others must be the same. */
export function relativeError(found: ArrayLike<number>, expected: ArrayLike<number>): number {
  if (found.length !== expected.length) return Number.NaN;
  let difference = 0;
  let magnitude = Number.MIN_VALUE;
  for (let i = 0; i < expected.length; i++) {
    const [a, b] = [found[i]!, expected[i]!];
    if (!Number.isFinite(b)) {
      if (!Object.is(a, b)) return Number.NaN;
      continue;
    }
    if (Number.isNaN(a)) return Number.NaN;
    difference = Math.max(difference, Math.abs(a - b));
    magnitude = Math.max(magnitude, Math.abs(b));
  }
  return difference / magnitude;
}
