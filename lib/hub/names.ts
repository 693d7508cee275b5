/**
 * Names of repositories, revisions and files on the hub, checked before they become parts of URLs and of paths: file names
 * come from whoever made the repository, and must not lead out of the cache's folder on any system.
 */
import { MonosemError } from "../errors.js";

/** What a folder of the cache may be called: the names of repositories are made of these characters. */
const repositoryPattern = /^[A-Za-z0-9](?:[\w.-]*\w)?(?:\/\w(?:[\w.-]*\w)?)?$/;

/** Whether a text has the form of a repository's name, "owner/name" or "name". */
export function isRepositoryName(text: string): boolean {
  return repositoryPattern.test(text) && !/\.\.|--/.test(text) && text.length <= 96;
}

/** @throws MonosemError ERR_INVALID_ARGUMENT for what cannot be the name of a repository. */
export function checkRepositoryName(repository: string): void {
  if (isRepositoryName(repository)) return;
  throw new MonosemError(
    "ERR_INVALID_ARGUMENT",
    `${JSON.stringify(repository)} is not the name of a repository, such as "openai-community/gpt2": letters, digits, ".", "_" and "-", at most one "/"`,
  );
}

/** @throws MonosemError ERR_INVALID_ARGUMENT for what cannot be a branch, a tag or a commit. */
export function checkRevision(revision: string): void {
  if (/^[\w./-]+$/.test(revision) && isSafePath(revision)) return;
  throw new MonosemError(
    "ERR_INVALID_ARGUMENT",
    `${JSON.stringify(revision)} is not a revision, which is the name of a branch or tag, or a commit`,
  );
}

/**
 * A file's name as a list of parts, each of which is a plain name on every system.
 *
 * @throws MonosemError ERR_FORMAT for a name that would lead elsewhere: absolute, with `..`, a drive or a backslash
 */
export function partsOfFileName(name: string, repository: string): readonly string[] {
  if (isSafePath(name)) return name.split("/");
  throw new MonosemError(
    "ERR_FORMAT",
    `the repository ${repository} has a file named ${JSON.stringify(name)}: a name that leads out of its folder is refused`,
  );
}

/** Relative, of parts that are neither empty nor `.` or `..`, without what Windows takes for a drive or a separator. */
function isSafePath(path: string): boolean {
  return path.split("/").every((part) => part !== "" && part !== "." && part !== ".." && !hasForbidden(part));
}

/** A colon within a name is fine where it does not mean another stream of a file, as it does on Windows. */
function hasForbidden(part: string): boolean {
  const drive = process.platform === "win32" ? /:/ : /^[A-Za-z]:/;
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
  return drive.test(part) || /[\\\u0000-\u001f\u007f]/.test(part);
}

/** Whether a text is the full name of a commit. */
export function isCommit(revision: string): boolean {
  return /^[0-9a-f]{40}$/.test(revision);
}
