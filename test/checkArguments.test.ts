import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { withSae } from "../lib/analysis/hookedSaeTransformer.js";
import { textFeatures } from "../lib/analysis/textFeatures.js";
import { Device } from "../lib/engine/device.js";
import { HookedTransformer } from "../lib/models/hookedTransformer.js";
import { Sae } from "../lib/sae/sae.js";
import { Trainer } from "../lib/training/trainer.js";
import { exactSae, HOOK, modelDirectory, openTinyModel } from "./analysis/tinyModel.js";
import { testDevice } from "./testDevice.js";
import { ArraySource } from "./training/arraySource.js";
import { activations, dIn, sae as trained, training } from "./training/smallRun.js";

let device: Device;
let model: HookedTransformer;
let sae: Sae;
const text = "The king said";

beforeAll(async () => {
  ({ device, model } = await openTinyModel());
  sae = exactSae(device, 192, { hookName: HOOK });
});

afterAll(() => device.close());

/** Whatever types would not let through. */
const wrong = (value: unknown): never => value as never;

describe("an option that does not exist is refused, with the one that was meant", () => {
  test.each<[string, RegExp, () => unknown]>([
    ["Device.open", /"thread"; did you mean threads\?/, () => Device.open(testDevice, wrong({ thread: 2 }))],
    [
      "HookedTransformer.load",
      /"foldLN"; did you mean foldLn\?/,
      () => HookedTransformer.load(modelDirectory, device, wrong({ foldLN: true })),
    ],
    ["Sae.load", /"scale"; there are inputScale/, () => Sae.load("x", device, wrong({ scale: 2 }))],
    [
      "Sae.fromPretrained",
      /"saeID"; did you mean saeId\?/,
      () => Sae.fromPretrained(wrong({ release: "gpt2-small-res-jb", saeID: "x" }), device),
    ],
    ["withSae", /"errorterm"; did you mean errorTerm\?/, () => withSae(model, sae, wrong({ errorterm: true }))],
    ["textFeatures", /"k"; there are model, sae/, () => textFeatures(wrong({ model, sae, text, k: 2 }))],
    ["forward", /"hook"; did you mean hooks\?/, () => model.forward(text, wrong({ hook: [] }))],
    ["forward", /"hook"; did you mean hooks\?/, () => withSae(model, sae).forward(text, wrong({ hook: [] }))],
    ["loss", /"stopAtLayer"; there are hooks/, () => model.loss(text, wrong({ stopAtLayer: 1 }))],
    ["runWithCache", /"hooks"; there are names/, () => model.runWithCache(text, wrong({ hooks: [] }))],
    ["runWithCache", /"hooks"; there are names/, () => withSae(model, sae).runWithCache(text, wrong({ hooks: [] }))],
    ["generate", /"maxTokens"; did you mean maxNewTokens\?/, () => model.generate(text, wrong({ maxTokens: 2 }))],
    ["generate", /"topp"; did you mean top[KP]\?/, () => withSae(model, sae).generate(text, wrong({ topp: 1 }))],
    ["generate", /"topp"; did you mean top[KP]\?/, async () => model.stream(text, wrong({ topp: 1 }))],
    ["Trainer.create", /"sourse"; did you mean source\?/, () => Trainer.create(wrong({ sourse: 1 }))],
    ["generate", /options must be an object, found the text "5"/, () => model.generate(text, wrong("5"))],
  ])("%s: %s", async (what, message, call) => {
    const error = await new Promise((resolve) => resolve(call())).catch((thrown: unknown) => thrown);
    expect(error).toMatchObject({ code: "ERR_INVALID_ARGUMENT", message: expect.stringMatching(message) });
    expect((error as Error).message).toMatch(new RegExp(`^${what}: `));
  });
});

describe("a wrong argument is refused by what was expected and what was found", () => {
  const zeros = new Float32Array(192);
  test.each<[RegExp, () => unknown]>([
    [/^expected a text, token ids, or a list of texts.*; found undefined$/, () => model.forward(wrong(undefined))],
    [/found a list with the text "The", the number 5$/, () => model.forward(wrong(["The", 5]))],
    [
      /^names must be the name of a hook point.*found the number 3$/,
      () => model.runWithCache(text, { names: wrong(3) }),
    ],
    [/^hooks must be a list.*found an object$/, () => model.forward(text, { hooks: wrong({ name: HOOK }) })],
    [
      /^hooks\[0\] must be \{ name, hook \}.*found a list$/,
      () => model.forward(text, { hooks: wrong([[HOOK, () => {}]]) }),
    ],
    [
      /^hooks\[0\] must be .* name is the text "blocks.*", hook is undefined$/,
      () => withSae(model, sae).generate(text, { hooks: wrong([{ name: HOOK, fn: () => {} }]) }),
    ],
    [
      /^the hook at blocks\.2\.hook_resid_post returned a Float32Array; expected a Tensor .*, or nothing$/,
      () => model.forward(text, { hooks: [{ name: HOOK, hook: () => wrong(zeros) }] }),
    ],
    [
      /^the hook at .* returned the number 1;/,
      () => model.forward(text, { hooks: [{ name: HOOK, hook: () => wrong([].push(wrong(1))) }] }),
    ],
    [
      /^withSae: the SAE must be an Sae or a list of them, found a HookedTransformer$/,
      () => withSae(model, wrong(model)),
    ],
    [
      /^withSae: the model must be a HookedTransformer .*, found a HookedSaeTransformer$/,
      () => withSae(wrong(withSae(model, sae)), sae),
    ],
    [
      /^Sae\.load: device must be a Device \(await Device\.open\(\)\), found undefined$/,
      () => Sae.load("x", wrong(undefined)),
    ],
    [/^Sae\.load: path must be a folder or a file, found a Device$/, () => Sae.load(wrong(device), device)],
    [
      /^Sae\.fromPretrained: device must be a Device .*found a Promise$/,
      () => Sae.fromPretrained({ release: "x" }, wrong(Promise.resolve(device))),
    ],
    [
      /^HookedTransformer\.load: device must be a Device.*found an object$/,
      () => HookedTransformer.load(modelDirectory, wrong({})),
    ],
    [/^Trainer\.create: device must be a Device/, () => Trainer.create(wrong({ device: "cpu" }))],
    [/^Trainer\.create: output must be the path of a folder, found the number 3$/, () => train({ output: 3 })],
    [/^Trainer\.create: resume must be true or false, found the text "yes"$/, () => train({ resume: "yes" })],
    [/^Trainer\.create: metadata must be an object, found an empty list$/, () => train({ metadata: [] })],
    [/^Trainer\.create: signal must be an AbortSignal .*found an object$/, () => train({ signal: {} })],
    [/^trainer\.run: signal must be an AbortSignal .*found the number 3$/, async () => run({ signal: 3 })],
    [/^trainer\.run: there is no option "abort"; there are signal$/, async () => run({ abort: 3 })],
    [/^trainer\.run: options must be an object, found null$/, async () => run(null)],
    [/^Sae\.create: config must be an object, found undefined$/, () => Sae.create(wrong(undefined), device, 0)],
    [/^encode: the activations must be a Tensor .*found a Float32Array$/, () => sae.encode(wrong(zeros))],
    [
      /^decode: the activations must be a Tensor/,
      () => normalised().decode(sae.encode(device.zeros([1, 192])), wrong(zeros)),
    ],
    [/^the option text must be a text, found undefined$/, () => textFeatures(wrong({ model, sae }))],
    [/^the SAE must be an Sae .*, found undefined$/, () => textFeatures(wrong({ model, text }))],
    [
      /^the model must be a HookedTransformer .*, found a HookedSae/,
      () => textFeatures(wrong({ model: withSae(model, sae), sae, text })),
    ],
    [
      /^withSae: cleanTokens must be a list or set of token ids, found the number 0$/,
      () => withSae(model, sae, wrong({ cleanTokens: 0 })),
    ],
    [/^Sae\.create: device must be a Device/, () => Sae.create(sae.config, wrong(undefined), 0)],
    [
      /^HookedTransformer\.load: tokenizer must be a folder or a file, found the boolean false$/,
      () => HookedTransformer.load(modelDirectory, device, wrong({ tokenizer: false })),
    ],
    [
      /^stopStrings must be a list of texts, found the text "\."$/,
      () => model.generate(text, { stopStrings: wrong(".") }),
    ],
    [/^no prompts: the list is empty$/, () => model.generate([])],
  ])("%s", async (message, call) => {
    const error = await new Promise((resolve) => resolve(call())).catch((thrown: unknown) => thrown);
    expect(error).toMatchObject({ code: "ERR_INVALID_ARGUMENT", message: expect.stringMatching(message) });
  });

  function train(options: object): Promise<Trainer> {
    const source = new ArraySource(activations, dIn, device);
    return Trainer.create({ sae: trained, training, source, device, ...options });
  }

  async function run(options: unknown): Promise<unknown> {
    using trainer = await train({});
    return await trainer.run(wrong(options)).next();
  }

  function normalised(): Sae {
    return new Sae({ ...sae.config, normalizeActivations: "layer-norm" }, sae.parameters, device);
  }
});
