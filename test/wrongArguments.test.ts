import { afterAll, beforeAll, describe, expect, test } from "vitest";
import {
  activationPatching,
  attributionPatching,
  balancedWeights,
  buildFeatureStore,
  collectFeatures,
  conceptFigures,
  DenseFeatures,
  type Device,
  evaluate,
  evaluateInModel,
  FeatureStore,
  featureActivations,
  fitLogisticProbe,
  fitRidgeProbe,
  geometricImportance,
  getActName,
  type HookedTransformer,
  interventions,
  latentGame,
  latentIntervention,
  latentPatching,
  limitTokens,
  logitEffects,
  pooledFeatures,
  probe,
  probeMetrics,
  probeScores,
  promptFeatures,
  Sae,
  SafetensorsFile,
  SparseFeatures,
  steer,
  Tensor,
  Tokenizer,
  textFeatures,
  textScores,
  tokenGame,
  WordPlayers,
} from "../lib/index.js";
import { exactSae, HOOK, modelDirectory, openTinyModel } from "./analysis/tinyModel.js";

let device: Device;
let model: HookedTransformer;
let sae: Sae;
const text = "The king said";
const tokens = [1, 2, 3];
const pair = { clean: [1, 2, 3], corrupted: [1, 4, 3] };
const metric = { kind: "log-probability", token: 5 } as const;
const unknownMeasure: never = { kind: "logit_difference", token: 1, against: 2 } as never;
const two = new DenseFeatures(new Float32Array([1, 2, 3, 4]), 2, 2);

beforeAll(async () => {
  ({ device, model } = await openTinyModel());
  sae = exactSae(device, 192, { hookName: HOOK });
});

afterAll(() => device.close());

/** Whatever types would not let through. */
const wrong = (value: unknown): never => value as never;

type Case = [message: RegExp, call: () => unknown];

async function expectRefusal(message: RegExp, call: () => unknown, code = "ERR_INVALID_ARGUMENT"): Promise<void> {
  const error = await new Promise((resolve) => resolve(call())).catch((thrown: unknown) => thrown);
  expect(error).toMatchObject({ code, message: expect.stringMatching(message) });
}

describe("a text that is none of those known does not count as one of them", () => {
  const measures = /kind must be "logit-difference", "probability" or "log-probability", found the text "logit_differ/;
  test.each<Case>([
    [measures, () => textScores(model, unknownMeasure)],
    [measures, () => tokenGame(model, tokens, unknownMeasure)],
    [measures, () => latentGame(model, sae, tokens, unknownMeasure)],
    [
      /^metric: kind must be .*"kl-divergence", found the text "logit_difference"$/,
      () => activationPatching([{ hook: HOOK }], { model, pair, metric: unknownMeasure }),
    ],
    [
      /direction must be "denoising" or "noising", found the text "denoise"$/,
      () => activationPatching([{ hook: HOOK }], { model, pair, metric, direction: wrong("denoise") }),
    ],
    [
      /direction must be/,
      () => latentPatching([{ latents: [1] }], { model, sae, pair, metric, direction: wrong("denoise") }),
    ],
    [
      /ranking: by must be "activation", "quantile" or "logit", found the text "activations"$/,
      () => promptFeatures({ model, sae, text, ranking: wrong({ by: "activations" }) }),
    ],
    [
      /^steer: part must be "everywhere", "prompt" or "generated", found the text "Prompt"$/,
      () => steer({ model, sae, prompt: text, trials: [], maxNewTokens: 1, part: wrong("Prompt") }),
    ],
    [/^probe: kind must be "logistic" or "ridge"/, () => probe(two, [0, 1], { kind: wrong("Ridge") })],
    [
      /^pooledFeatures: pooling must be "mean" or "last"/,
      () => pooledFeatures([text], { model, hook: HOOK, pooling: wrong("max") }),
    ],
  ])("%s", expectRefusal);
});

describe("an option that does not exist is refused", () => {
  const surplus = /there is no option "surplus"/;
  const options: never = wrong({ surplus: 1 });
  test.each<[string, () => unknown]>([
    ["interventions", () => interventions(model, sae, [{ latent: 1, scale: 0 }], options)],
    ["latentIntervention", () => latentIntervention([{ latent: 1, scale: 0 }], options)],
    ["steer", () => steer(options)],
    ["activationPatching", () => activationPatching([], options)],
    ["latentPatching", () => latentPatching([], options)],
    ["attributionPatching", () => attributionPatching(options)],
    ["evaluate", () => evaluate(sae, wrong({}), options)],
    ["WordPlayers", () => new WordPlayers(text, options)],
    ["probe", () => probe(two, [0, 1], options)],
    ["fitLogisticProbe", () => fitLogisticProbe(two, [0, 1], options)],
    ["fitRidgeProbe", () => fitRidgeProbe(two, [0, 1], options)],
    ["tokenGame", () => tokenGame(model, tokens, metric, options)],
    ["textScores", () => textScores(model, metric, options)],
    ["buildFeatureStore", () => buildFeatureStore("x", options)],
    ["promptTokens", () => model.promptTokens(text, options)],
    ["logitEffects", () => logitEffects(options)],
    ["Sae.create", () => Sae.create(sae.config, device, 0, options)],
    ["featureActivations", () => featureActivations(options)],
    ["promptFeatures", () => promptFeatures(options)],
    ["collectFeatures", () => collectFeatures(options)],
    ["evaluateInModel", () => evaluateInModel(options)],
  ])("%s", (what, call) => expectRefusal(new RegExp(`^${what}: ${surplus.source}`), call));
});

describe("an option of another kind is refused", () => {
  test.each<Case>([
    [
      /prependBos must be true or false, found the text "false"$/,
      () => model.forward(text, wrong({ prependBos: "false" })),
    ],
    [
      /errorTerm must be true or false, found the text "false"$/,
      () => interventions(model, sae, [{ latent: 1, scale: 0 }], wrong({ errorTerm: "false" })),
    ],
    [/signal must be an AbortSignal/, () => model.loss(text, wrong({ signal: 3 }))],
    [
      /onProgress must be a function, found the number 3$/,
      () => collectFeatures(wrong({ model, sae, contexts: [], onProgress: 3 })),
    ],
    [/options must be an object, found null$/, () => interventions(model, sae, [], wrong(null))],
    [/stopStrings must be a list of texts, found the number 3$/, () => model.generate(text, { stopStrings: wrong(3) })],
  ])("%s", expectRefusal);
});

describe("a value that means nothing is refused", () => {
  const change = { latent: 1, scale: 0 };
  test.each<Case>([
    [
      /^textFeatures: top must be a natural number, found the number -1$/,
      () => textFeatures({ model, sae, text, top: -1 }),
    ],
    [/top must be a natural number, found the number NaN$/, () => textFeatures({ model, sae, text, top: Number.NaN })],
    ...[Number.NaN, undefined, "x"].map(
      (count): Case => [/^limitTokens: tokens must be a number above 0/, () => limitTokens([], wrong(count)).next()],
    ),
    [
      /^positions\[0\] must be a natural number, found the text "1"$/,
      () => latentIntervention([change], { positions: wrong(["1"]) }),
    ],
    [/^positions\[0\] must be/, () => interventions(model, sae, [change], { positions: [1.5] })],
    [/^positions must be a list/, () => interventions(model, sae, [change], { positions: wrong("1") })],
    [/found set and add$/, () => interventions(model, sae, [wrong({ latent: 1, set: 1, add: 1 })])],
    [/found none of them$/, () => interventions(model, sae, [wrong({ latent: 1 })])],
    [/^a clamp is two numbers/, () => interventions(model, sae, [wrong({ latent: 1, clamp: ["0", "1"] })])],
    [
      /^position undefined of the clean prompt/,
      () => latentPatching([{ latents: [1], positions: wrong([undefined]) }], { model, sae, pair, metric }),
    ],
    [/^there is no latent undefined/, () => latentPatching([{ latents: new Array(3) }], { model, sae, pair, metric })],
    [
      /^there is no latent 9999/,
      () => conceptFigures({ model, sae, texts: [text, "The queen"], labels: [0, 1], latents: [9999] }),
    ],
    [/^probeScores: the probe's bias must be/, () => probeScores(wrong({ weights: new Float64Array(2) }), two)],
    [/^labels are 0 and 1, found the number 2 in row 1$/, () => balancedWeights([0, 2])],
    [/in column 0\.5/, () => new SparseFeatures({ rowOffsets: [0, 1], indices: [0.5], values: [1] }, 2)],
    [/^features: rows are numbered 0 to 1, found the number 2$/, () => two.selectRows([2])],
    [/^features: columns are numbered 0 to 1, found the number -1$/, () => two.selectColumns([-1])],
    [/^encode: the text must be a text, found a list$/, () => model.tokenizer.encode(wrong(["The king"]))],
    [/^decode: the ids must be a list/, () => model.tokenizer.decode(wrong(3))],
    ...[0, Number.NaN, Number.POSITIVE_INFINITY, -1].map(
      (scale): Case => [
        /^foldInputScale: a scale must be a finite number above 0, found/,
        () => sae.foldInputScale(scale),
      ],
    ),
    [/^geometricImportance: ratio must be/, () => geometricImportance(5, wrong(undefined))],
    [/^getActName: layer must be/, () => getActName("resid_post", 1.5)],
    [/^the text has no tokens$/, () => featureActivations({ model, sae, text: "" })],
  ])("%s", expectRefusal);

  test.each<[string, RegExp, () => unknown]>([
    ["ERR_NON_FINITE", /^the score of row 1 is NaN$/, () => probeMetrics(Float64Array.of(1, Number.NaN), [0, 1])],
    ["ERR_SHAPE_MISMATCH", /^features: expected 2 numbers, found 3$/, () => two.times(new Float64Array(3))],
    [
      "ERR_SHAPE_MISMATCH",
      /found 1 as number 0$/,
      () => new SparseFeatures({ rowOffsets: [1, 1], indices: [0], values: [1] }, 2),
    ],
    [
      "ERR_SHAPE_MISMATCH",
      /found 0 as number 2$/,
      () => new SparseFeatures({ rowOffsets: [0, 1, 0, 1], indices: [0], values: [1] }, 2),
    ],
  ])("%s: %s", (code, message, call) => expectRefusal(message, call, code));
});

describe("a slip that ended in a TypeError is refused by what was expected", () => {
  const noModel = /^the model must be a HookedTransformer .*, found undefined$/;
  const noSae = /^the SAE must be an Sae .*, found a Promise$/;
  const promise: never = wrong(Promise.resolve());
  test.each<Case>([
    [/^Tokenizer\.load: path must be/, () => Tokenizer.load(wrong(undefined))],
    [/^decode: the codes must be Codes/, () => sae.decode(wrong(undefined))],
    [/^decodeDense: the latents must be a Tensor/, () => sae.decodeDense(wrong({}))],
    [
      /^encodePreActivations: the pre-activations must be a Tensor/,
      () => sae.encodePreActivations(wrong({}), device.zeros([1, 192])),
    ],
    [/^Sae: parameters must be an object/, () => new Sae(sae.config, wrong(undefined), device)],
    [noModel, () => interventions(wrong(undefined), sae, [])],
    [noSae, () => interventions(model, promise, [])],
    [/^changes must be a list/, () => interventions(model, sae, wrong(undefined))],
    [noModel, () => steer(wrong({}))],
    [noModel, () => collectFeatures(wrong({}))],
    [noSae, () => collectFeatures(wrong({ model, sae: promise }))],
    [/^contexts must be token sequences/, () => collectFeatures(wrong({ model, sae }))],
    [noModel, () => evaluateInModel(wrong({}))],
    [noModel, () => activationPatching([{ hook: HOOK }], wrong({}))],
    [noModel, () => buildFeatureStore("x", wrong({}))],
    [/^buildFeatureStore: corpus must be a Corpus/, () => buildFeatureStore("x", wrong({ model, sae }))],
    [/^FeatureStore\.open: folder must be/, () => FeatureStore.open(wrong(3))],
    [/^the hook point must be its name/, () => model.hookShape(wrong(undefined))],
    [/^the hook point must be its name/, () => model.activations(text, wrong(undefined))],
    [/was not made by a Device/, () => (Object.create(Tensor.prototype) as Tensor).read()],
    [/found an object$/, () => model.hookWidth(wrong(Object.create(null)))],
    [/found the symbol Symbol\(x\)$/, () => model.hookWidth(wrong(Symbol("x")))],
  ])("%s", expectRefusal);

  test("a file that was closed", async () => {
    const file = await SafetensorsFile.open(`${modelDirectory}/model.safetensors`);
    await file.close();
    const [name] = file.entries.keys();
    await expectRefusal(/was closed: open it once more/, () => file.read(name!), "ERR_DISPOSED");
  });

  test("an SAE on another device than the model", async () => {
    const { device: other, model: elsewhere } = await openTinyModel();
    await expectRefusal(
      /^the model lives on the device "cpu", the SAE on another one of that name/,
      () => interventions(elsewhere, sae, [{ latent: 1, scale: 0 }]),
      "ERR_DEVICE_MISMATCH",
    );
    await other.close();
  });
});
