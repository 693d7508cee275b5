import { z } from "zod";
import { MonosemError } from "../errors.js";
import { readJsonLines } from "../formats/jsonLines.js";
import type { CounterfactualPair } from "./counterfactualEdits.js";

const pairSchema = z.object({
  original: z.string().min(1),
  edited: z.string().min(1),
  edit: z.string().min(1).default("given pairs"),
});

/**
 * Reads pairs of texts that should have the same latents: a `.jsonl` file with an object in each line, the texts under
 * "original" and "edited", and where it is wanted the kind of edit under "edit". Blank lines are ignored.
 *
 * @throws MonosemError ERR_NOT_FOUND, ERR_IO; ERR_FORMAT naming the line
 */
export async function readPairs(path: string): Promise<readonly CounterfactualPair[]> {
  return (await readJsonLines(path)).map(({ value, where }) => {
    const parsed = pairSchema.safeParse(value);
    if (parsed.success) return parsed.data;
    throw new MonosemError("ERR_FORMAT", `${where} should be a JSON object with texts under "original" and "edited"`);
  });
}
