import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { Device } from "../../lib/engine/device.js";
import { Sae } from "../../lib/sae/sae.js";
import { HOOK, modelDirectory } from "../analysis/tinyModel.js";
import { testDevice } from "../testDevice.js";
import { runCli, temporaryFolder } from "./runCli.js";

test("every command that measures a reconstruction warns of one that is worse than the mean, in one wording", async () => {
  const folder = await temporaryFolder();
  const [path, corpus, store] = ["sae", "text.txt", "store"].map((name) => join(folder, name)) as [
    string,
    string,
    string,
  ];
  writeFileSync(corpus, "The old man said that he would go home. She was very happy. ".repeat(30));
  const device = await Device.open(testDevice, { threads: 1 });
  const metadata = { modelName: "tiny-gpt2", hookName: HOOK, contextSize: 32, prependBos: true };
  const config = { architecture: "topk" as const, dIn: 192, dSae: 16, k: 2, applyBDecToInput: false };
  using sae = Sae.create(config, device, 0, { metadata });
  using bias = device.tensor(new Float32Array(192).fill(100), [192]);
  const { decoderBias } = sae.parameters;
  device.kernels.add(decoderBias, bias, { out: decoderBias });
  await sae.save(path);
  await device.close();
  const onText = ["--sae", path, "--model", modelDirectory, "--corpus", corpus, "--tokens", "320", "--threads", "1"];
  for (const command of [
    ["eval", ...onText],
    ["features", ...onText, "--latents", "1"],
    ["features", ...onText, "--latents", "1", "--store", store],
    ["features", "--from", store, "--latents", "1"],
    ["audit", ...onText, "--topics", "firing"],
  ]) {
    const { exitCode, stderr } = await runCli(...command);
    expect(exitCode, stderr).toBe(0);
    expect(stderr, command.join(" ")).toMatch(
      /^warning: .* leaves [\d.e+]+% of the variance unexplained, where the mean activation would leave 100%: /m,
    );
  }
});
