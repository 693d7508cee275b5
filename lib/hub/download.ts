/** Files of repositories on the hub, in the cache that is shared with Python's `huggingface_hub`. */
import { MonosemError } from "../errors.js";
import { ensureBlob } from "./blob.js";
import { RepositoryCache } from "./cache.js";
import { HubConnection } from "./connection.js";
import { checkRepositoryName, checkRevision } from "./names.js";
import { HubRepository, type RemoteFile } from "./repository.js";
import { readHubSettings } from "./settings.js";

/** How far a download is. */
export interface DownloadProgress {
  readonly repository: string;
  /** Of the file that arrives. */
  readonly file: string;
  /** On the disk, of all files together; what was there before counts. */
  readonly bytes: number;
  readonly totalBytes: number;
}

export interface DownloadOptions {
  /** Branch, tag or commit; by default "main". */
  readonly revision?: string;
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: DownloadProgress) => void;
  /** Told when the hub could not be asked and the cache has all that is needed. */
  readonly onWithoutHub?: (reason: MonosemError) => void;
  /** Told when another process has been downloading a file that is wanted here for some seconds, with the path of its lock. */
  readonly onWaiting?: (lock: string) => void;
}

/** Files of one commit of a repository, on the disk. */
export interface HubSnapshot {
  readonly repository: string;
  readonly commit: string;
  /** Holds the files under their names in the repository. */
  readonly directory: string;
  readonly files: readonly string[];
  /** Why the hub was not asked, where the cache had to do: it is offline, or cannot be reached. */
  readonly withoutHub?: MonosemError;
}

/**
 * Which of the files that a repository has are wanted.
 *
 * @throws MonosemError ERR_NOT_FOUND when one of them is missing
 */
export type FileChoice = (names: readonly string[]) => readonly string[];

/**
 * Sees to it that files of a repository are in the cache, and says where. Small ones come first, so that a snapshot
 * that has the weights has all.
 *
 * @param folder - where `choose` looks; by default the whole repository
 * @throws MonosemError ERR_INVALID_ARGUMENT for impossible names; what `choose` throws; ERR_OFFLINE, ERR_NETWORK,
 *   ERR_ACCESS_DENIED, ERR_RATE_LIMITED, ERR_NOT_FOUND, ERR_INTEGRITY, ERR_IO, ERR_ABORTED
 */
export async function downloadFiles(
  repository: string,
  folder: string | undefined,
  choose: FileChoice,
  { revision = "main", signal, onProgress, onWithoutHub, onWaiting }: DownloadOptions = {},
): Promise<HubSnapshot> {
  checkRepositoryName(repository);
  checkRevision(revision);
  const settings = await readHubSettings();
  const cache = new RepositoryCache(settings.cacheDirectory, repository);
  const connection = new HubConnection(settings, signal);
  let remote: HubRepository;
  let files: readonly RemoteFile[];
  try {
    if (settings.offline) throw new MonosemError("ERR_OFFLINE", "HF_HUB_OFFLINE is set");
    remote = await HubRepository.open(repository, revision, connection);
    files = await remote.files(folder);
  } catch (error) {
    return await fromCache({ cache, revision, folder, choose, onWithoutHub }, error);
  }
  const chosen = new Set(choose(files.map(({ name }) => name)));
  const wanted = files.filter(({ name }) => chosen.has(name)).sort((a, b) => a.bytes - b.bytes);
  const totalBytes = wanted.reduce((sum, { bytes }) => sum + bytes, 0);
  let before = 0;
  for (const file of wanted) {
    const onBytes = (bytes: number): void =>
      onProgress?.({ repository, file: file.name, bytes: before + bytes, totalBytes });
    if (await cache.hasFile(remote.commit, file.name, file.bytes)) {
      onBytes(file.bytes);
    } else {
      await ensureBlob(file, cache, connection, { signal, onBytes, onWaiting });
      await cache.linkFile(remote.commit, file.name, file.hash);
    }
    before += file.bytes;
  }
  await cache.setCommit(revision, remote.commit);
  return {
    repository,
    commit: remote.commit,
    directory: cache.snapshotDirectory(remote.commit),
    files: wanted.map(({ name }) => name).sort(),
  };
}

interface CacheQuestion {
  readonly cache: RepositoryCache;
  readonly revision: string;
  readonly folder: string | undefined;
  readonly choose: FileChoice;
  readonly onWithoutHub: DownloadOptions["onWithoutHub"];
}

/** What the cache has, if that is all that was wanted; if not, the reason for asking it is what is thrown. */
async function fromCache(
  { cache, revision, folder, choose, onWithoutHub }: CacheQuestion,
  reason: unknown,
): Promise<HubSnapshot> {
  if (!(reason instanceof MonosemError) || !["ERR_OFFLINE", "ERR_NETWORK", "ERR_RATE_LIMITED"].includes(reason.code)) {
    throw reason;
  }
  const commit = await cache.commitOf(revision);
  const names = commit === undefined ? [] : await cache.fileNames(commit, folder);
  let problem = `the cache holds nothing of ${cache.repository} at ${revision}`;
  if (commit !== undefined && names.length > 0) {
    let files: readonly string[] | undefined;
    try {
      files = choose(names);
    } catch (error) {
      problem = `in the cache ${(error as Error).message}`;
    }
    if (files !== undefined) {
      onWithoutHub?.(reason);
      const directory = cache.snapshotDirectory(commit);
      return { repository: cache.repository, commit, directory, files, withoutHub: reason };
    }
  }
  throw new MonosemError(reason.code, `${reason.message}, and ${problem}`, { cause: reason });
}
