import { readFile } from "node:fs/promises";
import { MonosemError } from "../errors.js";

/**
 * Reads a JSON file that holds an object.
 *
 * @throws MonosemError ERR_NOT_FOUND when there is no such file, ERR_IO when it cannot be read, ERR_FORMAT when it is
 *   not JSON or not an object
 */
export async function readJsonObject(path: string): Promise<Record<string, unknown>> {
  let text: string;
  try {
    text = await readFile(path, "utf8");
  } catch (error) {
    if (isMissing(error)) throw new MonosemError("ERR_NOT_FOUND", `${path} does not exist`, { cause: error });
    throw new MonosemError("ERR_IO", `${path} cannot be read: ${messageOf(error)}`, { cause: error });
  }
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new MonosemError("ERR_FORMAT", `${path} is not valid JSON: ${messageOf(error)}`, { cause: error });
  }
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

function isMissing(error: unknown): boolean {
  return error instanceof Error && "code" in error && error.code === "ENOENT";
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
