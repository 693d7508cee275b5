/** What bench/gpu_table.py makes of the lines that the parts of scripts/gpu-verify print. */
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";

const script = fileURLToPath(new URL("../../bench/gpu_table.py", import.meta.url));
const hasPython = spawnSync("python3", ["--version"]).status === 0;

interface Wanted {
  readonly what: string;
  readonly value: number | null;
  readonly reached: boolean | null;
}

function tableOf(lines: readonly object[]): { markdown: string; wanted: Wanted[]; lines: object[] } {
  const folder = mkdtempSync(join(tmpdir(), "monosem-"));
  try {
    const file = join(folder, "lines.jsonl");
    writeFileSync(file, lines.map((line) => `${JSON.stringify(line)}\n`).join(""));
    const { status, stdout, stderr } = spawnSync("python3", [script, file, folder], { encoding: "utf8" });
    expect(stderr).toBe("");
    expect(status).toBe(0);
    const markdown = readFileSync(join(folder, "gpu.md"), "utf8");
    expect(stdout).toBe(markdown);
    return { markdown, ...JSON.parse(readFileSync(join(folder, "gpu.json"), "utf8")) };
  } finally {
    rmSync(folder, { recursive: true });
  }
}

const shape = { rows: 4096, dIn: 768, dSae: 24576 };
const own = (name: string, milliseconds: number, phases: number[][], more: object = {}) => ({
  case: name,
  precision: "bfloat16",
  ...shape,
  entries: 131072,
  milliseconds,
  phases,
  ...more,
});
const peer = (name: string, style: string, milliseconds: number, more: object = {}) => ({
  case: name,
  precision: "bfloat16",
  peer: style,
  ...shape,
  milliseconds,
  ...more,
});
// a copy of 4 GB in 1 ms, a product of 160 GFLOP in 0.2 ms: 4000 GB/s, 800 TFLOP/s
const rates = [
  { case: "copy", precision: "bfloat16", rows: 1, dIn: 1, dSae: 1, milliseconds: 1.25, phases: [[0, 4e9]] },
  { case: "copy", peer: "torch", milliseconds: 1, bytes: 4e9 },
  own("product", 0.25, [[160e9, 1e6]]),
  peer("product", "torch", 0.2, { operations: 160e9 }),
];

const rowsOf = (markdown: string, start: string) =>
  markdown.split("\n").filter((line) => line.startsWith(`| ${start}`));

describe.skipIf(!hasPython)("the table of gpu-verify", () => {
  test("says not measured of everything where nothing was measured", () => {
    const { markdown, wanted } = tableOf([]);
    expect(wanted.length).toBeGreaterThan(10);
    for (const { value, reached } of wanted) expect([value, reached]).toEqual([null, null]);
    expect(markdown).toContain("Machine: not measured.");
    for (const precision of ["float32", "tf32", "bfloat16"]) {
      expect(rowsOf(markdown, precision)).toEqual([`| ${precision} | not measured | not measured | not measured |`]);
    }
    expect(markdown).not.toMatch(/\byes\b|\*\*no\*\*/);
  });

  test("takes the least time phase by phase, at the best rates of the run", () => {
    const { markdown } = tableOf([
      ...rates,
      own("decode", 0.2, [[0, 400e6]]), // 0.1 ms
      own("encode", 0.25, [[160e9, 80e6]]), // the product's 0.2 ms, not the bytes' 0.02
      own("step topk", 1, [
        [160e9, 80e6],
        [0, 400e6],
        [0, 800e6],
      ]), // 0.2 + 0.1 + 0.2
    ]);
    const name = "4096 x 768 -> 24576";
    expect(rowsOf(markdown, `${name} | decode `)).toEqual([
      `| ${name} | decode | bfloat16 | 0.200 | 0.0 / 400.0 | 0.100 | 50 % |`,
    ]);
    expect(rowsOf(markdown, `${name} | encode `)).toEqual([
      `| ${name} | encode | bfloat16 | 0.250 | 160.0 / 80.0 | 0.200 | 80 % |`,
    ]);
    expect(rowsOf(markdown, `${name} | topk `)[0]).toContain("| 1.000 | 160.0 / 1280 | 0.500 | 50 % | not measured |");
  });

  test("judges what was wanted, each by itself", () => {
    const { wanted, markdown } = tableOf([
      ...rates,
      own("encode", 0.26, [[160e9, 80e6]]),
      own("decode", 0.125, [[0, 400e6]]),
      own("step topk", 0.6, [[160e9, 80e6]]),
      peer("step topk", "autograd", 2),
      peer("step topk", "sparse", 1.1),
      { ...peer("step topk", "compiled", 0), milliseconds: undefined, failed: "OutOfMemoryError" },
      own("step gated", 1, [[160e9, 80e6]]),
      peer("step gated", "compiled", 3),
      peer("step gated", "autograd", 0.1), // is not what a Gated step is compared with
    ]);
    const found = (what: string) => wanted.find((row) => row.what.startsWith(what));
    expect(found("TopK step, 4096 x 768")).toMatchObject({ value: 0.6, reached: true });
    expect(found("TopK step, 4096 x 2304")).toMatchObject({ value: null, reached: null });
    expect(found("the best PyTorch style")?.value).toBeCloseTo(1.1 / 0.6);
    expect(found("the best PyTorch style")?.reached).toBe(false);
    expect(found("encode, ")?.value).toBeCloseTo(0.2 / 0.26);
    expect(found("encode, ")?.reached).toBe(false);
    expect(found("decode, ")).toMatchObject({ value: 0.8, reached: true });
    expect(found("rowStep encoder")).toMatchObject({ value: null, reached: null });
    expect(found("compiled PyTorch's time / monosem's, gated")).toMatchObject({ value: 3, reached: true });
    expect(found("compiled PyTorch's time / monosem's, relu")).toMatchObject({ value: null, reached: null });
    const [topk] = rowsOf(markdown, "4096 x 768 -> 24576 | topk");
    expect(topk).toContain("| 2.000 | failed | 1.100 | 1.83 | not measured |");
  });

  test("takes no step of another precision or shape for the one asked for", () => {
    const other = { precision: "tf32" };
    const { wanted } = tableOf([
      own("step topk", 0.5, [[0, 1]], other),
      own("step topk", 0.5, [[0, 1]], { dSae: 16384 }),
      peer("step topk", "autograd", 2),
    ]);
    for (const { value, reached } of wanted) expect([value, reached]).toEqual([null, null]);
  });

  test("tells how the proof went", () => {
    const { markdown } = tableOf([
      {
        case: "about",
        gpu: "NVIDIA H200",
        driver: "driver 580",
        cuda: "CUDA 13.0",
        cublas: "cuBLAS 13",
        date: "2026-11-27",
      },
      { case: "about", peer: "torch", torch: "2.11.0", triton: "3.6.0" },
      { case: "verify", step: "memcheck", status: "failed", seconds: 12, reason: "exit status 9" },
      { case: "parity", precision: "tf32", passed: 100, failed: 2, error: 2e-4, allowed: 1e-3 },
      {
        case: "training",
        architecture: "topk",
        steps: 200,
        found: { losses: 1e-6, parameters: 2e-5 },
        tolerance: { losses: 1e-4, parameters: 4e-3 },
        passed: true,
      },
    ]);
    expect(markdown).toContain("Machine: NVIDIA H200, driver 580, CUDA 13.0, cuBLAS 13. 2026-11-27");
    expect(markdown).toContain("PyTorch's side: torch 2.11.0, triton 3.6.0.");
    expect(markdown).toContain("| memcheck | failed: exit status 9 | 12 |");
    expect(markdown).toContain("| tf32 | 100 passed, 2 failed | 2.0e-04 | 1e-03 |");
    expect(markdown).toContain("| topk | 200 | 1.0e-06 (allowed 1.0e-04) | 2.0e-05 (allowed 4.0e-03) | passed |");
  });
});
