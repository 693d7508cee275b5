/**
 * Makes feature-store.png: what `features --kinds` and `features --prompt` print on a terminal. Needs `script` (util-linux)
 * and Chromium. In a folder with the SAE and the stories of the README's first commands:
 *
 *   node feature-store.mjs PATH_OF_monosem
 */
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const commandLine = process.argv[2] ?? "npx monosem";
const loaded = "--sae runs/first/sae --model assets/tiny-gpt2";
const commands = [
  `features ${loaded} --corpus stories.txt --store features --top 1 --examples 3`,
  `features --from features --kinds ${loaded} --top 2`,
  `features ${loaded} --prompt "The king said that he was" --by quantile --from features --top 4`,
];
const shown = commands.map((command) => {
  const printed = execFileSync("script", ["-qec", `stty cols 110; ${commandLine} ${command} 2>/dev/null`, "/dev/null"], {
    encoding: "utf8",
    env: { ...process.env, TERM: "xterm-256color" },
  });
  return `<b>$ monosem ${escaped(command)}</b>\n${coloured(printed.replaceAll("\r", "").trim())}`;
});

const page = mkdtempSync(join(tmpdir(), "picture-"));
writeFileSync(
  join(page, "page.html"),
  `<!doctype html><meta charset="utf-8"><style>body{margin:0;background:#fff;color:#1d2129}pre{margin:0;padding:14px 18px;font:12.5px/1.45 "DejaVu Sans Mono",monospace;white-space:pre-wrap}b{color:#c2410c}</style><pre>${shown.join("\n\n")}</pre>`,
);
const output = join(dirname(fileURLToPath(import.meta.url)), "feature-store.png");
execFileSync(process.env.CHROME ?? "chromium", [
  ...["--headless", "--no-sandbox", "--disable-gpu", "--disable-lcd-text", "--no-first-run", `--user-data-dir=${page}/profile`],
  ...[`--screenshot=${output}`, "--window-size=900,760", `file://${page}/page.html`],
]);
rmSync(page, { recursive: true });

function escaped(text) {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;");
}

/** The few sequences that the command line uses: bold, dim, and black on a colour of the 256-colour palette. */
function coloured(text) {
  return escaped(text).replaceAll(/\u001b\[([\d;]*)m/g, (_, codes) => {
    if (codes === "0" || codes === "") return "</span>";
    if (codes === "1") return '<span style="font-weight:600">';
    if (codes === "2") return '<span style="color:#667085">';
    const index = Number(codes.split(";").at(-1)) - 16;
    const level = (step) => (step === 0 ? 0 : 55 + 40 * step);
    const [red, green, blue] = [Math.floor(index / 36), Math.floor(index / 6) % 6, index % 6].map(level);
    return `<span style="background:rgb(${red} ${green} ${blue})">`;
  });
}
