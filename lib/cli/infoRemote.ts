/** What is known of models and SAEs that are not on this machine: by the registry, configurations and headers alone. */
import { MonosemError } from "../errors.js";
import { HubConnection } from "../hub/connection.js";
import { RemoteSafetensors, readRange } from "../hub/remoteSafetensors.js";
import { HubRepository, type RemoteFile } from "../hub/repository.js";
import { readHubSettings } from "../hub/settings.js";
import { filesOfModel } from "../models/locateModel.js";
import { filesOfSae, folderToList } from "../pretrained/publishedFiles.js";
import type { PublishedSae } from "../pretrained/registry.js";

type RemoteFacts = Readonly<Record<string, string | number | boolean | undefined>>;

interface RemoteFiles {
  readonly connection: HubConnection;
  readonly commit: string;
  readonly files: readonly RemoteFile[];
}

/**
 * What the registry, the SAE's own configuration and the headers of its weights say. Nothing is downloaded.
 *
 * @throws MonosemError as `HubRepository.files` and `RemoteSafetensors.open`
 */
export async function factsOfPublishedSae(sae: PublishedSae, signal: AbortSignal): Promise<RemoteFacts> {
  const { path, format, repository, metadata, ...known } = sae;
  const choose = (names: readonly string[]): readonly string[] => filesOfSae(format, path, names);
  const remote = await remoteFiles(repository, folderToList(format, path), choose, signal);
  return {
    kind: "published sae",
    ...known,
    ...scalarsOf(metadata?.model_from_pretrained_kwargs),
    repository,
    path,
    format,
    ...(await ownFacts(remote)),
  };
}

/** @throws MonosemError as `factsOfPublishedSae` */
export async function factsOfRemoteModel(repository: string, signal: AbortSignal): Promise<RemoteFacts> {
  const remote = await remoteFiles(repository, undefined, filesOfModel, signal);
  return { kind: "model on the hub", repository, ...(await ownFacts(remote)) };
}

async function remoteFiles(
  repository: string,
  folder: string | undefined,
  choose: (names: readonly string[]) => readonly string[],
  signal: AbortSignal,
): Promise<RemoteFiles> {
  const connection = new HubConnection(await readHubSettings(), signal);
  const opened = await HubRepository.open(repository, "main", connection);
  const all = await opened.files(folder);
  const chosen = new Set(choose(all.map(({ name }) => name)));
  return { connection, commit: opened.commit, files: all.filter(({ name }) => chosen.has(name)) };
}

async function ownFacts({ connection, commit, files }: RemoteFiles): Promise<RemoteFacts> {
  const facts: Record<string, string | number | boolean | undefined> = { commit };
  let parameters = 0;
  for (const file of files) {
    if (/(^|\/)(cfg|config|hyperparams)\.json$/.test(file.name)) {
      Object.assign(facts, scalarsOf(await readJson(file, connection)));
    }
    if (!file.name.endsWith(".safetensors")) continue;
    const { entries } = await RemoteSafetensors.open(file, connection);
    for (const { shape } of entries.values()) parameters += shape.reduce((product, size) => product * size, 1);
  }
  return {
    ...facts,
    ...(parameters === 0 ? {} : { parameters }),
    files: files.length,
    bytes: files.reduce((sum, { bytes }) => sum + bytes, 0),
  };
}

async function readJson(file: RemoteFile, connection: HubConnection): Promise<unknown> {
  const text = new TextDecoder().decode(await readRange(file, 0, file.bytes, connection));
  try {
    return JSON.parse(text);
  } catch (cause) {
    const what = `${file.repository}/${file.name}`;
    throw new MonosemError("ERR_FORMAT", `${what} is not JSON: ${(cause as Error).message}`, { cause });
  }
}

function scalarsOf(json: unknown): RemoteFacts {
  const record = typeof json === "object" && json !== null ? json : {};
  return Object.fromEntries(
    Object.entries(record).filter(([, value]) => ["string", "number", "boolean"].includes(typeof value)),
  );
}
