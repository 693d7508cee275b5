import type { Sae } from "../sae/sae.js";

/**
 * The architecture that an SAE was trained as. A batchtopk SAE, for example, is saved as the jumprelu that it encodes
 * like, and says in its metadata what it was.
 */
export function trainedArchitecture({ config, metadata }: Sae): string {
  const { trainedAs } = metadata;
  return typeof trainedAs === "string" ? trainedAs : config.architecture;
}

/** The same with what it is saved as, where that is another: "batchtopk (saved as jumprelu)". */
export function architectureText(sae: Sae): string {
  const trained = trainedArchitecture(sae);
  return trained === sae.config.architecture ? trained : `${trained} (saved as ${sae.config.architecture})`;
}
