import { describe, expect, test } from "vitest";
import { MonosemError } from "../../lib/errors.js";
import { defineArchitecture, positive, positiveInteger } from "../../lib/sae/architecture.js";
import { architectureNames, registerArchitecture } from "../../lib/sae/architectures.js";
import { checkedSections, parseConfig } from "../../lib/training/config.js";

const topk = {
  sae: { architecture: "topk", dIn: 64, dSae: 512, k: 16 },
  data: { activations: "acts.safetensors" },
  training: { steps: 500 },
  output: "out",
};

const relu = { architecture: "relu", dIn: 4, dSae: 8, l1Coefficient: 1, pEnd: 0.5 };
const model = { ...topk, data: { model: "gpt2", hook: "hook_embed", corpus: ["a.txt"] } };

function problem(json: unknown, overrides: string[] = []): string {
  try {
    parseConfig(json, overrides);
  } catch (error) {
    expect(error).toBeInstanceOf(MonosemError);
    expect((error as MonosemError).code).toBe("ERR_CONFIG");
    return (error as Error).message;
  }
  throw new Error("the configuration was accepted");
}

describe("configuration file", () => {
  test("defaults are filled in", () => {
    expect(parseConfig(topk)).toEqual({
      sae: {
        architecture: "topk",
        dIn: 64,
        dSae: 512,
        k: 16,
        auxK: 0,
        auxCoefficient: 1 / 32,
        kAnnealSteps: 0,
        multiTopkCoefficient: 0,
        decoderUnitNorm: true,
        deadAfterTokens: 10_000_000,
        resampleEvery: 0,
        transcoder: false,
        skip: false,
        applyBDecToInput: true,
        bDecInit: "zero",
        normalizeActivations: "none",
      },
      data: { activations: "acts.safetensors", shuffle: true },
      training: {
        batchSize: 4096,
        steps: 500,
        lr: 3e-4,
        adamBeta1: 0.9,
        adamBeta2: 0.999,
        adamEpsilon: 1e-8,
        lrWarmupSteps: 0,
        lrDecaySteps: 0,
        lrSchedule: "constant",
        l1WarmupSteps: 0,
        clipGradNorm: 1,
        seed: 0,
        onNonFinite: "stop",
        logEvery: 10,
        checkpointEvery: 1000,
      },
      device: "auto",
      precision: "float32",
      output: "out",
    });
  });

  test("every documented key is read", () => {
    const config = parseConfig({
      sae: {
        architecture: "relu",
        dIn: 64,
        dSae: 512,
        l1Coefficient: 1e-2,
        decoderUnitNorm: true,
        deadAfterTokens: 1000,
        applyBDecToInput: false,
        bDecInit: "geometric-median",
        normalizeActivations: "expected-average-only-in",
        init: "start",
      },
      data: {
        model: "gpt2",
        hook: "blocks.2.hook_resid_post",
        corpus: ["a/*.txt"],
        contextSize: 64,
        prependBos: false,
        excludeSpecialTokens: false,
        bufferTokens: 1024,
      },
      training: {
        batchSize: 100,
        tokens: 1050,
        lr: 1e-3,
        adamBeta1: 0,
        adamBeta2: 0.99,
        adamEpsilon: 1e-6,
        lrWarmupSteps: 5,
        lrDecaySteps: 6,
        lrSchedule: "cosine",
        l1WarmupSteps: 7,
        clipGradNorm: null,
        seed: 3,
        logEvery: 1,
        checkpointEvery: 2,
      },
      device: "cpu",
      threads: 2,
      precision: "bfloat16",
      output: "out",
    });
    expect(config.training).toMatchObject({ steps: 10, clipGradNorm: null });
    expect(config.sae).toMatchObject({ l1Coefficient: 1e-2, init: "start" });
    expect(config).toMatchObject({ device: "cpu", threads: 2, precision: "bfloat16" });
  });

  test("an override of steps or tokens takes the place of the other, and both are one too many", () => {
    const inTokens = { ...topk, training: { tokens: 40960, batchSize: 256 } };
    expect(parseConfig({ ...topk, training: { steps: 7 } }, ["training.tokens=40960"]).training.steps).toBe(10);
    expect(parseConfig(inTokens, ["training.steps=7"]).training.steps).toBe(7);
    expect(() => parseConfig(inTokens, ["training.steps=7", "training.tokens=512"])).toThrow(/exactly one/);
  });

  test("one file serves several architectures: options of the others are checked and left out", () => {
    const both = { ...topk, sae: { ...topk.sae, l1Coefficient: 0.5, auxK: 8 } };
    expect(parseConfig(both).sae).not.toHaveProperty("l1Coefficient");
    const relu = parseConfig(both, ["sae.architecture=relu"]).sae;
    expect(relu).toMatchObject({ architecture: "relu", l1Coefficient: 0.5, decoderUnitNorm: false });
    expect(relu).not.toHaveProperty("k");
    expect(problem({ ...both, sae: { ...both.sae, l1Coefficient: -1 } })).toMatch(/sae\.l1Coefficient.*-1/);
  });

  test.each<[string, unknown, RegExp]>([
    ["an unknown key", { ...topk, sae: { ...topk.sae, window: 3 } }, /sae\.window: unknown key$/],
    ["a misspelt key", { ...topk, sae: { ...topk.sae, dsae: 3 } }, /sae\.dsae: unknown key; did you mean "dSae"\?/],
    [
      "a misspelt key of another architecture",
      { ...topk, sae: [topk.sae, { ...topk.sae, l1_coefficient: 3 }] },
      /sae\.1\.l1_coefficient: unknown key; did you mean "l1Coefficient"\?/,
    ],
    [
      "a misspelt key of training",
      { ...topk, training: { steps: 1, batch_size: 64 } },
      /training\.batch_size: unknown key; did you mean "batchSize"\?/,
    ],
    [
      "a misspelt key of data",
      { ...topk, data: { activations: "a", shufle: false } },
      /data\.shufle: unknown key; did you mean "shuffle"\?/,
    ],
    ["an unknown section", { ...topk, trainning: {} }, /trainning: unknown key; did you mean "training"\?/],
    [
      "an unknown architecture",
      { ...topk, sae: { ...topk.sae, architecture: "temporal" } },
      /sae\.architecture.*temporal/,
    ],
    ["a missing k", { ...topk, sae: { architecture: "topk", dIn: 4, dSae: 8 } }, /sae\.k: .*missing/],
    ["k above dSae", { ...topk, sae: { ...topk.sae, k: 513 } }, /sae\.k: must be at most dSae/],
    ["a missing l1Coefficient", { ...topk, sae: { ...topk.sae, architecture: "relu" } }, /sae\.l1Coefficient.*missing/],
    ["a fractional size", { ...topk, sae: { ...topk.sae, dSae: 1.5 } }, /sae\.dSae.*1\.5/],
    ["steps and tokens", { ...topk, training: { steps: 1, tokens: 4096 } }, /training\.steps: exactly one/],
    ["neither steps nor tokens", { ...topk, training: {} }, /training\.steps: exactly one/],
    ["fewer tokens than a batch", { ...topk, training: { tokens: 4095 } }, /training\.tokens: must be at least/],
    ["a learning rate of 0", { ...topk, training: { steps: 1, lr: 0 } }, /training\.lr/],
    ["a device that is none", { ...topk, device: "gpu" }, /device.*gpu/],
    ["an empty corpus", { ...topk, data: { model: "m", hook: "h", corpus: [] } }, /data\.corpus/],
    [
      "keys of both kinds of data",
      { ...topk, data: { activations: "a", hook: "h" } },
      /data\.hook: goes with data\.model, which excludes data\.activations: give activations .*, or a model/,
    ],
    [
      "both kinds of data",
      { ...topk, data: { activations: "a", model: "m" } },
      /data\.model: excludes data\.activations: give activations .*, or a model/,
    ],
    [
      "a key of stored activations for those of a model",
      { ...topk, data: { model: "m", hook: "h", corpus: ["c"], shuffle: true } },
      /data\.shuffle: goes with data\.activations, which excludes data\.model/,
    ],
    ["initialK without steps", { ...topk, sae: { ...topk.sae, initialK: 32 } }, /sae\.initialK: has no effect without/],
    ["annealing k from nowhere", { ...topk, sae: { ...topk.sae, kAnnealSteps: 5 } }, /sae\.kAnnealSteps: .*initialK/],
    [
      "annealing p in no steps",
      { ...topk, sae: { architecture: "relu", dIn: 4, dSae: 8, l1Coefficient: 1, pEnd: 0.5 } },
      /sae\.pAnnealSteps: is needed.*\(missing\)/,
    ],
    ["more warm-up than steps", { ...topk, training: { steps: 9, lrWarmupSteps: 10 } }, /lrWarmupSteps: .*steps \(9\)/],
    [
      "more decay than steps",
      { ...topk, training: { tokens: 4096 * 9 + 5, lrDecaySteps: 10 } },
      /training\.lrDecaySteps: must be at most the number of steps \(9\) \(found 10\)/,
    ],
    [
      "a warm-up of the sparsity coefficient that does not reach it",
      { ...topk, training: { steps: 9, l1WarmupSteps: 10 } },
      /training\.l1WarmupSteps: must be at most the number of steps \(9\) \(found 10\)/,
    ],
    [
      "annealing k for longer than the run",
      { ...topk, sae: { ...topk.sae, initialK: 64, kAnnealSteps: 500 } },
      /sae\.kAnnealSteps: must be less than the run's steps \(500\): it would end before k is 16 \(found 500\)/,
    ],
    [
      "annealing p for longer than the run, which tokens may say",
      { ...topk, sae: [{ ...relu, pAnnealStart: 4, pAnnealSteps: 5 }], training: { tokens: 4096 * 9 } },
      /sae\.0\.pAnnealSteps: must be less than the run's steps after pAnnealStart \(5\): .* p is 0\.5 \(found 5\)/,
    ],
    [
      "annealing p after the run",
      { ...topk, sae: { ...relu, pAnnealStart: 500, pAnnealSteps: 0 } },
      /sae\.pAnnealStart: must be less than the run's steps \(500\): p would stay 1 \(found 500\)/,
    ],
    [
      "less than one latent per batch",
      {
        ...topk,
        sae: [topk.sae, { ...topk.sae, architecture: "batchtopk", k: 0.01 }],
        training: { steps: 1, batchSize: 64 },
      },
      /sae\.1\.k: must select at least one latent per batch: .*0\.015625.*found 0\.01/,
    ],
    ["the name of a single SAE", { ...topk, sae: { ...topk.sae, name: "a" } }, /sae\.name: is for SAEs in a list/],
    [
      "a reserved name",
      { ...topk, sae: [topk.sae, { ...topk.sae, name: "checkpoints" }] },
      /sae\.1\.name: is reserved/,
    ],
    [
      "a name that leaves the folder",
      { ...topk, sae: [{ ...topk.sae, name: ".." }] },
      /sae\.0\.name: .*begin with a letter/,
    ],
    ["no object", [1], /^configuration: must be an object$/],
    ["an unknown precision", { ...topk, precision: "float16" }, /precision: must be .*"float32".*"bfloat16"/],
    ["nothing", undefined, /must be an object/],
    ["a negative number", { ...topk, training: { steps: -3 } }, /steps: must be greater than 0 \(found -3\)$/],
    ["a number below 0", { ...topk, training: { steps: 1, seed: -1 } }, /seed: must be at least 0 \(found -1\)/],
    ["a number of 1", { ...topk, training: { steps: 1, adamBeta1: 1 } }, /adamBeta1: must be less than 1 \(found 1\)/],
    ["a p above 1", { ...topk, sae: { ...relu, pEnd: 2 } }, /sae\.pEnd: must be at most 1 \(found 2\)/],
    ["no integer", { ...topk, training: { steps: 1.5 } }, /steps: must be an integer \(found 1\.5\)/],
    ["no number", { ...topk, training: { steps: "9" } }, /steps: must be a number \(found "9"\)/],
    [
      "no truth value",
      { ...topk, data: { activations: "a", shuffle: 1 } },
      /shuffle: must be true or false \(found 1\)/,
    ],
    ["no text", { ...topk, output: 3 }, /output: must be text \(found 3\)/],
    ["empty text", { ...topk, output: "" }, /output: must not be empty \(found ""\)/],
    [
      "no list",
      { ...model, data: { ...model.data, corpus: "nix.txt" } },
      /corpus: must be a list \(found "nix\.txt"\)/,
    ],
    ["none of a choice", { ...topk, training: { steps: 1, lrSchedule: "step" } }, /must be "constant" or "cosine" \(f/],
    [
      "neither text nor a list",
      { ...model, data: { ...model.data, hook: 3 } },
      /hook: must be text or a list \(found 3/,
    ],
    ["a list of others", { ...model, data: { ...model.data, hook: ["a", 3] } }, /data\.hook: entry 1 must be text/],
  ])("%s is refused by its path", (_, json, message) => {
    expect(problem(json)).toMatch(message);
  });

  test("a k above dSae is one problem, not one of initialK as well", () => {
    expect(problem({ ...topk, sae: { ...topk.sae, k: 1000 } })).toBe(
      "configuration: sae.k: must be at most dSae (512) (found 1000)",
    );
  });

  test("settings that come to their end in the last step are accepted", () => {
    const annealed = { ...topk, sae: [{ ...relu, pAnnealStart: 400, pAnnealSteps: 99 }] };
    expect(() => parseConfig(annealed)).not.toThrow();
    const k = { ...topk, sae: { ...topk.sae, initialK: 64, kAnnealSteps: 499 } };
    expect(() => parseConfig(k, ["training.l1WarmupSteps=500"])).not.toThrow();
  });

  test("an impossible length of the run is one problem, not one of everything that is measured by it", () => {
    const batchtopk = { ...topk, sae: { ...topk.sae, architecture: "batchtopk", initialK: 32, kAnnealSteps: 5 } };
    expect(problem({ ...batchtopk, training: { steps: -1 } })).toBe(
      "configuration: training.steps: must be greater than 0 (found -1)",
    );
    expect(problem({ ...batchtopk, training: { steps: 4, batchSize: -8 } })).toBe(
      "configuration: training.batchSize: must be greater than 0 (found -8)",
    );
  });

  test("messages call it what the caller does", () => {
    expect(() => parseConfig({ ...topk, output: 3 }, [], "configuration run.json")).toThrow(
      /^configuration run\.json: output: must be text/,
    );
  });

  test("all problems are reported at once", () => {
    const message = problem({ ...topk, sae: { ...topk.sae, k: 0 }, training: { steps: -1 } });
    expect(message).toMatch(/sae\.k/);
    expect(message).toMatch(/training\.steps/);
  });
});

describe("--set overrides", () => {
  test("values are JSON where they can be, text otherwise; sections are made as needed", () => {
    const config = parseConfig({ ...topk, training: undefined }, [
      "training.steps=7",
      "training.clipGradNorm=null",
      "data.shuffle=false",
      "output=runs/a=b",
      "device=cpu",
    ]);
    expect(config).toMatchObject({
      training: { steps: 7, clipGradNorm: null },
      data: { shuffle: false },
      output: "runs/a=b",
      device: "cpu",
    });
  });

  test("in lists, keys are places counted from 0, as in error messages", () => {
    const several = { ...topk, sae: [topk.sae, { ...topk.sae, name: "second" }] };
    const { sae } = parseConfig(several, ["sae.1.k=4", "sae.0.name=first"]);
    expect(sae).toMatchObject([
      { name: "first", k: 16 },
      { name: "second", k: 4 },
    ]);
    expect(problem(several, ["sae.k=4"])).toBe(
      'override "sae.k": "sae" is a list of 2: say which by its place, counted from 0, as in "sae.0.k"',
    );
    expect(problem(several, ["sae.2.k=4"])).toMatch(/"sae" is a list of 2: .*"sae\.0\.k"/);
    expect(problem(several, ["sae.1.kk=4"])).toMatch(/sae\.1\.kk: unknown key/);
  });

  test("the given object is not changed", () => {
    const before = structuredClone(topk);
    parseConfig(topk, ["sae.k=3"]);
    expect(topk).toEqual(before);
  });

  test.each([
    ["no equals sign", "sae.k", /section\.key=value/],
    ["an unknown key", "sae.kk=3", /sae\.kk: unknown key/],
    ["a key below a number", "sae.k.x=3", /no section/],
    ["an empty key", "sae.=3", /names no key/],
    ["a prototype", "__proto__.polluted=1", /names no key/],
  ])("%s is refused", (_, override, message) => {
    expect(problem(topk, [override])).toMatch(message);
    expect({}).not.toHaveProperty("polluted");
  });
});

describe("sections that a program gives", () => {
  registerArchitecture(
    defineArchitecture<"from-outside", { k: number }, { sharpness: number }, never>({
      name: "from-outside",
      options: { k: positiveInteger },
      trainingOptions: { sharpness: positive.default(2) },
      parameters: {},
      homogeneous: true,
      initialDecoderNorm: 1,
      decoderUnitNorm: true,
      saved: { name: "from-outside" },
      encode: () => {
        throw new Error("not used here");
      },
      gradients: () => {
        throw new Error("not used here");
      },
    }),
  );
  /** What each architecture needs; the options of the others are left out. */
  const needed = { dIn: 64, dSae: 512, k: 16, l1Coefficient: 1, l0Coefficient: 1, targetL0: 8, widths: [128, 256] };
  const forms = {
    "one SAE": (sae: object) => sae,
    "several SAEs": (sae: object) => [sae, { ...sae, name: "second", hook: ["a", "b"], hookWidths: [32, 32] }],
    "a transcoder": (sae: object) => ({ ...sae, targetHook: "b", hook: "a", dOut: 32, skip: true }),
    "steps in tokens, and nothing clipped": (sae: object) => sae,
  };

  test.each(
    [...architectureNames, "from-outside"].flatMap((name) => Object.keys(forms).map((form) => [name, form] as const)),
  )("pass unchanged as parseConfig gave them: %s, %s", (architecture, form) => {
    const sae = forms[form as keyof typeof forms]({ ...needed, architecture });
    const inTokens = { tokens: 90_000, clipGradNorm: null, lrSchedule: "cosine", onNonFinite: "skip" };
    const training = form.startsWith("steps") ? inTokens : { steps: 500, lrWarmupSteps: 20 };
    const run = parseConfig({ ...topk, sae, training });
    expect(checkedSections(run, "the run")).toEqual({ sae: run.sae, training: run.training });
    const given = { sae: Array.isArray(run.sae) ? run.sae : sae, training };
    expect(checkedSections(given, "the run")).toEqual({ sae: run.sae, training: run.training });
  });

  test.each<[Record<string, unknown>, string]>([
    [{ steps: undefined }, 'training.steps: exactly one of "steps" and "tokens" is needed'],
    [{ steps: Number.NaN }, "training.steps: must be a number (found NaN)"],
    [{ steps: -1 }, "training.steps: must be greater than 0 (found -1)"],
    [{ steps: 2.5 }, "training.steps: must be an integer (found 2.5)"],
    [{ steps: "2" }, 'training.steps: must be a number (found "2")'],
    [{ steps: Number.POSITIVE_INFINITY }, "training.steps: must be finite (found Infinity)"],
    [{ steps: 5n }, "training.steps: must be a number (found the bigint 5)"],
    [{ lr: null }, "training.lr: must be a number (found null)"],
    [{ lr: () => 1e-3 }, "training.lr: must be a number (found a function)"],
    [{ lr: new Float32Array(1) }, "training.lr: must be a number (found a Float32Array)"],
    [{ lrSchedule: "linear" }, 'training.lrSchedule: must be "constant" or "cosine" (found "linear")'],
    [{ onNonFinite: "ignore" }, 'training.onNonFinite: must be "stop", "skip" or "rollback" (found "ignore")'],
    [{ lrWarmupSteps: Number.NaN }, "training.lrWarmupSteps: must be a number (found NaN)"],
    [{ lrWarmupSteps: -5 }, "training.lrWarmupSteps: must be at least 0 (found -5)"],
    [{ logEvery: 0 }, "training.logEvery: must be greater than 0 (found 0)"],
    [{ stepz: 3 }, 'training.stepz: unknown key; did you mean "steps"?'],
  ])("training with %o is refused", (changes, message) => {
    const sections = { sae: topk.sae, training: { steps: 500, ...changes } };
    expect(() => checkedSections(sections, "the run")).toThrow(
      expect.objectContaining({ code: "ERR_CONFIG", message: `the run: ${message}` }),
    );
  });

  test.each<[unknown, string]>([
    [undefined, "sae: must be an object (missing)"],
    [{ ...topk.sae, architecture: "top" }, 'sae.architecture: must be "relu", '],
    [{ ...topk.sae, bDecInit: "mean" }, 'sae.bDecInit: must be "zero" or "geometric-median" (found "mean")'],
    [{ ...topk.sae, resampleEvery: "x" }, 'sae.resampleEvery: must be a number (found "x")'],
    [{ ...topk.sae, deadAfterTokens: -1 }, "sae.deadAfterTokens: must be greater than 0 (found -1)"],
    [{ ...topk.sae, deadAfterTokens: Number.NaN }, "sae.deadAfterTokens: must be a number (found NaN)"],
    [[topk.sae, { ...topk.sae, k: 0 }], "sae.1.k: must be greater than 0 (found 0)"],
    [{ ...topk.sae, architecture: "batchtopk", k: 1e-5 }, "sae.k: must select at least one latent per batch"],
  ])("sae %o is refused", (sae, message) => {
    expect(() => checkedSections({ sae, training: { steps: 500 } }, "the run")).toThrow(
      expect.objectContaining({ code: "ERR_CONFIG", message: expect.stringContaining(`the run: ${message}`) }),
    );
  });

  test("without clipGradNorm the gradient is clipped at 1, with null it is not", () => {
    const norm = (clipGradNorm: unknown): unknown =>
      checkedSections({ sae: topk.sae, training: { steps: 5, clipGradNorm } }, "the run").training.clipGradNorm;
    expect([norm(undefined), norm(null), norm(3)]).toEqual([1, null, 3]);
  });
});
