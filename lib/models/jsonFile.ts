import { MonosemError } from "../errors.js";
import { readJsonFile } from "../formats/jsonFile.js";

/**
 * Reads a JSON file that holds an object.
 *
 * @throws MonosemError ERR_NOT_FOUND when there is no such file, ERR_IO when it cannot be read, ERR_FORMAT when it is
 *   not JSON or not an object
 */
export async function readJsonObject(path: string): Promise<Record<string, unknown>> {
  const value = await readJsonFile(path);
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new MonosemError("ERR_FORMAT", `${path} must hold a JSON object`);
  }
  return value as Record<string, unknown>;
}

/** As `readJsonObject`; undefined when there is no such file. */
export async function readJsonObjectIfPresent(path: string): Promise<Record<string, unknown> | undefined> {
  try {
    return await readJsonObject(path);
  } catch (error) {
    if (error instanceof MonosemError && error.code === "ERR_NOT_FOUND") return undefined;
    throw error;
  }
}
