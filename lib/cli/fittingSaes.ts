/** Of several SAEs those that can be evaluated; the others are named, so that one of them does not keep the rest from it. */
import { visibleText } from "../analysis/visibleText.js";
import { MonosemError } from "../errors.js";
import type { Sae } from "../sae/sae.js";

export interface LoadedSae {
  readonly folder: string;
  readonly sae: Sae;
}

/** An SAE that can be evaluated, and what was found out about it when that was checked. */
export interface FittingSae<Checked> extends LoadedSae {
  readonly checked: Checked;
}

/**
 * The SAEs of some folders; those that cannot be loaded are named on the standard error with the reason.
 *
 * @param load - throws a MonosemError for what is no SAE
 * @throws MonosemError what `load` throws where there is only one folder; ERR_ABORTED; ERR_CONFIG where none can be loaded
 */
export async function loadableSaes(
  folders: readonly string[],
  load: (folder: string) => Promise<Sae>,
): Promise<readonly LoadedSae[]> {
  const loaded: LoadedSae[] = [];
  try {
    for (const folder of folders) {
      try {
        loaded.push({ folder, sae: await load(folder) });
      } catch (error) {
        if (folders.length === 1 || !(error instanceof MonosemError) || error.code === "ERR_ABORTED") throw error;
        leaveOut(folder, error);
      }
    }
    requireAny(loaded, folders.length, "can be loaded");
    return loaded;
  } catch (error) {
    for (const { sae } of loaded) sae.dispose();
    throw error;
  }
}

/**
 * Those of several SAEs that fit what they are to be evaluated on, all checked before one is evaluated; the others are
 * named on the standard error with the reason.
 *
 * @param check - throws a MonosemError where an SAE does not fit
 * @throws MonosemError what `check` throws where there is only one SAE; ERR_CONFIG where none of several fits
 */
export function fittingSaes<Checked>(
  saes: readonly LoadedSae[],
  check: (sae: Sae) => Checked,
): readonly FittingSae<Checked>[] {
  const fitting: FittingSae<Checked>[] = [];
  for (const { folder, sae } of saes) {
    try {
      fitting.push({ folder, sae, checked: check(sae) });
    } catch (error) {
      if (!(error instanceof MonosemError)) throw error;
      if (saes.length === 1) throw new MonosemError(error.code, `${folder}: ${error.message}`, { cause: error });
      leaveOut(folder, error);
    }
  }
  requireAny(fitting, saes.length, "can be evaluated on this");
  return fitting;
}

function leaveOut(folder: string, { message }: MonosemError): void {
  process.stderr.write(`left out ${visibleText(`${folder}: ${message}`)}\n`);
}

function requireAny(left: readonly unknown[], count: number, what: string): void {
  if (left.length > 0) return;
  throw new MonosemError("ERR_CONFIG", `none of the ${count} SAEs ${what}, see above`);
}
