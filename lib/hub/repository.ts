import { createHash, type Hash } from "node:crypto";
import { z } from "zod";
import { MonosemError } from "../errors.js";
import type { HubConnection } from "./connection.js";
import { checkRepositoryName, checkRevision, isCommit, partsOfFileName } from "./names.js";

/** A file of a repository at one commit, as the hub lists it. */
export interface RemoteFile {
  readonly repository: string;
  /** Within the repository, parts joined by "/"; checked to lead nowhere else. */
  readonly name: string;
  readonly bytes: number;
  /** What the cache calls its content, and the hash that it must have: SHA-256 of a large file, git's of a small one. */
  readonly hash: string;
  readonly url: string;
}

const mostFiles = 100_000;
const mostPages = 1000;

const entrySchema = z.object({
  type: z.string(),
  path: z.string(),
  size: z.int().nonnegative(),
  oid: z.string().regex(/^[0-9a-f]{40}$/),
  lfs: z.object({ oid: z.string().regex(/^[0-9a-f]{64}$/), size: z.int().nonnegative() }).optional(),
});

/** A repository on the hub, at one commit. */
export class HubRepository {
  readonly name: string;
  readonly commit: string;
  readonly #connection: HubConnection;

  private constructor(name: string, commit: string, connection: HubConnection) {
    this.name = name;
    this.commit = commit;
    this.#connection = connection;
  }

  /**
   * Asks which commit a branch or a tag is at; a full commit needs no question.
   *
   * @throws MonosemError ERR_INVALID_ARGUMENT for impossible names, and as `HubConnection.get`
   */
  static async open(name: string, revision: string, connection: HubConnection): Promise<HubRepository> {
    checkRepositoryName(name);
    checkRevision(revision);
    if (isCommit(revision)) return new HubRepository(name, revision, connection);
    const what = revision === "main" ? name : `${name} at ${revision}`;
    const { modelInfo } = await import("@huggingface/hub");
    const { endpoint } = connection.settings;
    const fetch = throughConnection(connection, what);
    const information = await understood(what, endpoint, () =>
      modelInfo({ name, revision, additionalFields: ["sha"], hubUrl: endpoint, fetch }),
    );
    if (!isCommit(String(information.sha))) throw notAHub(what, endpoint, "it does not say which commit that is");
    return new HubRepository(name, String(information.sha), connection);
  }

  /**
   * The files in a folder and those below it, or of the whole repository.
   *
   * @throws MonosemError as `HubConnection.get`; ERR_FORMAT for a file name that leads out of the repository
   */
  async files(folder?: string): Promise<readonly RemoteFile[]> {
    const what = folder === undefined ? this.name : `${this.name}/${folder}`;
    const { listFiles } = await import("@huggingface/hub");
    const { endpoint } = this.#connection.settings;
    const path = folder === undefined ? {} : { path: this.#encoded(folder) };
    const listing = listFiles({
      ...path,
      repo: this.name,
      revision: this.commit,
      recursive: true,
      hubUrl: endpoint,
      fetch: throughConnection(this.#connection, what),
    });
    return await understood(what, endpoint, async () => {
      const files: RemoteFile[] = [];
      for await (const listed of listing) {
        const entry = entrySchema.parse(listed);
        if (entry.type === "file") files.push(this.#file(entry));
        if (files.length > mostFiles) throw notAHub(what, endpoint, `it lists more than ${mostFiles} files`);
      }
      return files;
    });
  }

  #file({ path, size, oid, lfs }: z.infer<typeof entrySchema>): RemoteFile {
    const url = `${this.#connection.settings.endpoint}/${this.name}/resolve/${this.commit}/${this.#encoded(path)}`;
    return { repository: this.name, name: path, bytes: lfs?.size ?? size, hash: lfs?.oid ?? oid, url };
  }

  #encoded(path: string): string {
    return partsOfFileName(path, this.name).map(encodeURIComponent).join("/");
  }
}

/** The hash whose hexadecimal digest is a file's `hash`, to be fed with its content. */
export function contentHash({ hash, bytes }: Pick<RemoteFile, "hash" | "bytes">): Hash {
  return hash.length === 64 ? createHash("sha256") : createHash("sha1").update(`blob ${bytes}\0`);
}

/** `fetch` for the hub's own library, by way of our requests: whole answers, token, retries and errors are ours. */
function throughConnection(connection: HubConnection, what: string): typeof fetch {
  let pages = 0;
  return async (url) => {
    pages += 1;
    if (pages > mostPages) throw notAHub(what, connection.settings.endpoint, "its listing does not end");
    const { response, body } = await connection.getWhole(String(url), {
      what,
      headers: { accept: "application/json" },
    });
    return new Response(new Uint8Array(body), { status: response.status, headers: response.headers });
  };
}

async function understood<Result>(what: string, endpoint: string, ask: () => Promise<Result>): Promise<Result> {
  try {
    return await ask();
  } catch (error) {
    if (error instanceof MonosemError) throw error;
    throw notAHub(what, endpoint, error instanceof Error ? error.message : String(error), error);
  }
}

function notAHub(what: string, endpoint: string, problem: string, cause?: unknown): MonosemError {
  return new MonosemError("ERR_NETWORK", `${what}: ${endpoint} does not answer as a hub does: ${problem}`, { cause });
}
