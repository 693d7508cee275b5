// Takes the README's pictures (docs/pictures) of pages that commands have written, with headless Chromium:
//
//   npm run demo && node scripts/pictures.mjs
//   CHROME=/path/to/chrome node scripts/pictures.mjs features.png
//
// A picture whose page has not been made yet is left out, and named.
import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

const root = fileURLToPath(new URL("..", import.meta.url));

/** Name; page, from the root of the clone; where in it the id stands of what is to be at the top; size in pixels. */
const pictures = [
  { file: "features.png", page: "demo-output/features.html", width: 960, height: 1010 },
  { file: "latent.png", page: "demo-output/features.html", at: /<article id="([^"]*)"/, width: 960, height: 690 },
];

const chrome =
  process.env.CHROME ??
  ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"].find((path) => existsSync(path));
if (chrome === undefined) throw new Error("no Chromium found: name one by CHROME");

const names = process.argv.slice(2);
const folder = mkdtempSync(join(tmpdir(), "monosem-pictures-"));
try {
  mkdirSync(join(root, "docs/pictures"), { recursive: true });
  for (const { file, page, at, width, height } of pictures) {
    if (names.length > 0 && !names.includes(file)) continue;
    const source = join(root, page);
    if (!existsSync(source)) {
      console.log(`${file}: left out, as there is no ${page}`);
      continue;
    }
    const fragment = at === undefined ? "" : `#${at.exec(readFileSync(source, "utf8"))[1]}`;
    // In a frame: Chromium's pictures of a page that is scrolled to a fragment begin with a blank strip.
    const frame = join(folder, "frame.html");
    const style = `border:0;width:${width}px;height:${height}px`;
    writeFileSync(
      frame,
      `<body style="margin:0"><iframe src="${pathToFileURL(source)}${fragment}" scrolling="no" style="${style}"></iframe>`,
    );
    const target = join(root, "docs/pictures", file);
    execFileSync(
      chrome,
      [
        ...["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--disable-background-networking"],
        `--user-data-dir=${join(folder, "profile")}`,
        `--window-size=${width},${height}`,
        `--screenshot=${target}`,
        pathToFileURL(frame).href,
      ],
      { stdio: "ignore" },
    );
    console.log(`${file}: ${Math.ceil(statSync(target).size / 1024)} KB`);
  }
} finally {
  rmSync(folder, { recursive: true, force: true });
}
