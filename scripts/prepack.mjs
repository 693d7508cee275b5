// npm's `prepack`, before a package is packed or published: without the addon that `npm run prebuild` makes, everything
// would be packed and nothing could be imported. (`prepare` would be the wrong place: it runs on every `npm install`.)
import { existsSync, readdirSync } from "node:fs";

const platform = `${process.platform}-${process.arch}`;
const folder = new URL(`../prebuilds/${platform}/`, import.meta.url);
const addons = existsSync(folder) ? readdirSync(folder).filter((name) => name.endsWith(".node")) : [];
if (addons.length === 0) {
  console.error(
    `prebuilds/${platform}/ holds no addon: the package could not be imported on this platform.\n` +
      "Build it first: npm run prebuild && npm pack",
  );
  process.exit(1);
}
