import { mkdtemp, open, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { ActivationBuffer, type ModelActivationOptions } from "../../lib/activations/buffer.js";
import { Corpus } from "../../lib/activations/corpus.js";
import { requireSameInputs, sampleInputs } from "../../lib/activations/inputSamples.js";
import type { SourceState } from "../../lib/activations/source.js";
import { StoredActivations } from "../../lib/activations/storedActivations.js";
import { Device } from "../../lib/engine/device.js";
import { writeSafetensors } from "../../lib/formats/safetensors.js";
import { HookedTransformer } from "../../lib/models/hookedTransformer.js";
import { modelDirectory } from "../analysis/tinyModel.js";
import { testDevice } from "../testDevice.js";
import { FakeModel } from "./fakeModel.js";

let device: Device;
let directory: string;
beforeAll(async () => {
  device = await Device.open(testDevice, { threads: 1 });
  directory = await mkdtemp(join(tmpdir(), "monosem-inputs-"));
});
afterAll(async () => {
  await device.close();
  await rm(directory, { recursive: true });
});

/** Without what earlier versions did not save. */
function asBefore({ state, tensors }: SourceState): SourceState {
  const { inputs: _, ...rest } = state as Record<string, never>;
  return { state: rest, tensors };
}

test("another size, head, middle or end tells a file from the one before, large or small", async () => {
  const path = join(directory, "file");
  for (const bytes of [0, 100, 65_536, 1_000_000]) {
    const content = Buffer.alloc(bytes, "text ");
    await writeFile(path, content);
    const before = await sampleInputs([path]);
    requireSameInputs(before.hashes, await sampleInputs([path]));
    await writeFile(path, Buffer.concat([content, Buffer.from("t")]));
    const longer = await sampleInputs([path]);
    expect(() => requireSameInputs(before.hashes, longer)).toThrow(`${path} holds something else`);
    for (const at of bytes === 0 ? [] : [0, Math.floor((7 * (bytes - 4096)) / 15) + 9, bytes - 1]) {
      await writeFile(path, content);
      const handle = await open(path, "r+");
      await handle.write("X", Math.max(0, at));
      await handle.close();
      const changed = await sampleInputs([path]);
      expect(() => requireSameInputs(before.hashes, changed), `${bytes}, ${at}`).toThrow(
        `${path} holds something else`,
      );
    }
  }
  const both = await sampleInputs([path, path]);
  expect(() => requireSameInputs(both.hashes.slice(1), both)).toThrow("to 1, and there are 2 now");
});

describe("a saved state is refused where a file holds something else now, and resumed where it knows of none", () => {
  test("stored activations", async () => {
    const path = join(directory, "activations.safetensors");
    const write = (value: number): Promise<void> =>
      writeSafetensors(path, { activations: { shape: [8, 2], data: new Float32Array(16).fill(value) } });
    const opened = (): Promise<StoredActivations> => StoredActivations.open(path, device, { shuffle: false, seed: 0 });
    await write(1);
    using first = await opened();
    const saved = await first.saveState();
    await first.restoreState(saved);
    await write(2);
    using second = await opened();
    await expect(second.restoreState(saved)).rejects.toMatchObject({
      code: "ERR_CONFIG",
      message: `${path} holds something else than when the state was saved: bring the old file back, or begin a new run`,
    });
    await second.restoreState(asBefore(saved));
  });

  test("a model's weights and a corpus", async () => {
    const [weights, text] = [join(directory, "model.safetensors"), join(directory, "corpus.txt")];
    const opened = async (): Promise<ActivationBuffer> => {
      const model: ModelActivationOptions["model"] = Object.assign(new FakeModel(device), { files: [weights] });
      return await ActivationBuffer.create({
        model,
        corpus: await Corpus.fromFiles([text]),
        ...{ hook: "hook", contextSize: 10, prependBos: true, excludeSpecialTokens: true },
        ...{ bufferTokens: 20, seed: 1, batchPrompts: 2 },
      });
    };
    await writeFile(weights, "one");
    await writeFile(text, "the cat sat on the mat ".repeat(9));
    using first = await opened();
    const saved = await first.saveState();
    await first.restoreState(saved);
    for (const [path, now, before] of [
      [weights, "two", "one"],
      [text, "the dog sat on the mat ".repeat(9), "the cat sat on the mat ".repeat(9)],
    ] as const) {
      await writeFile(path, now);
      using other = await opened();
      await expect(other.restoreState(saved)).rejects.toMatchObject({
        code: "ERR_CONFIG",
        message: expect.stringContaining(`${path} holds something else`),
      });
      await other.restoreState(asBefore(saved));
      await writeFile(path, before);
    }
  });
});

test("a model says which files its weights are from", async () => {
  const model = await HookedTransformer.load(modelDirectory, device);
  expect(model.files).toEqual([join(modelDirectory, "model.safetensors")]);
  model.dispose();
});
