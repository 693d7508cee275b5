import { visibleText } from "../analysis/visibleText.js";
import { MonosemError } from "../errors.js";
import type { Sae } from "../sae/sae.js";

/** An SAE that can be evaluated, and what was found out about it when that was checked. */
export interface FittingSae<Checked> {
  readonly folder: string;
  readonly sae: Sae;
  readonly checked: Checked;
}

/**
 * Those of several SAEs that fit what they are to be evaluated on, all checked before one is evaluated. The others are
 * named on the standard error with the reason, so that one of them in a pattern does not keep the rest from it.
 *
 * @param check - throws a MonosemError where an SAE does not fit
 * @throws MonosemError what `check` throws where there is only one SAE; ERR_CONFIG where none of several fits
 */
export function fittingSaes<Checked>(
  saes: readonly Sae[],
  folders: readonly string[],
  check: (sae: Sae) => Checked,
): readonly FittingSae<Checked>[] {
  const fitting: FittingSae<Checked>[] = [];
  for (const [index, sae] of saes.entries()) {
    const folder = folders[index]!;
    try {
      fitting.push({ folder, sae, checked: check(sae) });
    } catch (error) {
      if (!(error instanceof MonosemError)) throw error;
      const reason = `${folder}: ${error.message}`;
      if (saes.length === 1) throw new MonosemError(error.code, reason, { cause: error });
      process.stderr.write(`left out ${visibleText(reason)}\n`);
    }
  }
  if (fitting.length === 0) {
    throw new MonosemError("ERR_CONFIG", `none of the ${saes.length} SAEs can be evaluated on this, see above`);
  }
  return fitting;
}
