import { readFile } from "node:fs/promises";
import { z } from "zod";
import { MonosemError } from "../errors.js";
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
  let content: string;
  try {
    content = await readFile(path, "utf8");
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException;
    if (code === "ENOENT") throw new MonosemError("ERR_NOT_FOUND", `${path} does not exist`, { cause });
    throw new MonosemError("ERR_IO", `cannot read ${path}: ${message}`, { cause });
  }
  return content.split("\n").flatMap((line, index) => {
    if (line.trim() === "") return [];
    let value: unknown;
    try {
      value = JSON.parse(line);
    } catch (cause) {
      throw new MonosemError("ERR_FORMAT", `${path}:${index + 1} is not JSON: ${(cause as Error).message}`, { cause });
    }
    const parsed = pairSchema.safeParse(value);
    if (parsed.success) return [parsed.data];
    throw new MonosemError(
      "ERR_FORMAT",
      `${path}:${index + 1} should be a JSON object with texts under "original" and "edited"`,
    );
  });
}
