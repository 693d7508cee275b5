import { readFile } from "node:fs/promises";
import { MonosemError } from "../errors.js";
import { parseJsonText } from "./jsonText.js";

/** A line of a `.jsonl` file. */
export interface JsonLine {
  readonly value: unknown;
  /** "path:line", for messages. */
  readonly where: string;
}

/**
 * All lines of a small `.jsonl` file; blank ones are left out.
 *
 * @throws MonosemError ERR_NOT_FOUND, ERR_IO; ERR_FORMAT for what is not UTF-8, and naming the line for what is not JSON
 */
export async function readJsonLines(path: string): Promise<readonly JsonLine[]> {
  let content: string;
  try {
    content = new TextDecoder("utf-8", { fatal: true }).decode(await readFile(path));
  } catch (cause) {
    if (cause instanceof TypeError) throw new MonosemError("ERR_FORMAT", `${path} is not valid UTF-8 text`, { cause });
    const { code, message } = cause as NodeJS.ErrnoException;
    if (code === "ENOENT") throw new MonosemError("ERR_NOT_FOUND", `${path} does not exist`, { cause });
    throw new MonosemError("ERR_IO", `cannot read ${path}: ${message}`, { cause });
  }
  return content.split("\n").flatMap((line, index) => {
    if (line.trim() === "") return [];
    const where = `${path}:${index + 1}`;
    return [{ value: parseJsonText(line, where), where }];
  });
}
