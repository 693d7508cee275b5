/** Text to run models on: documents from files or from memory. */
import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { stat } from "node:fs/promises";
import { extname } from "node:path";
import { checkText, refuseArgument } from "../checkArguments.js";
import { MonosemError, throwIfAborted } from "../errors.js";
import { documentPieces } from "./documentPieces.js";
import { filesMatching } from "./fileGlob.js";
import { parquetDocuments } from "./parquetDocuments.js";

/** A part of a document, in order: see documentPieces. */
export interface DocumentPiece {
  /** Index of the document in the corpus. */
  readonly document: number;
  /** Index of the piece in the document. */
  readonly piece: number;
  readonly text: string;
}

/** The text of a document, as it comes from the disk. */
type TextChunks = AsyncIterable<string> | Iterable<string>;

/** The documents of a file, or of memory; each is parsed only when it is called for. */
type DocumentStore = (signal: AbortSignal | undefined) => AsyncIterable<() => TextChunks> | Iterable<() => TextChunks>;

/**
 * An ordered collection of documents, read anew in each pass and never held in memory as a whole.
 *
 * In files: a `.txt` file is one document; a `.jsonl` file holds one JSON object per line with the document under
 * `"text"` (other keys are ignored, blank lines too); both in UTF-8. A `.parquet` file holds one document per row, in the
 * column `text`.
 */
export class Corpus {
  /** Changes when files are added, removed, renamed or change their size: a resumed run compares it. */
  readonly fingerprint: string;
  /** The files, in the order of their documents; none of documents in memory. */
  readonly files: readonly string[];
  /** "the corpus", with the patterns of its files: for messages. */
  readonly name: string;
  readonly #stores: readonly DocumentStore[];

  private constructor(
    stores: readonly DocumentStore[],
    fingerprint: string,
    { globs = [], files = [] }: { readonly globs?: readonly string[]; readonly files?: readonly string[] } = {},
  ) {
    this.#stores = stores;
    this.fingerprint = fingerprint;
    this.files = files;
    this.name = ["the corpus", ...globs].join(" ");
  }

  /**
   * The files that the patterns name (see filesMatching), pattern by pattern and sorted by path within each; a file that
   * several patterns name is read once.
   *
   * @throws MonosemError ERR_NOT_FOUND naming a pattern that matches nothing, ERR_CONFIG for a file of another kind or
   *   no patterns at all, ERR_INVALID_ARGUMENT for what is no list of patterns, ERR_IO
   */
  static async fromFiles(globs: readonly string[]): Promise<Corpus> {
    if (!Array.isArray(globs)) refuseArgument("Corpus.fromFiles: globs", "a list of paths or patterns", globs);
    for (const [index, glob] of globs.entries())
      checkText(`Corpus.fromFiles: globs[${index}]`, "a path or pattern", glob);
    if (globs.length === 0) throw new MonosemError("ERR_CONFIG", "the corpus needs at least one file");
    const paths = new Set<string>();
    for (const glob of globs) for (const path of await filesMatching(glob)) paths.add(path);
    const fingerprint = createHash("sha256");
    const stores: DocumentStore[] = [];
    for (const path of paths) {
      const kind = extname(path).toLowerCase();
      if (kind === ".txt") stores.push((signal) => [() => textChunks(path, signal)]);
      else if (kind === ".jsonl") stores.push((signal) => jsonlDocuments(path, signal));
      else if (kind === ".parquet") stores.push((signal) => wholeDocuments(parquetDocuments(path, signal)));
      else {
        const way =
          kind === ".json" ? 'as .jsonl it would hold an object with "text" in each line' : "narrow the pattern";
        throw new MonosemError("ERR_CONFIG", `${path} is no .txt, .jsonl or .parquet file; ${way}`);
      }
      fingerprint.update(`${path}\0${(await stat(path)).size}\0`);
    }
    return new Corpus(stores, fingerprint.digest("hex"), { globs, files: [...paths] });
  }

  /**
   * Documents in memory.
   *
   * @throws MonosemError ERR_INVALID_ARGUMENT for what is no list of texts
   */
  static fromDocuments(documents: readonly string[]): Corpus {
    if (!Array.isArray(documents)) refuseArgument("Corpus.fromDocuments: documents", "a list of texts", documents);
    const fingerprint = createHash("sha256");
    for (const [index, document] of (documents as readonly string[]).entries()) {
      if (typeof document !== "string") refuseArgument(`Corpus.fromDocuments: documents[${index}]`, "a text", document);
      fingerprint.update(`${document.length}\0${document}`);
    }
    return new Corpus([() => documents.map((document) => () => [document])], fingerprint.digest("hex"));
  }

  /**
   * All documents in order, each whole.
   *
   * @throws MonosemError ERR_FORMAT naming the file (and line) that is malformed, ERR_IO, ERR_ABORTED
   */
  async *documents(signal?: AbortSignal): AsyncGenerator<string, void, undefined> {
    for await (const { chunks } of this.#from(0, signal)) {
      let text = "";
      for await (const chunk of chunks) text += chunk;
      yield text;
    }
  }

  /**
   * The documents from the `firstDocument`-th on, in pieces short enough to be tokenised without holding up other work.
   * Empty documents have no pieces.
   *
   * @throws MonosemError as `documents`
   */
  async *pieces(firstDocument: number, signal?: AbortSignal): AsyncGenerator<DocumentPiece, void, undefined> {
    for await (const { document, chunks } of this.#from(firstDocument, signal)) {
      let piece = 0;
      for await (const text of documentPieces(chunks)) yield { document, piece: piece++, text };
    }
  }

  async *#from(
    firstDocument: number,
    signal: AbortSignal | undefined,
  ): AsyncGenerator<{ document: number; chunks: TextChunks }, void, undefined> {
    let document = 0;
    for (const store of this.#stores) {
      for await (const read of store(signal)) {
        throwIfAborted(signal, "reading the corpus");
        if (document >= firstDocument) yield { document, chunks: read() };
        document += 1;
      }
    }
  }
}

async function* jsonlDocuments(
  path: string,
  signal: AbortSignal | undefined,
): AsyncGenerator<() => TextChunks, void, undefined> {
  let number = 0;
  for await (const line of lines(path, signal)) {
    number += 1;
    const where = `${path}:${number}`;
    if (line.trim() !== "") yield () => [textOf(line, where)];
  }
}

async function* wholeDocuments(documents: AsyncIterable<string>): AsyncGenerator<() => TextChunks, void, undefined> {
  for await (const document of documents) yield () => [document];
}

function textOf(line: string, where: string): string {
  let record: unknown;
  try {
    record = JSON.parse(line);
  } catch (cause) {
    throw new MonosemError("ERR_FORMAT", `${where} is not JSON: ${(cause as Error).message}`, { cause });
  }
  const text =
    typeof record === "object" && record !== null && Object.hasOwn(record, "text")
      ? (record as { text: unknown }).text
      : undefined;
  if (typeof text !== "string") {
    throw new MonosemError("ERR_FORMAT", `${where} should be a JSON object with a string under "text"`);
  }
  return text;
}

async function* lines(path: string, signal: AbortSignal | undefined): AsyncGenerator<string, void, undefined> {
  let unfinished: string[] = [];
  for await (const chunk of textChunks(path, signal)) {
    const [first, ...others] = chunk.split("\n");
    unfinished.push(first!);
    for (const next of others) {
      yield unfinished.join("");
      unfinished = [next];
    }
  }
  yield unfinished.join("");
}

async function* textChunks(path: string, signal: AbortSignal | undefined): AsyncGenerator<string, void, undefined> {
  const decoder = new TextDecoder("utf-8", { fatal: true });
  const decode = (bytes?: Uint8Array): string => {
    try {
      return bytes === undefined ? decoder.decode() : decoder.decode(bytes, { stream: true });
    } catch (cause) {
      throw new MonosemError("ERR_FORMAT", `${path} is not valid UTF-8 text`, { cause });
    }
  };
  const stream = createReadStream(path);
  try {
    for await (const bytes of stream) {
      throwIfAborted(signal, "reading the corpus");
      yield decode(bytes as Uint8Array);
    }
  } catch (error) {
    if (error instanceof MonosemError) throw error;
    throw new MonosemError("ERR_IO", `cannot read ${path}: ${(error as Error).message}`, { cause: error });
  }
  const rest = decode();
  if (rest !== "") yield rest;
}
