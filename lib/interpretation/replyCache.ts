import { dirname, join } from "node:path";
import { z } from "zod";
import { MonosemError } from "../errors.js";
import { writeFileAtomically } from "../formats/atomicFile.js";
import { readJsonFile } from "../formats/jsonFile.js";
import { makeDirectory } from "../formats/makeDirectory.js";
import type { ChatReply } from "./chatRequest.js";

const count = z.int().min(0);
const stored = z.object({
  request: z.string(),
  reply: z.object({
    outcome: z.enum(["complete", "truncated", "refused"]),
    text: z.string(),
    usage: z.object({ inputTokens: count, outputTokens: count }),
  }),
});

/**
 * Paid replies in a folder, one file each under the digest of its request, so that no request is paid twice, by this run
 * or another. Files appear whole or not at all.
 */
export class ReplyCache {
  readonly directory: string;

  constructor(directory: string) {
    this.directory = directory;
  }

  /** @throws MonosemError ERR_FORMAT for a file that is no stored reply, or one to another request; ERR_IO */
  async get(digest: string): Promise<ChatReply | undefined> {
    const path = this.#path(digest);
    let content: unknown;
    try {
      content = await readJsonFile(path);
    } catch (error) {
      if (error instanceof MonosemError && error.code === "ERR_NOT_FOUND") return undefined;
      throw error;
    }
    const parsed = stored.safeParse(content);
    if (parsed.success && parsed.data.request === digest) return parsed.data.reply;
    throw new MonosemError("ERR_FORMAT", `${path} holds no reply to the request it is named after; delete it`);
  }

  /** @throws MonosemError ERR_IO */
  async put(digest: string, { outcome, text, usage }: ChatReply): Promise<void> {
    const path = this.#path(digest);
    await makeDirectory(dirname(path));
    await writeFileAtomically(path, `${JSON.stringify({ request: digest, reply: { outcome, text, usage } })}\n`);
  }

  #path(digest: string): string {
    return join(this.directory, digest.slice(0, 2), `${digest}.json`);
  }
}
