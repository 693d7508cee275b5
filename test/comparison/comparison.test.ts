import { afterAll, beforeAll, expect, test } from "vitest";
import { latentGame } from "../../lib/attribution/latentGame.js";
import { type NextTokenMeasure, singleToken } from "../../lib/attribution/nextToken.js";
import { exactShapley } from "../../lib/attribution/shapley.js";
import { tokenGame } from "../../lib/attribution/tokenGame.js";
import { type Comparison, type ComparisonOptions, compareMethods } from "../../lib/comparison/compareMethods.js";
import { comparisonHtml } from "../../lib/comparison/comparisonPage.js";
import { type ComparisonReport, comparisonText } from "../../lib/comparison/comparisonReport.js";
import type { Device } from "../../lib/engine/device.js";
import type { HookedTransformer } from "../../lib/models/hookedTransformer.js";
import { activationPatching } from "../../lib/patching/activationPatching.js";
import { Sae } from "../../lib/sae/sae.js";
import { chromium, domOf } from "../analysis/browser.js";
import { HOOK, openTinyModel } from "../analysis/tinyModel.js";
import { hostileTokens } from "../features/hostileReport.js";

let device: Device;
let model: HookedTransformer;
let sae: Sae;
let measure: NextTokenMeasure;
const PROMPT = "The little girl was happy, because";
const CORRUPTED = "The little boy was happy, because";
const texts = ["One day the", "The little", "Then the", "A happy"].flatMap((start) =>
  ["went home", "said no", "saw a dog"].flatMap((end) =>
    ["girl", "boy"].map((label) => ({ text: `${start} ${label} ${end}`, label, type: undefined })),
  ),
);

beforeAll(async () => {
  ({ device, model } = await openTinyModel());
  const config = { architecture: "topk" as const, dIn: 192, dSae: 64, k: 8, applyBDecToInput: true };
  sae = Sae.create(config, device, 3, { metadata: { modelName: "tiny-gpt2", hookName: HOOK } });
  measure = {
    kind: "logit-difference",
    token: singleToken(model.tokenizer, " she"),
    against: singleToken(model.tokenizer, " he"),
  };
});

afterAll(async () => {
  sae.dispose();
  model.dispose();
  await device.close();
});

const compare = (options: Partial<ComparisonOptions> = {}): Promise<Comparison> =>
  compareMethods({ model, prompt: PROMPT, measure, ...options });

function outcomeOf({ methods }: Comparison, method: string): Comparison["methods"][number] {
  return methods.find((outcome) => outcome.method === method)!;
}

test("a model counts what goes through it, whichever way", async () => {
  const count = async (work: () => Promise<unknown>): Promise<readonly number[]> => {
    const before = model.forwardPasses;
    await work();
    const after = model.forwardPasses;
    return [after.runs - before.runs, after.sequences - before.sequences, after.tokens - before.tokens];
  };
  expect(await count(() => model.forward([[1, 2, 3]]))).toEqual([1, 1, 3]);
  const two = [
    [1, 2, 3],
    [4, 5, 6],
  ];
  expect(await count(() => model.loss(two))).toEqual([1, 2, 6]);
  expect(await count(() => model.activations([[1, 2]], HOOK))).toEqual([1, 1, 2]);
  // the prompts padded to two tokens, then two new ones each from one position
  expect(await count(() => model.generate([[1, 2], [3]], { maxNewTokens: 3, stopAtEos: false }))).toEqual([3, 6, 8]);
  await expect(model.forward([[1, -2]])).rejects.toThrow("not in the vocabulary");
  expect(await count(() => model.forward([[1]], { stopAtLayer: 0 }))).toEqual([1, 1, 1]);
});

test("each method says what it says by itself, and costs what it costs by itself", async () => {
  const before = model.forwardPasses.sequences;
  const found = await compare({ sae, corrupted: CORRUPTED, labelled: { texts, positive: "girl" } });
  expect(found.methods.reduce((sum, { forwardPasses }) => sum + forwardPasses, 0)).toBe(
    model.forwardPasses.sequences - before,
  );
  expect(found.methods.map(({ method }) => method)).toEqual(["patching", "probing", "LIME", "SHAP", "SAE features"]);
  expect(found.hook).toBe(HOOK);
  expect(found.tokens.join("")).toBe(`<|endoftext|>${PROMPT}`);
  const [tokens] = model.promptTokens(PROMPT);
  const [corrupted] = model.promptTokens(CORRUPTED);

  const { effects } = await activationPatching(
    tokens!.map((_, position) => ({ hook: HOOK, positions: [position] })),
    { model, pair: { clean: tokens!, corrupted: corrupted! }, metric: measure },
  );
  const patching = outcomeOf(found, "patching");
  expect(patching.values).toEqual([undefined, ...effects.slice(1)]);
  expect(patching.forwardPasses).toBe(3 + 8);

  const shap = outcomeOf(found, "SHAP");
  const { values } = await exactShapley(tokenGame(model, tokens!, measure).game, 7);
  expect(shap.values).toEqual([undefined, ...values]);
  expect(shap.forwardPasses).toBe(2 ** 7);

  const lime = outcomeOf(found, "LIME");
  expect(lime.values!.indexOf(Math.max(...lime.values!.slice(1).map((value) => value!)))).toBe(3);
  expect(lime.forwardPasses).toBeGreaterThan(50);
  expect(lime.forwardPasses).toBeLessThanOrEqual(2 ** 7);

  const probing = outcomeOf(found, "probing");
  expect(probing.forwardPasses).toBe(texts.length + 1);
  expect(probing.values![3]!).toBeGreaterThan(0);

  expect(found.latents).toHaveLength(8);
  expect(found.latents![0]).toEqual([]);
  expect(found.latents![3]).toHaveLength(3);
  const { game, latents } = await latentGame(model, sae, tokens!, measure, { strongest: 24 });
  expect(outcomeOf(found, "SAE features").forwardPasses).toBe(1 + 1 + 1 + latents.length);
  expect(found.latentEffects).toHaveLength(8);
  const { latent, effect } = found.latentEffects![0]!;
  const present = Uint8Array.from([...latents.map(() => 1), ...latents.map((one) => (one === latent ? 0 : 1))]);
  const scores = await game({ rows: 2, players: latents.length, present });
  expect(effect).toBeCloseTo(scores[0]! - scores[1]!, 4);
});

test("what is not given is left out, and said", async () => {
  const found = await compare();
  expect(found.hook).toBe("blocks.2.hook_resid_post");
  expect(found.methods.map(({ leftOut }) => leftOut)).toEqual([
    "no corrupted prompt was given",
    "no labelled texts were given",
    undefined,
    undefined,
    "no SAE was given",
  ]);
  expect(found.latents).toBeUndefined();
  const report = { title: "", facts: [], comparison: found };
  expect(comparisonText(report)).toMatch(/^patching +left out: no corrupted prompt was given$/m);
  expect(comparisonHtml(report)).toContain("left out: no SAE was given");
});

test("a corrupted prompt of another length leaves patching out, and the lengths are said", async () => {
  const found = await compare({ corrupted: "The boy was happy, because" });
  expect(outcomeOf(found, "patching").leftOut).toMatch(/the corrupted prompt has 7 tokens, the prompt 8/);
});

test("what is given and cannot be used is an error", async () => {
  await expect(compare({ hook: "blocks.9.hook_resid_post" })).rejects.toMatchObject({ code: "ERR_NOT_FOUND" });
  await expect(compare({ labelled: { texts: texts.slice(0, 1) } })).rejects.toMatchObject({ code: "ERR_CONFIG" });
  const controller = new AbortController();
  const seen: string[] = [];
  const aborted = compare({
    signal: controller.signal,
    onProgress: (method) => {
      seen.push(method);
      if (method === "LIME") controller.abort();
    },
  });
  await expect(aborted).rejects.toMatchObject({ code: "ERR_ABORTED" });
  expect(seen).toEqual(["patching", "probing", "LIME"]);
});

function hostileComparison(): ComparisonReport {
  const values = hostileTokens.map((_, i) => i - 5);
  const comparison: Comparison = {
    hook: HOOK,
    tokens: hostileTokens,
    methods: [
      {
        method: "LIME",
        question: "?",
        values,
        facts: [["<b>", "evil\u001b[2J\u202e<script>"]],
        forwardPasses: 1,
        seconds: 1,
      },
    ],
    latents: hostileTokens.map(() => [{ latent: 1, value: 2 }]),
    latentEffects: [{ latent: 1, effect: 0 }],
  };
  return { title: "<script>", facts: [["model", "\u001b[31m<img>"]], comparison };
}

test("hostile tokens and facts are harmless on a terminal and in a page", () => {
  const report = hostileComparison();
  for (const shown of [comparisonText(report), comparisonHtml(report)]) {
    expect(shown).not.toContain("\u001b");
    expect(shown).not.toContain("\u202e");
  }
  const html = comparisonHtml(report);
  expect(html).not.toMatch(/<(script|img|b)\b/);
  expect(html.match(/<style>/g)).toHaveLength(1);
  expect(html).toContain("Content-Security-Policy");
  expect(html).not.toContain("NaN");
});

test.skipIf(chromium === undefined)("a browser runs nothing of the page", () => {
  const dom = domOf(comparisonHtml(hostileComparison()));
  expect(dom).toContain("<title>&lt;script&gt;</title>");
  expect(dom).not.toMatch(/<(script|img)\b/);
});
