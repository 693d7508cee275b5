/**
 * What tells whether the files that a run reads are still those that it began with: a hash of each file's size and of
 * pieces spread over it. Not of everything, which for a model or a folder of activations would take minutes: a change of a
 * few bytes can pass.
 */
import { createHash } from "node:crypto";
import { MonosemError } from "../errors.js";
import { FileBytes } from "../formats/fileBytes.js";
import type { Json } from "./source.js";

const pieces = 16;
const pieceBytes = 4096;

/** The files of one kind, such as those of the model, in an order of their own. */
export interface InputSamples {
  readonly paths: readonly string[];
  /** Of each file, 16 hexadecimal digits. */
  readonly hashes: readonly string[];
}

/** @throws MonosemError ERR_NOT_FOUND, ERR_IO */
export async function sampleInputs(paths: readonly string[]): Promise<InputSamples> {
  const hashes: string[] = [];
  for (const path of paths) hashes.push(await sampleOf(path));
  return { paths, hashes };
}

async function sampleOf(path: string): Promise<string> {
  const file = await FileBytes.open(path);
  try {
    const { byteLength } = file;
    const hash = createHash("sha256").update(`${byteLength}\0`);
    if (byteLength <= pieces * pieceBytes) {
      hash.update(await file.read(0, byteLength));
    } else {
      // The first begins with the file, the last ends with it.
      for (let piece = 0; piece < pieces; piece++) {
        const position = Math.floor((piece * (byteLength - pieceBytes)) / (pieces - 1));
        hash.update(await file.read(position, pieceBytes));
      }
    }
    return hash.digest("hex").slice(0, 16);
  } finally {
    await file.close();
  }
}

/**
 * Compares files with those of a saved state, where that has them (those of earlier versions have none) and where there are some now.
 *
 * @param saved - the hashes of the state
 * @throws MonosemError ERR_CONFIG naming the file that is another
 */
export function requireSameInputs(saved: Json | undefined, { paths, hashes }: InputSamples): void {
  if (!Array.isArray(saved) || hashes.length === 0) return;
  if (saved.length !== hashes.length) {
    throw new MonosemError(
      "ERR_CONFIG",
      `the saved state belongs to other files: to ${saved.length}, and there are ${hashes.length} now (${paths[0]} ...)`,
    );
  }
  const changed = hashes.findIndex((hash, i) => saved[i] !== hash);
  if (changed === -1) return;
  throw new MonosemError(
    "ERR_CONFIG",
    `${paths[changed]} holds something else than when the state was saved: bring the old file back, or begin a new run`,
  );
}
