import type { Command } from "commander";
import { visibleText } from "../analysis/visibleText.js";
import { MonosemError } from "../errors.js";
import { locateModel } from "../models/locateModel.js";
import { downloadSae } from "../pretrained/downloadSae.js";
import { publishedSae, splitPublishedName } from "../pretrained/registry.js";
import { withDownloadProgress } from "./downloadProgress.js";
import { withInterruption } from "./interruption.js";

interface DownloadFlags {
  readonly revision: string;
  readonly json?: boolean;
}

export function registerDownload(program: Command): void {
  program
    .command("download")
    .argument("<name>", "model, or SAE as release/id, or hf:owner/name/folder")
    .summary("download a model or a published SAE")
    .description(
      "Downloads into the cache that is shared with Python (HF_HOME or HF_HUB_CACHE; HF_TOKEN for gated repositories; HF_ENDPOINT for a mirror), checks lengths and hashes, and prints where it lies. What is there already is not downloaded again, and what was broken off is continued.",
    )
    .option("--revision <name>", "branch, tag or commit", "main")
    .option("--json", "print one JSON object")
    .addHelpText(
      "after",
      `
Examples:
  monosem download gpt2
  monosem download gpt2-small-res-jb/blocks.8.hook_resid_pre
  monosem download EleutherAI/pythia-70m --revision main`,
    )
    .action((name: string, flags: DownloadFlags) => withInterruption((signal) => download(name, flags, signal)));
}

async function download(name: string, { revision, json }: DownloadFlags, signal: AbortSignal): Promise<void> {
  const { path, snapshot } = await withDownloadProgress(signal, async (options) => {
    const split = splitPublishedName(name);
    if (split !== undefined) {
      return await downloadSae(publishedSae(split.release, split.saeId), { ...options, revision });
    }
    const { hub, directory } = await locateModel(name, { ...options, revision });
    if (hub === undefined) throw new MonosemError("ERR_INVALID_ARGUMENT", `${name} is a folder on this machine`);
    return { path: directory, snapshot: hub };
  });
  const { repository, commit, files } = snapshot;
  process.stdout.write(json ? `${JSON.stringify({ repository, commit, path, files })}\n` : `${visibleText(path)}\n`);
}
