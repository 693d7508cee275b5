/**
 * What training survives. Every run here is compared, file by file, with the same run undisturbed: SAE, metrics and
 * checkpoints must be equal to the bit.
 */
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { writeSafetensors } from "../../lib/formats/safetensors.js";
import { architectureNames } from "../../lib/sae/architectures.js";
import { readLatestCheckpoint } from "../../lib/training/checkpoint.js";
import { digest, startRun } from "./runs.js";

const kills = Number(process.env.MONOSEM_KILLS ?? 200);
const folder = mkdtempSync(join(tmpdir(), "monosem-robustness-"));
const activations = join(folder, "activations.safetensors");
const [rows, dIn] = [512, 12];

beforeAll(async () => {
  const tensor = (seed: number) => ({ shape: [rows, dIn], data: noise(rows * dIn, seed) });
  await writeSafetensors(activations, { activations: tensor(1), second: tensor(2) });
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** Reproducible numbers in (-1, 1). */
function noise(size: number, seed: number): Float32Array {
  let state = seed;
  return Float32Array.from({ length: size }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 31 - 1;
  });
}

/** What each architecture needs besides sizes; every one of the library must stand here. */
const options: Readonly<Record<string, readonly object[]>> = {
  relu: [{ l1Coefficient: 0.1 }, { l1Coefficient: 0.1, pEnd: 0.5, pAnnealStart: 20, pAnnealSteps: 200 }],
  topk: [
    { k: 3, auxK: 4, deadAfterTokens: 300, initialK: 9, kAnnealSteps: 90 },
    { k: 3, multiTopkCoefficient: 0.125, resampleEvery: 50, deadAfterTokens: 300 },
  ],
  batchtopk: [{ k: 3, auxK: 4, deadAfterTokens: 300 }],
  matryoshka: [{ k: 3, widths: [7, 20] }],
  gated: [{ l1Coefficient: 0.1 }],
  "soft-gated": [{ l1Coefficient: 0.1 }],
  jumprelu: [{ l0Coefficient: 0.1, targetL0: 4 }],
};

const schedules = [
  { lr: 1e-3 },
  { lr: 1e-3, lrSchedule: "cosine", lrWarmupSteps: 30, lrDecaySteps: 60, l1WarmupSteps: 40 },
] as const;

interface Case {
  readonly name: string;
  readonly config: object;
}

function cases(): Case[] {
  const data = { activations, shuffle: true };
  const all: Case[] = [];
  for (const architecture of architectureNames) {
    for (const [i, own] of options[architecture]!.entries()) {
      for (const normalizeActivations of ["none", "expected-average-only-in", "layer-norm"]) {
        for (const [s, schedule] of schedules.entries()) {
          all.push({
            name: `${architecture} ${i + 1}, ${normalizeActivations}, schedule ${s + 1}`,
            config: {
              sae: { architecture, dIn, dSae: 36, normalizeActivations, bDecInit: "geometric-median", ...own },
              data,
              training: { batchSize: 24, steps: 300, logEvery: 20, checkpointEvery: 6, seed: 5, ...schedule },
            },
          });
        }
      }
    }
  }
  const training = { batchSize: 24, steps: 300, logEvery: 20, checkpointEvery: 6, lr: 1e-3 };
  const topk = { architecture: "topk", dIn, dSae: 36, k: 3 };
  all.push({
    name: "a skip transcoder",
    config: { sae: { ...topk, skip: true }, data: { ...data, targetTensor: "second" }, training },
  });
  return all;
}

// Side by side: they mostly start processes and wait for the disk.
describe.concurrent("a run that is killed at random moments and resumed each time", () => {
  const all = cases();
  const killsPerCase = Math.max(1, Math.ceil(kills / all.length));
  // few kills: a slice of the cases, spread over all of them
  const taken = all.filter(
    (_, i) => Math.floor((i * kills) / all.length) < Math.floor(((i + 1) * kills) / all.length) || kills >= all.length,
  );

  test.each(taken.map(({ name, config }) => [name, config] as const))("%s", async (name, config) => {
    const [whole, killed] = [join(folder, name, "whole"), join(folder, name, "killed")];
    const undisturbed = startRun(whole, config);
    const started = performance.now();
    await undisturbed.ready;
    const startup = performance.now() - started;
    expect(await undisturbed.ended).toMatchObject({ exitCode: 0, stderr: "" });
    const duration = performance.now() - started - startup;

    let killsLeft = killsPerCase;
    let committed = 0;
    for (;;) {
      const run = startRun(killed, config);
      await run.ready;
      if (killsLeft-- > 0) {
        await sleep((Math.random() * duration) / killsPerCase);
        run.process.kill("SIGKILL");
      }
      const { exitCode, stderr } = await run.ended;
      expect(stderr, name).toBe("");
      const checkpoint = await readLatestCheckpoint(join(killed, "checkpoints"));
      expect(checkpoint?.step ?? 0, "a committed checkpoint was lost").toBeGreaterThanOrEqual(committed);
      committed = checkpoint?.step ?? 0;
      if (exitCode === 0) break;
    }
    expect(digest(killed)).toEqual(digest(whole));
    rmSync(join(folder, name), { recursive: true });
  });
});

describe.runIf(process.platform === "linux")("a run in which one call of the file system fails", () => {
  const shim = join(folder, "faultShim.so");
  const config = {
    sae: { architecture: "topk", dIn, dSae: 36, k: 3 },
    data: { activations, shuffle: true },
    training: { batchSize: 24, steps: 12, logEvery: 2, checkpointEvery: 4, lr: 1e-3 },
  };
  const whole = join(folder, "faultless");
  const log = join(folder, "calls");
  let calls = 0;

  beforeAll(async () => {
    const source = fileURLToPath(new URL("faultShim.c", import.meta.url));
    const compiler = spawnSync("cc", ["-shared", "-fPIC", "-O1", "-o", shim, source, "-ldl"], { encoding: "utf8" });
    expect(compiler.status, compiler.stderr).toBe(0);
    const run = startRun(whole, config, { LD_PRELOAD: shim, FAULT_PATH: whole, FAULT_LOG: log });
    expect(await run.ended).toMatchObject({ exitCode: 0, stderr: "" });
    calls = Number(readFileSync(log, "utf8"));
    expect(calls).toBeGreaterThan(50);
  });

  const tried = Math.max(4, Math.round(kills / 5));
  test.each([
    ["EIO", 5],
    ["ENOSPC", 28],
  ])(
    `%s: the error is named, nothing half-written stays, and the run resumes to the same bits (${tried} calls)`,
    async (code, errno) => {
      for (let i = 0; i < tried; i++) {
        const call = 1 + Math.floor((i * calls) / tried);
        const output = join(folder, `fault-${code}-${call}`);
        const environment = {
          LD_PRELOAD: shim,
          FAULT_PATH: output,
          FAULT_CALL: String(call),
          FAULT_ERROR: String(errno),
        };
        const run = startRun(output, config, environment);
        const { exitCode, stderr } = await run.ended;
        expect(stderr, `call ${call}`).toBe("");
        if (exitCode !== 0) {
          expect(exitCode, `call ${call}`).toBe(3);
          expect(run.lines.at(-1), `call ${call}`).toMatch(/^ERR_(IO|FORMAT|NOT_FOUND) .+/);
          const again = startRun(output, config);
          expect(await again.ended, `call ${call}, resumed`).toMatchObject({ exitCode: 0, stderr: "" });
        }
        // an old checkpoint whose removal failed is removed with the next one that is written
        const left = Object.entries(digest(output)).filter(([path]) => !path.startsWith("checkpoints/step-4/"));
        expect(Object.fromEntries(left), `call ${call}`).toEqual(digest(whole));
        rmSync(output, { recursive: true });
      }
    },
  );
});
