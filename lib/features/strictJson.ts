import { MonosemError } from "../errors.js";

/**
 * JSON for databases: no NaN or infinity (JSON.stringify would write null), and only text that every reader takes: a lone
 * surrogate becomes U+FFFD, a NUL, which PostgreSQL refuses, the symbol ␀.
 *
 * @param what names the object in messages, such as "latent 17"
 * @throws MonosemError ERR_NON_FINITE naming the field
 */
export function strictJson(value: object, what: string): string {
  let field = "";
  return JSON.stringify(value, (key, item: unknown) => {
    if (Number.isNaN(Number(key)) && key !== "") field = key;
    if (typeof item === "number" && !Number.isFinite(item)) {
      throw new MonosemError("ERR_NON_FINITE", `cannot export ${what}: ${field} holds ${item}`);
    }
    return typeof item === "string" ? item.replace(/\p{Cs}/gu, "\ufffd").replaceAll("\0", "␀") : item;
  });
}
