// Makes the README's pictures (docs/pictures) of what commands print and write about the demo's SAE, with headless Chromium:
//
//   npm run demo && node scripts/pictures.mjs [PICTURE...]       (CHROME=/path/to/chrome)
//
// Pictures of a terminal need `script` (util-linux). Which latents carry "she" depends on the SAE: `monosem patch --sae` names them.
import { execFileSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

const root = fileURLToPath(new URL("..", import.meta.url));
const output = join(root, "docs/pictures");
const monosem = `"${process.execPath}" "${join(root, "dist/cli/main.js")}"`;

const model = "--model assets/tiny-gpt2";
const sae = `--sae demo-output/sae ${model}`;
const girl = '"The little girl was happy, because"';
const boy = '"The little boy was happy, because"';
const measure = '--target " she" --against " he"';

/**
 * Of each picture: the commands, without "monosem"; what to show, a page that is there then (from its element of that class or
 * id on), or else what the commands print; the size in pixels of the page; how much smaller the picture is.
 */
const pictures = {
  "features.png": { page: "demo-output/features.html", size: [960, 1010] },
  "latent.png": { page: "demo-output/features.html", at: /<article id="([^"]*)"/, size: [960, 690] },
  "feature-store.png": {
    commands: [
      `features ${sae} --corpus stories.jsonl --store features --top 1 --examples 3`,
      `features --from features --kinds ${sae} --top 2`,
      `features ${sae} --prompt "The king said that he was" --by quantile --from features --top 4`,
    ],
    size: [900, 760],
  },
  "words.png": {
    example: "interpret-latents.js --html words.html demo-output/sae stories.jsonl",
    page: "words.html",
    size: [960, 860],
  },
  "attribution.png": {
    commands: [`attribute shap ${model} --prompt ${girl} ${measure} --html attribution.html`],
    page: "attribution.html",
    size: [900, 600],
  },
  "probes.png": {
    commands: [
      `probe ${model} --data people.jsonl --pooling last --hook hook_embed blocks.{0,1,2,3}.hook_resid_post --html probes.html`,
    ],
    page: "probes.html",
    size: [900, 440],
  },
  "patching.svg": {
    commands: [
      `patch ${model} --clean ${girl} --corrupted ${boy} ${measure} --components resid_pre attn_out --svg "${output}/patching.svg"`,
    ],
  },
  "steering.png": {
    commands: [
      `steer ${sae} --prompt "The child was happy, because" --latent 508 --strengths -4 0 4 8 --samples 2 --max-new-tokens 32 --target " she" --html steering.html`,
    ],
    page: "steering.html",
    size: [1000, 950],
    scale: 0.8,
  },
  "compare.png": {
    commands: [
      `compare ${sae} --prompt ${girl} --corrupted ${boy} ${measure} --data people.jsonl --positive girl --html compare.html`,
    ],
    page: "compare.html",
    size: [1080, 1220],
    scale: 0.8,
  },
  "audit.png": {
    commands: [`audit ${sae} --corpus stories.jsonl --html audit.html`],
    page: "audit.html",
    size: [1150, 960],
    scale: 0.8,
  },
  "bench-sae.png": {
    commands: [
      `bench-sae ${sae} --evals core sparse-probing absorption --corpus stories.jsonl --data people.jsonl --output bench`,
    ],
    size: [1100, 370],
  },
};

const chrome =
  process.env.CHROME ??
  ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"].find((path) => existsSync(path));
if (chrome === undefined) throw new Error("no Chromium found: name one by CHROME");
if (!existsSync(join(root, "demo-output/sae"))) throw new Error("there is no demo-output: npm run demo makes it");

const folder = mkdtempSync(join(tmpdir(), "monosem-pictures-"));
const run = (command) => execFileSync("bash", ["-c", command], { cwd: folder, stdio: ["ignore", "ignore", "inherit"] });
try {
  for (const name of ["assets", "demo-output"]) symlinkSync(join(root, name), join(folder, name));
  run(`${monosem} generate ${model} --prompt Once --max-new-tokens 240 --samples 64 > stories.jsonl`);
  writeFileSync(join(folder, "people.jsonl"), people());
  const names = process.argv.slice(2);
  for (const [file, { commands = [], example, page, at, size, scale = 1 }] of Object.entries(pictures)) {
    if (names.length > 0 && !names.includes(file)) continue;
    if (example !== undefined) run(`"${process.execPath}" "${join(root, "examples")}"/${example}`);
    if (size === undefined || page !== undefined) for (const command of commands) run(`${monosem} ${command}`);
    if (size !== undefined)
      screenshot(file, page === undefined ? terminalPage(commands) : join(folder, page), at, size, scale);
    console.log(`${file}: ${Math.ceil(statSync(join(output, file)).size / 1024)} KB`);
  }
} finally {
  rmSync(folder, { recursive: true, force: true });
}

/** The labelled texts of the README. */
function people() {
  const starts = ["One day the", "The little", "Then the", "A happy"];
  const ends = ["went home", "said no", "saw a dog", "ran away"];
  const texts = starts.flatMap((start) =>
    ends.flatMap((end) => ["girl", "boy"].map((label) => ({ text: `${start} ${label} ${end}`, label }))),
  );
  return texts.map((text) => JSON.stringify(text)).join("\n");
}

/** A page that shows a part of a page in a frame: Chromium's pictures of one that is scrolled begin with a blank strip. */
function screenshot(file, source, at, [width, height], scale) {
  const fragment = at === undefined ? "" : `#${at.exec(readFileSync(source, "utf8"))[1]}`;
  const frame = join(folder, "frame.html");
  writeFileSync(
    frame,
    `<body style="margin:0"><iframe src="${pathToFileURL(source)}${fragment}" scrolling="no" style="border:0;width:${width}px;height:${height}px"></iframe>`,
  );
  execFileSync(
    chrome,
    [
      ...["--headless", "--no-sandbox", "--disable-gpu", "--disable-lcd-text", "--hide-scrollbars", "--no-first-run"],
      ...[
        "--disable-background-networking",
        `--force-device-scale-factor=${scale}`,
        `--user-data-dir=${join(folder, "profile")}`,
      ],
      ...[`--window-size=${width},${height}`, `--screenshot=${join(output, file)}`, pathToFileURL(frame).href],
    ],
    { stdio: "ignore" },
  );
}

/** What commands print on a terminal, as a page. */
function terminalPage(commands) {
  const shown = commands.map((command) => {
    const printed = execFileSync("script", ["-qec", `stty cols 110; ${monosem} ${command} 2>/dev/null`, "/dev/null"], {
      cwd: folder,
      encoding: "utf8",
      env: { ...process.env, TERM: "xterm-256color" },
    });
    return `<b>$ monosem ${escaped(command)}</b>\n${coloured(printed.replaceAll("\r", "").trim())}`;
  });
  const page = join(folder, "terminal.html");
  const style = `body{margin:0;background:#fff;color:#1d2129}pre{margin:0;padding:14px 18px;font:12.5px/1.45 "DejaVu Sans Mono",monospace;white-space:pre-wrap}b{color:#c2410c}`;
  writeFileSync(page, `<!doctype html><meta charset="utf-8"><style>${style}</style><pre>${shown.join("\n\n")}</pre>`);
  return page;
}

function escaped(text) {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;");
}

/** The few sequences that the command line uses: bold, dim, and black on a colour of the 256-colour palette. */
function coloured(text) {
  const sequence = new RegExp(`${String.fromCharCode(27)}\\[([\\d;]*)m`, "g");
  return escaped(text).replaceAll(sequence, (_, codes) => {
    if (codes === "0" || codes === "") return "</span>";
    if (codes === "1") return '<span style="font-weight:600">';
    if (codes === "2") return '<span style="color:#667085">';
    const index = Number(codes.split(";").at(-1)) - 16;
    const level = (step) => (step === 0 ? 0 : 55 + 40 * step);
    const [red, green, blue] = [Math.floor(index / 36), Math.floor(index / 6) % 6, index % 6].map(level);
    return `<span style="background:rgb(${red} ${green} ${blue})">`;
  });
}
