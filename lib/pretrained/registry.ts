/** Which SAEs are published, and where: registry.json, which scripts/registry.py writes. */
import { readFileSync } from "node:fs";
import { MonosemError } from "../errors.js";
import { isRepositoryName } from "../hub/names.js";
import { closestNames, probableName } from "../models/closestNames.js";
import { known, type SaeMetadata } from "../sae/metadata.js";
import { unknownFormat } from "./publishedFiles.js";

/** A published SAE: where it is, and what its publishers or the registry say about it. */
export interface PublishedSae {
  readonly release: string;
  readonly saeId: string;
  /** On the hub. */
  readonly repository: string;
  /** Folder or file in the repository; "." for the whole. */
  readonly path: string;
  readonly format: string;
  /** Name of the model, as TransformerLens or the hub has it. */
  readonly model?: string;
  readonly hook?: string;
  /** Of a transcoder. */
  readonly hookOut?: string;
  readonly contextSize?: number;
  readonly prependBos?: boolean;
  /** Latents per token that were measured. */
  readonly l0?: number;
  /** Roughly: some are given to one digit. */
  readonly explainedVariance?: number;
  /** What activations are to be multiplied by, where the SAE's files leave that open. */
  readonly inputScale?: number;
  /** What the SAE's own metadata lack. */
  readonly metadata?: SaeMetadata;
}

interface Release extends Omit<PublishedSae, "release" | "saeId" | "path"> {
  readonly saes: readonly (Partial<PublishedSae> & { readonly id: string })[];
}

let loaded: ReadonlyMap<string, Release> | undefined;

function releases(): ReadonlyMap<string, Release> {
  if (loaded === undefined) {
    const text = readFileSync(new URL("registry.json", import.meta.url), "utf8");
    loaded = new Map(Object.entries((JSON.parse(text) as { releases: Record<string, Release> }).releases));
  }
  return loaded;
}

/** The releases that are known by name, with the number of their SAEs. */
export function publishedReleases(): readonly {
  readonly release: string;
  readonly model: string | undefined;
  readonly saes: number;
}[] {
  return [...releases()].map(([release, { model, saes }]) => ({ release, model, saes: saes.length }));
}

/**
 * The ids of a release's SAEs.
 *
 * @throws MonosemError ERR_NOT_FOUND, with the names that come nearest
 */
export function publishedSaeIds(release: string): readonly string[] {
  return releaseNamed(release).saes.map(({ id }) => id);
}

/**
 * A published SAE by its names. A release that has the form "owner/name" and is not in the registry is a repository on the
 * hub, and `saeId` the folder in it.
 *
 * @param saeId - may be left out where there is only one
 * @throws MonosemError ERR_NOT_FOUND for names that do not exist, with those that come nearest
 */
export function publishedSae(release: string, saeId?: string): PublishedSae {
  if (!releases().has(release) && release.includes("/") && isRepositoryName(release)) {
    return { release, saeId: saeId ?? ".", repository: release, path: saeId ?? ".", format: unknownFormat };
  }
  const { saes, ...facts } = releaseNamed(release);
  const found = saeId === undefined && saes.length === 1 ? saes[0] : saes.find(({ id }) => id === saeId);
  if (found !== undefined) {
    const { id, path = id, ...own } = found;
    return { ...facts, ...own, release, saeId: id, path };
  }
  const ids = saes.map(({ id }) => id);
  const hint = saeId === undefined ? `${ids.slice(0, 3).join(", ")} ...` : closestNames(saeId, ids).join(", ");
  const asked = saeId === undefined ? "which of its SAEs is not said" : `it has no SAE ${JSON.stringify(saeId)}`;
  throw new MonosemError(
    "ERR_NOT_FOUND",
    `release ${release}: ${asked}; of its ${ids.length}, ${saeId === undefined ? "there are" : "did you mean"} ${hint}? (monosem info ${release} lists them)`,
  );
}

/** What an SAE's metadata are by the registry; its own files may say more. */
export function metadataOf({ model, hook, hookOut, contextSize, prependBos }: PublishedSae): SaeMetadata {
  return known({ modelName: model, hookName: hook, hookNameOut: hookOut, contextSize, prependBos });
}

/**
 * Splits "release/saeId", or "hf:owner/name/folder" of a repository; undefined when the text has neither form. Whether
 * the SAE exists is another question. (Without the "hf:" every mistyped path would be asked of the hub.)
 */
export function splitPublishedName(name: string): { readonly release: string; readonly saeId?: string } | undefined {
  const onHub = name.startsWith("hf:");
  const parts = (onHub ? name.slice("hf:".length) : name).split("/");
  const release = parts.splice(0, onHub ? 2 : 1).join("/");
  // One that is nearly the name of a release is meant to be one: that it does not exist is then said with the right name.
  const known = releases().has(release) || probableName(release, [...releases().keys()]) !== undefined;
  if (onHub ? !isRepositoryName(release) : !known) return undefined;
  return parts.length === 0 ? { release } : { release, saeId: parts.join("/") };
}

function releaseNamed(release: string): Release {
  const found = releases().get(release);
  if (found !== undefined) return found;
  throw new MonosemError(
    "ERR_NOT_FOUND",
    `no release of SAEs is called ${JSON.stringify(release)}: did you mean ${closestNames(release, [...releases().keys()]).join(", ")}?`,
  );
}
