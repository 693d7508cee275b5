import { readFile } from "node:fs/promises";
import { type ErrorCode, MonosemError } from "../errors.js";

/**
 * Reads a JSON file.
 *
 * @param options.missing - what the error says when there is no such file
 * @param options.malformed - the error's code when the file is not JSON; by default ERR_FORMAT
 * @throws MonosemError ERR_NOT_FOUND when there is no such file, ERR_IO when it cannot be read, `malformed`
 */
export async function readJsonFile(
  path: string,
  { missing = `${path} does not exist`, malformed = "ERR_FORMAT" }: { missing?: string; malformed?: ErrorCode } = {},
): Promise<unknown> {
  let text: string;
  try {
    text = await readFile(path, "utf8");
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException;
    if (code === "ENOENT") throw new MonosemError("ERR_NOT_FOUND", missing, { cause });
    throw new MonosemError("ERR_IO", `cannot read ${path}: ${message}`, { cause });
  }
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new MonosemError(malformed, `${path} is not JSON: ${(cause as Error).message}`, { cause });
  }
}
