/**
 * The cache on the disk, laid out as Python's `huggingface_hub` does, so that both find each other's files:
 *
 *     models--owner--name/refs/main                        the commit that the branch was at
 *     models--owner--name/blobs/<hash>                     content, by its hash
 *     models--owner--name/snapshots/<commit>/config.json   a link to the blob
 */
import { link, readdir, readFile, rm, stat, symlink } from "node:fs/promises";
import { dirname, join, relative } from "node:path";
import { MonosemError } from "../errors.js";
import { writeFileAtomically } from "../formats/atomicFile.js";
import { isTaken } from "../formats/exists.js";
import { makeDirectory } from "../formats/makeDirectory.js";
import { isCommit, partsOfFileName } from "./names.js";

/** The part of the cache that belongs to one repository. */
export class RepositoryCache {
  readonly repository: string;
  readonly #cacheDirectory: string;
  readonly #folderName: string;

  /** @param repository - a checked name */
  constructor(cacheDirectory: string, repository: string) {
    this.repository = repository;
    this.#cacheDirectory = cacheDirectory;
    this.#folderName = `models--${repository.replaceAll("/", "--")}`;
  }

  snapshotDirectory(commit: string): string {
    return join(this.#cacheDirectory, this.#folderName, "snapshots", commit);
  }

  blobPath(hash: string): string {
    return join(this.#cacheDirectory, this.#folderName, "blobs", hash);
  }

  /** Of the lock under which a blob is downloaded; Python's own locks are files beside it. */
  lockPath(hash: string): string {
    return join(this.#cacheDirectory, ".locks", this.#folderName, `${hash}.monosem`);
  }

  /** The path of a file in a snapshot. */
  filePath(commit: string, name: string): string {
    return join(this.snapshotDirectory(commit), ...partsOfFileName(name, this.repository));
  }

  /** The commit that a revision was at when it was last asked for. */
  async commitOf(revision: string): Promise<string | undefined> {
    if (isCommit(revision)) return revision;
    const text = (await readFile(this.#refPath(revision), "utf8").catch(() => "")).trim();
    return isCommit(text) ? text : undefined;
  }

  /** @throws MonosemError ERR_IO */
  async setCommit(revision: string, commit: string): Promise<void> {
    if (revision === commit || (await this.commitOf(revision)) === commit) return;
    const path = this.#refPath(revision);
    await makeDirectory(dirname(path));
    await writeFileAtomically(path, commit);
  }

  /** The names of a snapshot's files, in a folder and below it; links to blobs that are gone are no files. */
  async fileNames(commit: string, folder?: string): Promise<readonly string[]> {
    const root = this.snapshotDirectory(commit);
    const start = folder === undefined ? root : this.filePath(commit, folder);
    const entries = await readdir(start, { recursive: true, withFileTypes: true }).catch(() => []);
    const names: string[] = [];
    for (const entry of entries) {
      const path = join(entry.parentPath, entry.name);
      const found = await stat(path).catch(() => undefined);
      if (found?.isFile()) names.push(relative(root, path).replaceAll("\\", "/"));
    }
    return names.sort();
  }

  /**
   * Whether a snapshot has a file of this length: a link to a blob, or where links are not possible the file itself, as
   * Python leaves it there.
   */
  async hasFile(commit: string, name: string, bytes: number): Promise<boolean> {
    const found = await stat(this.filePath(commit, name)).catch(() => undefined);
    return (found?.isFile() ?? false) && found?.size === bytes;
  }

  /** Lets a file of a snapshot be a blob that is there. A link to something else is replaced. */
  async linkFile(commit: string, name: string, hash: string): Promise<void> {
    const path = this.filePath(commit, name);
    const blob = this.blobPath(hash);
    await makeDirectory(dirname(path));
    try {
      if (await sameFile(path, blob)) return;
      if (await isTaken(path)) await rm(path);
      await symlink(relative(dirname(path), blob), path).catch(async (error: NodeJS.ErrnoException) => {
        if (error.code === "EEXIST") return; // another process, at the same moment
        // Windows, where links are a privilege: a second name for the same file needs none.
        await link(blob, path);
      });
    } catch (error) {
      throw new MonosemError("ERR_IO", `cannot link ${path} to ${blob}: ${(error as Error).message}`, { cause: error });
    }
  }

  #refPath(revision: string): string {
    return join(this.#cacheDirectory, this.#folderName, "refs", ...revision.split("/"));
  }
}

async function sameFile(a: string, b: string): Promise<boolean> {
  const [first, second] = await Promise.all([a, b].map((path) => stat(path).catch(() => undefined)));
  return first !== undefined && second !== undefined && first.dev === second.dev && first.ino === second.ino;
}
