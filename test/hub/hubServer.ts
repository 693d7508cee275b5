/** A hub on this machine: the endpoints that clients read repositories by, and whatever misbehaviour a test wants. */
import { createHash } from "node:crypto";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

export interface ServedRepository {
  /** "owner/name". */
  readonly name: string;
  /** Content by file name. */
  readonly files: ReadonlyMap<string, Buffer>;
  /** Commits by branch or tag; by default "main" is at `commit`. */
  readonly commit?: string;
}

export interface LoggedRequest {
  readonly method: string;
  readonly url: string;
  readonly range: string | undefined;
  readonly authorization: string | undefined;
}

/** Answers a request in the server's place, if it returns true. */
export type Misbehaviour = (request: IncomingMessage, response: ServerResponse) => boolean | Promise<boolean>;

/** Larger files are served as LFS objects: by a redirect, with SHA-256 as their hash. */
const lfsFromBytes = 1000;

export const firstCommit = "0123456789abcdef0123456789abcdef01234567";

export function sha256(content: Uint8Array): string {
  return createHash("sha256").update(content).digest("hex");
}

export function gitHash(content: Uint8Array): string {
  return createHash("sha1").update(`blob ${content.length}\0`).update(content).digest("hex");
}

export class HubServer {
  readonly requests: LoggedRequest[] = [];
  /** Asked about every request, first. */
  misbehave: Misbehaviour = () => false;
  /** Entries of a listing, before they are sent. */
  changeListing: (entries: object[]) => object[] = (entries) => entries;
  entriesPerPage: number = Number.POSITIVE_INFINITY;
  readonly #repositories: ReadonlyMap<string, ServedRepository>;
  readonly #server: Server;

  private constructor(repositories: readonly ServedRepository[]) {
    this.#repositories = new Map(repositories.map((repository) => [repository.name, repository]));
    this.#server = createServer((request, response) => {
      const { method = "", url = "", headers } = request;
      this.requests.push({ method, url, range: headers.range, authorization: headers.authorization });
      void this.#answer(request, response);
    });
  }

  static async start(...repositories: readonly ServedRepository[]): Promise<HubServer> {
    const server = new HubServer(repositories);
    await new Promise<void>((resolve) => server.#server.listen(0, "127.0.0.1", resolve));
    return server;
  }

  get endpoint(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  /** Where large files are: to clients another host, as that of the real hub is. */
  get #storage(): string {
    return this.endpoint.replace("127.0.0.1", "localhost");
  }

  async stop(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  /** The requests for the content of a file, redirects not counted twice. */
  transfersOf(name: string): LoggedRequest[] {
    return this.requests.filter(
      ({ method, url }) => method === "GET" && url.includes(`/resolve/`) && url.endsWith(name),
    );
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    if (await this.misbehave(request, response)) return;
    const { pathname, searchParams } = new URL(request.url!, this.endpoint);
    const parts = pathname.split("/").slice(1).map(decodeURIComponent);
    if (parts[0] === "api" && parts[1] === "models") {
      const [, , owner, name, what, revision, ...folder] = parts;
      const repository = this.#repositories.get(`${owner}/${name}`);
      if (repository === undefined) return refuse(response, 401, "RepoNotFound");
      if (!this.#has(repository, revision!)) return refuse(response, 404, "RevisionNotFound");
      if (what === "revision") return json(response, { _id: "1", id: repository.name, sha: commitOf(repository) });
      return this.#list(repository, revision!, folder.join("/"), Number(searchParams.get("page") ?? 0), response);
    }
    if (parts[0] === "lfs") {
      const content = this.#contentWith(parts[1]!);
      return content === undefined ? refuse(response, 404, "EntryNotFound") : serve(request, response, content, {});
    }
    const [owner, name, , revision, ...path] = parts;
    const repository = this.#repositories.get(`${owner}/${name}`);
    if (repository === undefined) return refuse(response, 401, "RepoNotFound");
    if (!this.#has(repository, revision!)) return refuse(response, 404, "RevisionNotFound");
    const content = repository.files.get(path.join("/"));
    const headers = { "x-repo-commit": commitOf(repository) };
    if (content === undefined) return refuse(response, 404, "EntryNotFound", headers);
    if (content.length < lfsFromBytes) {
      return serve(request, response, content, { ...headers, etag: `"${gitHash(content)}"` });
    }
    const hash = sha256(content);
    const linked = { "x-linked-etag": `"${hash}"`, "x-linked-size": String(content.length) };
    response.writeHead(302, { ...headers, ...linked, location: `${this.#storage}/lfs/${hash}` }).end();
  }

  #has(repository: ServedRepository, revision: string): boolean {
    return revision === "main" || revision === commitOf(repository);
  }

  #contentWith(hash: string): Buffer | undefined {
    const all = [...this.#repositories.values()].flatMap(({ files }) => [...files.values()]);
    return all.find((content) => sha256(content) === hash);
  }

  #list({ name, files }: ServedRepository, revision: string, folder: string, page: number, to: ServerResponse): void {
    const below = [...files].filter(([path]) => folder === "" || path.startsWith(`${folder}/`));
    if (below.length === 0 && folder !== "") {
      refuse(to, 404, "EntryNotFound");
      return;
    }
    const all = this.changeListing(
      below.map(([path, content]) => ({
        type: "file",
        path,
        size: content.length,
        oid: gitHash(content),
        ...(content.length < lfsFromBytes
          ? {}
          : { lfs: { oid: sha256(content), size: content.length, pointerSize: 130 } }),
      })),
    );
    const rest = all.slice(page * this.entriesPerPage || 0);
    if (rest.length > this.entriesPerPage) {
      const path = folder === "" ? "" : `/${folder}`;
      const next = `${this.endpoint}/api/models/${name}/tree/${revision}${path}?recursive=true&page=${page + 1}`;
      to.setHeader("link", `<${next}>; rel="next"`);
    }
    json(to, rest.slice(0, this.entriesPerPage));
  }
}

function commitOf({ commit = firstCommit }: ServedRepository): string {
  return commit;
}

function json(response: ServerResponse, value: unknown): void {
  response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify(value));
}

function refuse(response: ServerResponse, status: number, code: string, headers: Record<string, string> = {}): void {
  response.writeHead(status, { ...headers, "x-error-code": code }).end();
}

/** Whole, or the range that is asked for. */
export function serve(
  { method, headers: { range } }: IncomingMessage,
  response: ServerResponse,
  content: Buffer,
  headers: Record<string, string>,
): void {
  const [, first, last] = /^bytes=(\d+)-(\d*)$/.exec(range ?? "") ?? [];
  if (first === undefined) {
    response.writeHead(200, { ...headers, "content-length": content.length });
    response.end(method === "HEAD" ? undefined : content);
    return;
  }
  if (Number(first) >= content.length) {
    response.writeHead(416, { ...headers, "content-range": `bytes */${content.length}` }).end();
    return;
  }
  const end = last === "" ? content.length : Math.min(Number(last) + 1, content.length);
  const part = content.subarray(Number(first), end);
  const said = `bytes ${first}-${end - 1}/${content.length}`;
  response.writeHead(206, { ...headers, "content-length": part.length, "content-range": said }).end(part);
}
