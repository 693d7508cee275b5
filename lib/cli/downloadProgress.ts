import { visibleText } from "../analysis/visibleText.js";
import type { DownloadOptions } from "../hub/download.js";
import { type Progress, startProgress } from "./progress.js";

const bytesPerMegabyte = 1e6;

/** Shows how far the downloads of `work` are, where something is downloaded, and says where the hub could not be asked. */
export async function withDownloadProgress<Result>(
  signal: AbortSignal | undefined,
  work: (options: DownloadOptions) => Promise<Result>,
): Promise<Result> {
  let progress: Progress | undefined;
  try {
    return await work({
      ...(signal === undefined ? {} : { signal }),
      onProgress: ({ repository, file, bytes, totalBytes }) => {
        // What was in the cache is counted at once: where that is all, there is nothing to show.
        if (progress === undefined && bytes === totalBytes) return;
        const total = Math.ceil(totalBytes / bytesPerMegabyte);
        progress ??= startProgress(`downloading ${visibleText(repository)}`, total, "MB");
        progress.update(Math.floor(bytes / bytesPerMegabyte), file);
      },
      onWithoutHub: ({ code, message }) => {
        // Who has set HF_HUB_OFFLINE knows.
        if (code !== "ERR_OFFLINE") process.stderr.write(`${visibleText(message)}; taking what is in the cache\n`);
      },
      onWaiting: (lock) => {
        process.stderr.write(`waiting for another process, which downloads the same (it holds ${visibleText(lock)})\n`);
      },
    });
  } finally {
    progress?.stop();
  }
}
