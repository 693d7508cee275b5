/** Files by pattern; Node 20 has no glob of its own. */
import { readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { MonosemError } from "../errors.js";

/**
 * The files that a pattern names, sorted by path: `*` is any part of a name, `?` one character of it, `**` any number of
 * directories. As in a shell, a leading dot must be written out. Every other character stands for itself. `**` does not
 * follow symbolic links.
 *
 * @throws MonosemError ERR_NOT_FOUND when nothing matches, ERR_IO when a directory cannot be read
 */
export async function filesMatching(pattern: string): Promise<string[]> {
  const segments = pattern.split("/").filter((segment, index) => segment !== "" || index === 0);
  const start = segments[0] === "" ? "/" : ".";
  if (segments[0] === "") segments.shift();
  if (segments.at(-1) === "**") segments.push("*");
  const found = new Set<string>();
  await expand(start, segments, found);
  if (found.size === 0) throw new MonosemError("ERR_NOT_FOUND", `no file matches ${JSON.stringify(pattern)}`);
  return [...found].sort();
}

async function expand(path: string, segments: readonly string[], found: Set<string>): Promise<void> {
  const [segment, ...rest] = segments;
  if (segment === undefined) {
    if (await isFile(path)) found.add(path);
  } else if (segment === "**") {
    await expand(path, rest, found);
    for (const entry of await entriesOf(path)) {
      if (entry.isDirectory() && !entry.name.startsWith(".")) await expand(join(path, entry.name), segments, found);
    }
  } else if (/[*?]/.test(segment)) {
    const matches = nameMatcher(segment);
    for (const { name } of await entriesOf(path)) {
      if (matches(name)) await expand(join(path, name), rest, found);
    }
  } else {
    await expand(join(path, segment), rest, found);
  }
}

/** Takes time proportional to the product of the lengths, whatever the pattern: no backtracking beyond the last `*`. */
function nameMatcher(pattern: string): (name: string) => boolean {
  return (name) => {
    if (name.startsWith(".") && !pattern.startsWith(".")) return false;
    let p = 0;
    let n = 0;
    let afterStar = -1;
    let resume = 0;
    while (n < name.length) {
      if (pattern[p] === "*") {
        afterStar = ++p;
        resume = n;
      } else if (pattern[p] === "?" || pattern[p] === name[n]) {
        p++;
        n++;
      } else if (afterStar >= 0) {
        p = afterStar;
        n = ++resume;
      } else {
        return false;
      }
    }
    while (pattern[p] === "*") p++;
    return p === pattern.length;
  };
}

async function isFile(path: string): Promise<boolean> {
  return (await orNothing(path, () => stat(path)))?.isFile() ?? false;
}

async function entriesOf(path: string): Promise<readonly { name: string; isDirectory(): boolean }[]> {
  return (await orNothing(path, () => readdir(path, { withFileTypes: true }))) ?? [];
}

async function orNothing<T>(path: string, look: () => Promise<T>): Promise<T | undefined> {
  try {
    return await look();
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (code === "ENOENT" || code === "ENOTDIR") return undefined;
    throw new MonosemError("ERR_IO", `cannot look into ${path}: ${message}`, { cause: error });
  }
}
