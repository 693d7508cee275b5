import { readdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { runCli, temporaryFolder } from "./runCli.js";
import { writeActivations } from "./saeFiles.js";

test("toy synthetic writes samples that train reads, and toy recovery tells what the SAE found", async () => {
  const folder = await temporaryFolder();
  const [data, run] = [join(folder, "data"), join(folder, "run")];
  const config = join(folder, "synthetic.json");
  await writeFile(config, JSON.stringify({ features: 999, hierarchy: { roots: 2 }, orthogonalisation: { steps: 10 } }));
  const size = ["--features", "40", "--dimensions", "24", "--samples", "20000"];
  const written = await runCli("toy", "synthetic", "--output", data, "--config", config, ...size);
  expect(written).toMatchObject({ exitCode: 0 });
  expect(written.stdout).toBe(
    `20000 samples of 40 features in 24 dimensions -> ${join(data, "activations")}, ${join(data, "truth.safetensors")}\n`,
  );
  expect((await readdir(data)).sort()).toEqual(["activations", "truth.safetensors"]);
  const again = await runCli("toy", "synthetic", "--output", data);
  expect(again).toMatchObject({ exitCode: 1, stderr: expect.stringContaining("is not empty") });

  const training = join(folder, "train.json");
  await writeFile(
    training,
    JSON.stringify({
      sae: { architecture: "topk", dIn: 24, dSae: 20, k: 3 },
      data: { activations: join(data, "activations") },
      training: { steps: 300, batchSize: 256, lr: 3e-3, logEvery: 300 },
      output: run,
    }),
  );
  expect(await runCli("train", training)).toMatchObject({ exitCode: 0 });
  const arguments_ = ["--sae", join(run, "sae"), "--truth", join(data, "truth.safetensors"), "--samples", "4000"];
  const { exitCode, stdout } = await runCli("toy", "recovery", ...arguments_, "--json");
  expect(exitCode).toBe(0);
  const recovery = JSON.parse(stdout) as Record<string, number>;
  expect(Object.keys(recovery).sort()).toEqual(
    [
      ...["samples", "mcc", "mmcs", "uniqueness", "precision", "recall", "f1", "deadLatents", "trueL0"],
      ...["l0", "explainedVariance", "shrinkage"],
    ].sort(),
  );
  expect(recovery.samples).toBe(4000);
  expect(recovery.mcc).toBeGreaterThan(0.5);
  expect(recovery.explainedVariance).toBeGreaterThan(0.5);
  const fromFolder = ["--sae", join(run, "sae"), "--truth", data, "--samples", "4000", "--json"];
  expect(await runCli("toy", "recovery", ...fromFolder)).toMatchObject({ exitCode: 0, stdout });
  const lines = await runCli("toy", "recovery", ...arguments_);
  expect(lines.stdout).toContain(`mcc                ${recovery.mcc!.toFixed(4)}\n`);
});

test("toy recovery refuses a file that is no truth; toy synthetic names a misspelt key", async () => {
  const folder = await temporaryFolder();
  const config = join(folder, "synthetic.json");
  await writeFile(config, JSON.stringify({ hierachy: { roots: 2 } }));
  expect(await runCli("toy", "synthetic", "--output", join(folder, "data"), "--config", config)).toMatchObject({
    exitCode: 1,
    stderr: `monosem: ${config}: hierachy: unknown key\n`,
  });
  await writeFile(config, JSON.stringify({ hierarchy: { root: 2 }, dIn: 0.5 }));
  expect(await runCli("toy", "synthetic", "--output", join(folder, "data"), "--config", config)).toMatchObject({
    exitCode: 1,
    stderr: expect.stringMatching(/synthetic\.json: (?=.*hierarchy\.root: unknown key)(?=.*dIn: )/),
  });
  const other = await writeActivations(folder, 2);
  const wrong = await runCli("toy", "recovery", "--sae", folder, "--truth", other);
  expect(wrong).toMatchObject({
    exitCode: 1,
    stderr: expect.stringMatching(
      /activations\.safetensors is no truth of synthetic data.* name no format, expected "/,
    ),
  });
  expect(await runCli("toy", "recovery", "--sae", folder, "--truth", join(folder, "none"))).toMatchObject({
    exitCode: 1,
    stderr: expect.stringContaining("none"),
  });
});
