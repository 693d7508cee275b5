/** Where a published SAE lies: a folder, or one file in it. */
import { readdir, stat } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { MonosemError } from "../errors.js";
import { readJsonFile } from "../formats/jsonFile.js";

export class Location {
  /** As it was given. */
  readonly path: string;
  readonly folder: string;
  /** The file that was named; undefined for a folder. */
  readonly file: string | undefined;
  /** Names of what lies in the folder. */
  readonly files: readonly string[];

  private constructor(path: string, folder: string, file: string | undefined, files: readonly string[]) {
    this.path = path;
    this.folder = folder;
    this.file = file;
    this.files = files;
  }

  /** @throws MonosemError ERR_NOT_FOUND when there is neither a folder nor a file of that name, ERR_IO */
  static async of(path: string): Promise<Location> {
    try {
      const isFolder = (await stat(path)).isDirectory();
      const folder = isFolder ? path : dirname(path);
      return new Location(path, folder, isFolder ? undefined : basename(path), (await readdir(folder)).sort());
    } catch (cause) {
      const { code, message } = cause as NodeJS.ErrnoException;
      if (code === "ENOENT" || code === "ENOTDIR") {
        throw new MonosemError("ERR_NOT_FOUND", `there is no SAE at ${path}: ${path} does not exist`, { cause });
      }
      throw new MonosemError("ERR_IO", `cannot look into ${path}: ${message}`, { cause });
    }
  }

  /** Whether these files are in the folder, and none but one of them was named. */
  has(...names: readonly string[]): boolean {
    return names.every((name) => this.files.includes(name)) && (this.file === undefined || names.includes(this.file));
  }

  /** The file that was named, or the only one in the folder, whose name fits; undefined when it is none or several. */
  only(pattern: RegExp): string | undefined {
    const fitting = (this.file === undefined ? this.files : [this.file]).filter((name) => pattern.test(name));
    return fitting.length === 1 ? fitting[0] : undefined;
  }

  /** The same, with this file of the folder named. */
  within(file: string): Location {
    return new Location(this.at(file), this.folder, file, this.files);
  }

  at(...names: readonly string[]): string {
    return join(this.folder, ...names);
  }

  /** @throws MonosemError ERR_FORMAT when it is no JSON, ERR_IO */
  async json(name: string): Promise<unknown> {
    return await readJsonFile(this.at(name));
  }

  /**
   * What the pattern finds in the whole path, as a list of its groups. Publishers say much by the names of repositories
   * and folders only.
   */
  inPath(pattern: RegExp): readonly (string | undefined)[] | undefined {
    // with / on every platform, and the hub's cache spelling of a repository's name as the hub's own
    const full = resolve(this.path)
      .replaceAll("\\", "/")
      .replace(/models--([^/]+?)--/, "$1/");
    return pattern.exec(full)?.slice(1);
  }
}
