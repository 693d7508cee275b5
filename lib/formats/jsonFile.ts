import { type ErrorCode, MonosemError } from "../errors.js";
import { readBounded } from "./boundedFile.js";
import { parseJsonText } from "./jsonText.js";

/** The largest that are read, tokenizers of a million tokens, have some 70 MB. */
const maximumBytes = 2 ** 27;

/**
 * Reads a JSON file, of which `readBounded` says what it must be.
 *
 * @param options.missing - what the error says when there is no such file
 * @param options.malformed - the error's code when the file is not JSON; by default ERR_FORMAT
 * @throws MonosemError ERR_NOT_FOUND when there is no such file, ERR_IO when it cannot be read, `malformed` when it is not
 *   JSON or larger than any file that is meant to be read so
 */
export async function readJsonFile(
  path: string,
  { missing = `${path} does not exist`, malformed = "ERR_FORMAT" }: { missing?: string; malformed?: ErrorCode } = {},
): Promise<unknown> {
  let bytes: Buffer | undefined;
  try {
    bytes = await readBounded(path, maximumBytes);
  } catch (cause) {
    if (cause instanceof MonosemError) throw cause;
    const { code, message } = cause as NodeJS.ErrnoException;
    if (code === "ENOENT") throw new MonosemError("ERR_NOT_FOUND", missing, { cause });
    throw new MonosemError("ERR_IO", `cannot read ${path}: ${message}`, { cause });
  }
  if (bytes === undefined) {
    throw new MonosemError(
      malformed,
      `${path} has more than ${maximumBytes} bytes, the most that a JSON file may have`,
    );
  }
  return parseJsonText(bytes.toString("utf8"), path, malformed);
}
