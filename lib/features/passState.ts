/** An interrupted pass, as a file: the arrays of the collector and of the metrics, and where in the corpus it was. */
import { createHash } from "node:crypto";
import { z } from "zod";
import type { ContextPosition } from "../activations/contexts.js";
import { MonosemError } from "../errors.js";
import { SafetensorsFile, writeSafetensors } from "../formats/safetensors.js";
import { bytesOf } from "./checksum.js";
import type { FeaturePass } from "./featurePass.js";
import { identitySchema, type PassIdentity, parsedMetadata } from "./storeHeader.js";

export interface PassState {
  readonly identity: PassIdentity;
  /** Where in the corpus the next context begins. */
  readonly position: ContextPosition;
  /** Tokens of the contexts that went through. */
  readonly tokensRead: number;
}

const count: z.ZodNumber = z.number().int().nonnegative();

const stateSchema: z.ZodType<PassState & { readonly sha256: string }> = z.strictObject({
  identity: identitySchema,
  position: z.strictObject({ epoch: count, document: count, piece: count, token: count }),
  tokensRead: count,
  sha256: z.string(),
});

const stateKey = "monosem.unfinished-features";
const metricsName = "metrics";
/** A collector has such arrays once it has seen a negative activation. */
const negativePrefix = "smallest.";

/** Writes the state, atomically. @throws MonosemError ERR_IO */
export async function savePass(path: string, pass: FeaturePass, state: PassState): Promise<void> {
  const arrays = { ...pass.collector.state, [metricsName]: await pass.saveMetrics() };
  const sha256 = createHash("sha256");
  for (const array of Object.values(arrays)) sha256.update(bytesOf(array));
  await writeSafetensors(
    path,
    Object.fromEntries(Object.entries(arrays).map(([name, data]) => [name, { shape: [data.length], data }])),
    { [stateKey]: JSON.stringify({ ...state, sha256: sha256.digest("hex") }) },
  );
}

/**
 * Makes a pass that has seen nothing go on where another was.
 *
 * @throws MonosemError ERR_NOT_FOUND where there is no such file; ERR_CONFIG for the state of another pass; ERR_FORMAT for a
 *   corrupted file; ERR_IO
 */
export async function restorePass(path: string, pass: FeaturePass, identity: PassIdentity): Promise<PassState> {
  await using file = await SafetensorsFile.open(path);
  const text = file.metadata[stateKey];
  if (text === undefined) throw new MonosemError("ERR_FORMAT", `${path} holds no unfinished features`);
  const { sha256: expected, ...state } = parsedMetadata(path, text, stateSchema);
  requireSameIdentity(path, state.identity, identity);
  if ([...file.entries.keys()].some((name) => name.startsWith(negativePrefix))) pass.collector.expectNegative();
  const arrays = pass.collector.state;
  const sha256 = createHash("sha256");
  for (const [name, array] of Object.entries(arrays)) {
    const { data } = await file.read(name);
    if (data.constructor !== array.constructor || data.length !== array.length) {
      throw new MonosemError("ERR_FORMAT", `${path}: "${name}" has ${data.length} numbers, expected ${array.length}`);
    }
    array.set(data as never);
    sha256.update(bytesOf(data));
  }
  const { data: metrics } = await file.read(metricsName);
  sha256.update(bytesOf(metrics));
  if (sha256.digest("hex") !== expected) {
    throw new MonosemError("ERR_FORMAT", `${path} is corrupted: its numbers are not those that were written`);
  }
  pass.restoreMetrics(metrics as Float64Array<ArrayBuffer>);
  return state;
}

/** @throws MonosemError ERR_CONFIG naming what differs */
export function requireSameIdentity(path: string, found: PassIdentity, wanted: PassIdentity): void {
  for (const [key, value] of Object.entries(wanted)) {
    const there = JSON.stringify(found[key as keyof PassIdentity]);
    if (there === JSON.stringify(value)) continue;
    throw new MonosemError(
      "ERR_CONFIG",
      `${path} was made with ${key} ${there}, not ${JSON.stringify(value)}: choose another folder`,
    );
  }
}
