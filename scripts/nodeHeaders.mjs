import { existsSync } from "node:fs";
import { dirname, join } from "node:path";

/**
 * Where node-gyp finds the headers of this Node.js without downloading them: the configured `nodedir`, or the folder
 * that Node.js is installed in. Undefined where the headers are not installed; node-gyp then downloads them.
 */
export function nodeHeadersDirectory() {
  const candidates = [process.env.npm_config_nodedir, dirname(dirname(process.execPath))];
  return candidates.find(
    (directory) => directory !== undefined && existsSync(join(directory, "include", "node", "common.gypi")),
  );
}
