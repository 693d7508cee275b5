import { join } from "node:path";
import { type DownloadOptions, downloadFiles, type HubSnapshot } from "../hub/download.js";
import { filesOfSae, folderToList } from "./publishedFiles.js";
import type { PublishedSae } from "./registry.js";

/** A published SAE on the disk. */
export interface DownloadedSae {
  readonly sae: PublishedSae;
  /** Its folder, or its file. */
  readonly path: string;
  readonly snapshot: HubSnapshot;
}

/**
 * Sees to it that the files of a published SAE are in the cache.
 *
 * @throws MonosemError as `downloadFiles`
 */
export async function downloadSae(sae: PublishedSae, options: DownloadOptions = {}): Promise<DownloadedSae> {
  const { repository, path, format } = sae;
  const choose = (names: readonly string[]): readonly string[] => filesOfSae(format, path, names);
  const snapshot = await downloadFiles(repository, folderToList(format, path), choose, options);
  return { sae, path: join(snapshot.directory, ...path.split("/")), snapshot };
}
