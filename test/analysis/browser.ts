import { execFileSync } from "node:child_process";
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** A browser, where there is one. */
export const chromium: string | undefined = [
  "/usr/bin/chromium",
  "/usr/bin/chromium-browser",
  "/usr/bin/google-chrome",
].find(existsSync);

/** What a browser has made of a page once it has loaded it, scripts of the page's run if it has any. */
export function domOf(html: string): string {
  const directory = mkdtempSync(join(tmpdir(), "monosem-page-"));
  try {
    const path = join(directory, "page.html");
    writeFileSync(path, html);
    const flags = [
      "--headless",
      "--no-sandbox",
      "--disable-gpu",
      "--no-first-run",
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-sync",
      "--disable-dev-shm-usage",
      `--user-data-dir=${join(directory, "profile")}`,
    ];
    return execFileSync(chromium!, [...flags, "--dump-dom", `file://${path}`], {
      encoding: "utf8",
      stdio: ["ignore", "pipe", "ignore"],
    });
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}
