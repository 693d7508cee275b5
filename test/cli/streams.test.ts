import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { modelDirectory } from "../analysis/tinyModel.js";
import { runCli, runCliUnheard, runInShell, temporaryFolder } from "./runCli.js";
import { writeActivations, writeSae } from "./saeFiles.js";

test.skipIf(!existsSync("/dev/full"))("a standard output that takes nothing is one line and exit code 1", async () => {
  for (const commandLine of [
    ["info", await writeSae(await temporaryFolder())],
    ["generate", "--model", modelDirectory, "--prompt", "The king", "--max-new-tokens", "3"],
  ]) {
    expect(await runInShell('exec "$@" > /dev/full', ...commandLine)).toMatchObject({
      exitCode: 1,
      stderr: "monosem: cannot write to the standard output: ENOSPC: no space left on device\n",
    });
  }
});

test("work goes on where nobody hears of its progress any more", async () => {
  const folder = await temporaryFolder();
  const [sae, activations] = [await writeSae(folder), await writeActivations(folder, 50)];
  const output = join(folder, "out");
  const encode = ["encode", "--sae", sae, "--activations", activations, "--batch-size", "1"];
  const unheard = await runCliUnheard(...encode, "--output", output);
  expect(unheard).toMatchObject({ exitCode: 0, stdout: expect.stringMatching(/^50 rows, /) });
  expect(readdirSync(folder).sort()).toEqual(["activations.safetensors", "out", "sae"]);
  expect(await runCliUnheard(...encode, "--output", join(folder, "none", "out"))).toMatchObject({ exitCode: 1 });
  expect(await runCli(...encode, "--output", output)).toMatchObject({ exitCode: 0 });
});
