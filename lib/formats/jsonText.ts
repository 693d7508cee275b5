/** JSON text from strangers: what would exhaust the stack or the memory of whoever reads it is refused first. */
import { type ErrorCode, MonosemError } from "../errors.js";

/**
 * The parser takes any nesting, but what walks its values (schemas, JSON.stringify for a message) calls itself for each
 * level. Configurations nest less than ten times.
 */
const maximumLevels = 100;

/**
 * A value takes up to some 50 bytes of memory where its text takes two ("[]"). The largest tokenizers have 2.7 million: a
 * number for each of 900,000 tokens, and two strings for each merge.
 */
const maximumValues = 10_000_000;

/**
 * The value of a JSON text.
 *
 * @param what - what holds the text, for messages
 * @param malformed - the error's code; by default ERR_FORMAT
 * @throws MonosemError `malformed` when it is not JSON, nests too often or has too many values
 */
export function parseJsonText(text: string, what: string, malformed: ErrorCode = "ERR_FORMAT"): unknown {
  requireBounded(text, what, malformed);
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new MonosemError(malformed, `${what} is not JSON: ${(cause as Error).message}`, { cause });
  }
}

/** One look at each character outside of strings; what is not JSON is left to the parser. */
function requireBounded(text: string, what: string, malformed: ErrorCode): void {
  let levels = 0;
  let values = 1;
  for (let at = 0; at < text.length; at++) {
    switch (text.charCodeAt(at)) {
      case 0x22: // "
        at = endOfString(text, at);
        break;
      case 0x5b: // [
      case 0x7b: // {
        levels += 1;
        values += 1;
        if (levels > maximumLevels) {
          throw new MonosemError(
            malformed,
            `${what} nests lists and objects more than ${maximumLevels} times (character ${at})`,
          );
        }
        break;
      case 0x5d: // ]
      case 0x7d: // }
        levels -= 1;
        break;
      case 0x2c: // ,
        values += 1;
        break;
    }
    if (values > maximumValues) {
      throw new MonosemError(malformed, `${what} has more than ${maximumValues} values (character ${at})`);
    }
  }
}

/** Where the quote stands that closes the string that begins at `begin`; the text's end where none does. */
function endOfString(text: string, begin: number): number {
  for (let at = begin + 1; at < text.length; at++) {
    const character = text.charCodeAt(at);
    if (character === 0x22 /* " */) return at;
    if (character === 0x5c /* \ */) at += 1;
  }
  return text.length;
}
