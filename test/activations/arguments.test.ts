import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { ActivationBuffer } from "../../lib/activations/buffer.js";
import { Corpus } from "../../lib/activations/corpus.js";
import { Harvest } from "../../lib/activations/harvest.js";
import { storeActivations } from "../../lib/activations/storeActivations.js";
import { StoredActivations } from "../../lib/activations/storedActivations.js";
import { Device } from "../../lib/engine/device.js";
import { writeSafetensors } from "../../lib/formats/safetensors.js";
import { testDevice } from "../testDevice.js";
import { FakeModel } from "./fakeModel.js";

let device: Device;
let directory: string;
let file: string;
beforeAll(async () => {
  device = await Device.open(testDevice, { threads: 1 });
  directory = await mkdtemp(join(tmpdir(), "monosem-arguments-"));
  file = join(directory, "activations.safetensors");
  await writeSafetensors(file, { activations: { shape: [4, 3], data: new Float32Array(12) } });
});
afterAll(async () => {
  await device.close();
  await rm(directory, { recursive: true });
});

/** Whatever types would not let through. */
const wrong = (value: unknown): never => value as never;

async function expectRefusal(call: () => unknown, message: RegExp): Promise<void> {
  const error = await new Promise((resolve) => resolve(call())).catch((thrown: unknown) => thrown);
  expect(error).toMatchObject({ code: "ERR_INVALID_ARGUMENT", message: expect.stringMatching(message) });
}

test.each<[unknown, RegExp]>([
  [undefined, /^StoredActivations\.open: options must be an object, found undefined$/],
  [{ shuffel: true, seed: 0 }, /^StoredActivations\.open: there is no option "shuffel"; did you mean shuffle\?$/],
  [{ seed: 0 }, /shuffle must be true or false, found undefined$/],
  [{ shuffle: true }, /seed must be an integer from 0 to 2\^53 - 1, found undefined$/],
  [{ shuffle: true, seed: 0.5 }, /seed must be .*, found the number 0\.5$/],
  [
    { shuffle: true, seed: 0, tensor: [] },
    /tensor must be the name of a tensor, or a list of names, found an empty list$/,
  ],
  [{ shuffle: true, seed: 0, tensor: ["a", 3] }, /tensor\[1\] must be a name, found the number 3$/],
  [{ shuffle: true, seed: 0, tensor: "" }, /tensor must be the name of a tensor/],
  [{ shuffle: true, seed: 0, shuffleMemoryBytes: Number.NaN }, /shuffleMemoryBytes must be .*found the number NaN$/],
  [{ shuffle: true, seed: 0, shuffleMemoryBytes: "1" }, /shuffleMemoryBytes must be a positive number of bytes/],
])("stored activations are not opened with %o", async (options, message) => {
  await expectRefusal(() => StoredActivations.open(file, device, wrong(options)), message);
});

describe("a wrong argument is refused by what was expected and what was found", () => {
  const good = { shuffle: false, seed: 0 };
  const harvesting = (changes: object): never =>
    wrong({
      model: new FakeModel(device),
      hook: "hook",
      corpus: Corpus.fromDocuments(["x".repeat(100)]),
      contextSize: 10,
      prependBos: true,
      excludeSpecialTokens: true,
      ...changes,
    });
  const buffering = (changes: object): never => harvesting({ bufferTokens: 20, seed: 0, ...changes });
  const harvest = (changes: object) => (): unknown => new Harvest(harvesting({ repeat: false, ...changes }));
  const create = (changes: object) => (): unknown => ActivationBuffer.create(buffering(changes));
  const store = (changes: object) => (): unknown => storeActivations(join(directory, "new"), harvesting(changes));

  test.each<[RegExp, () => unknown]>([
    [
      /^StoredActivations\.open: path must be a file or a folder, found undefined$/,
      () => StoredActivations.open(wrong(undefined), device, good),
    ],
    [
      /^StoredActivations\.open: device must be a Device .*, found the text "cpu"$/,
      () => StoredActivations.open(file, wrong("cpu"), good),
    ],
    [
      /^Corpus\.fromFiles: globs must be a list of paths or patterns, found undefined$/,
      () => Corpus.fromFiles(wrong(undefined)),
    ],
    [/^Corpus\.fromFiles: globs must be .*, found the text "a\.txt"$/, () => Corpus.fromFiles(wrong("a.txt"))],
    [
      /^Corpus\.fromFiles: globs\[0\] must be a path or pattern, found the number 3$/,
      () => Corpus.fromFiles(wrong([3])),
    ],
    [
      /^Corpus\.fromDocuments: documents must be a list of texts, found the text "x"$/,
      () => Corpus.fromDocuments(wrong("x")),
    ],
    [
      /^Corpus\.fromDocuments: documents\[1\] must be a text, found null$/,
      () => Corpus.fromDocuments(wrong(["x", null])),
    ],
    [
      /^storeActivations: directory must be the path of a folder, found the number 3$/,
      () => storeActivations(wrong(3), harvesting({})),
    ],
    [
      /^storeActivations: options must be an object, found undefined$/,
      () => storeActivations(directory, wrong(undefined)),
    ],
    [/^storeActivations: there is no option "row"; did you mean rows\?$/, store({ row: 5 })],
    [/^storeActivations: hook must be the name of one hook point, found a list$/, store({ hook: ["hook"] })],
    [/^storeActivations: rows must be a positive number, found the number NaN$/, store({ rows: Number.NaN })],
    [/^storeActivations: dtype must be "F32" or "BF16", found the text "F16"$/, store({ dtype: "F16" })],
    [/^storeActivations: onProgress must be a function, found the boolean true$/, store({ onProgress: true })],
    [/^storeActivations: signal must be an AbortSignal .*, found the number 3$/, store({ signal: 3 })],
    [
      /^ActivationBuffer\.create: options must be an object, found undefined$/,
      () => ActivationBuffer.create(wrong(undefined)),
    ],
    [
      /^ActivationBuffer\.create: there is no option "bufferToken"; did you mean bufferTokens\?$/,
      create({ bufferToken: 5 }),
    ],
    [/^ActivationBuffer\.create: model must be a HookedTransformer .*, found undefined$/, create({ model: undefined })],
    [
      /^ActivationBuffer\.create: hook must be the name of a hook point, .*, found an empty list$/,
      create({ hook: [] }),
    ],
    [/^ActivationBuffer\.create: corpus must be a Corpus .*, found a list$/, create({ corpus: ["text"] })],
    [
      /^ActivationBuffer\.create: prependBos must be true or false, found undefined$/,
      create({ prependBos: undefined }),
    ],
    [/^ActivationBuffer\.create: seed must be an integer .*, found undefined$/, create({ seed: undefined })],
    [/^Harvest: there is no option "bufferTokens"/, harvest({ bufferTokens: 20 })],
    [/^Harvest: excludeSpecialTokens must be true or false, found the number 1$/, harvest({ excludeSpecialTokens: 1 })],
    [/^Harvest: repeat must be true or false, found undefined$/, harvest({ repeat: undefined })],
    [/^Harvest\.next: signal must be an AbortSignal/, () => new Harvest(harvesting({ repeat: false })).next(wrong({}))],
  ])("%s", async (message, call) => {
    await expectRefusal(call, message);
  });

  test("by a source, of a batch size and a signal", async () => {
    using stored = await StoredActivations.open(file, device, good);
    using buffer = await ActivationBuffer.create(buffering({}));
    for (const [name, source] of Object.entries({ StoredActivations: stored, ActivationBuffer: buffer })) {
      await expectRefusal(
        () => source.next(0.5),
        new RegExp(`^${name}\\.next: batchSize must be a positive integer, found`),
      );
      await expectRefusal(
        () => source.next(4, wrong({})),
        new RegExp(`^${name}\\.next: signal must be an AbortSignal`),
      );
      using rows = await source.next(4);
      expect(rows.shape[0]).toBe(4);
    }
  });

  test("a context size that is none is what is wrong, not what follows from it", () => {
    expect(harvest({ contextSize: undefined })).toThrow(/^contextSize must be an integer of at least 2/);
  });
});
