// After every build: the command line is executable, and in a clone `npx monosem` is this build. Without the link, npx would
// install the clone once more as a package of its own, which builds everything again.
import { chmodSync, lstatSync, mkdirSync, symlinkSync } from "node:fs";
import { fileURLToPath } from "node:url";

const root = new URL("../", import.meta.url);
chmodSync(new URL("dist/cli/main.js", root), 0o755);
const link = fileURLToPath(new URL("node_modules/.bin/monosem", root));
if (process.platform !== "win32" && lstatSync(link, { throwIfNoEntry: false }) === undefined) {
  mkdirSync(new URL("node_modules/.bin/", root), { recursive: true });
  symlinkSync("../../dist/cli/main.js", link);
}
