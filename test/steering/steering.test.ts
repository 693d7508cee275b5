import { afterAll, beforeAll, expect, test } from "vitest";
import { singleToken } from "../../lib/attribution/nextToken.js";
import type { Device } from "../../lib/engine/device.js";
import type { HookedTransformer } from "../../lib/models/hookedTransformer.js";
import { Sae } from "../../lib/sae/sae.js";
import { interventions } from "../../lib/steering/interventions.js";
import { type SteeringOptions, steer } from "../../lib/steering/steering.js";
import { steeringHtml } from "../../lib/steering/steeringPage.js";
import { type SteeringReport, steeringText, wrapped } from "../../lib/steering/steeringReport.js";
import { chromium, domOf } from "../analysis/browser.js";
import { HOOK, openTinyModel } from "../analysis/tinyModel.js";
import { hostileTokens } from "../features/hostileReport.js";

let device: Device;
let model: HookedTransformer;
let sae: Sae;
let options: SteeringOptions;
const TEXT = "The child was happy, because";

beforeAll(async () => {
  ({ device, model } = await openTinyModel());
  const config = { architecture: "topk" as const, dIn: 192, dSae: 64, k: 8, applyBDecToInput: true };
  sae = Sae.create(config, device, 3, { metadata: { modelName: "tiny-gpt2", hookName: HOOK } });
  options = {
    model,
    sae,
    prompt: TEXT,
    trials: [
      { label: "unchanged", changes: [] },
      { label: "add 6", changes: [{ latent: 17, add: 6 }] },
      { label: "add 30", changes: [{ latent: 17, add: 30 }] },
    ],
    samples: 3,
    maxNewTokens: 20,
    temperature: 0.8,
    seed: 5,
    target: singleToken(model.tokenizer, " she"),
  };
});

afterAll(async () => {
  sae.dispose();
  model.dispose();
  await device.close();
});

test("without changes the texts are the model's own, and the numbers are what the model says of them", async () => {
  const [found] = await steer(options);
  const prompt = model.promptTokens(TEXT)[0]!;
  const expected = await model.generate([prompt, prompt, prompt], { maxNewTokens: 20, temperature: 0.8, seed: 5 });
  let [loss, count, activation, read] = [0, 0, 0, 0];
  for (const [i, ids] of expected.entries()) {
    const written = ids.slice(prompt.length);
    expect(found!.texts[i]).toBe(model.tokenizer.decode(written.filter((token) => token !== 0)));
    using logits = await model.forward([ids]);
    const values = await logits.readFloat32();
    using x = await model.activations([ids], HOOK);
    using codes = sae.encode(x);
    using latents = device.kernels.densify(codes);
    const dense = await latents.readFloat32();
    for (let at = prompt.length; at < ids.length; at++) {
      const row = Array.from(values.slice((at - 1) * 2048, at * 2048));
      const largest = Math.max(...row);
      loss += largest + Math.log(row.reduce((sum, value) => sum + Math.exp(value - largest), 0)) - row[ids[at]!]!;
      count += 1;
      if (ids[at] === 0) continue;
      activation += dense[at * 64 + 17]!;
      read += 1;
    }
  }
  expect(found!.newTokens).toBe(count);
  expect(found!.perplexity / Math.exp(loss / count)).toBeCloseTo(1, 4);
  expect(found!.activations).toEqual([{ latent: 17, mean: expect.any(Number) }]);
  expect(found!.activations[0]!.mean).toBeCloseTo(activation / read, 4);
});

test("strength shows: the stronger, the stranger to the unchanged model; the same seed gives the same texts", async () => {
  const found = await steer(options);
  const again = await steer(options);
  expect(again).toEqual(found);
  const perplexities = found.map(({ perplexity }) => perplexity);
  expect(perplexities[2]).toBeGreaterThan(2 * perplexities[0]!);
  expect(found[2]!.texts).not.toEqual(found[0]!.texts);
  const prompt = model.promptTokens(TEXT)[0]!;
  using logits = await model.forward([prompt], {
    hooks: interventions(model, sae, [{ latent: 17, add: 6 }], { positions: prompt.map((_, at) => at).slice(1) }),
  });
  using probabilities = device.kernels.softmaxRows(logits);
  const values = (await probabilities.readFloat32()).slice(-2048);
  expect(found[1]!.targetProbability).toBeCloseTo(values[options.target!]!, 5);
});

test("a part of the run can be steered: with the generated one alone, the first new token is as without", async () => {
  const first = async (part: SteeringOptions["part"]): Promise<readonly (readonly string[])[]> =>
    (await steer({ ...options, part, maxNewTokens: 1, temperature: 0, samples: 1 })).map(({ texts }) => texts);
  const generated = await first("generated");
  expect(generated[2]).toEqual(generated[0]);
  expect((await first("everywhere"))[2]).not.toEqual(generated[0]);
  expect(await first("prompt")).toEqual(await first("everywhere"));
  const longer = await steer({ ...options, part: "generated", temperature: 0, samples: 1 });
  expect(longer[2]!.texts).not.toEqual(longer[0]!.texts);
});

test("what cannot be done is refused, and progress is told until it is aborted", async () => {
  const refused = (changes: Partial<SteeringOptions>): Promise<unknown> => steer({ ...options, ...changes });
  await expect(refused({ trials: [] })).rejects.toMatchObject({ code: "ERR_INVALID_ARGUMENT" });
  await expect(refused({ samples: 0 })).rejects.toThrow("samples must be a positive integer");
  await expect(refused({ prompt: "word ".repeat(300) })).rejects.toThrow("there is no room to write");
  const wrong = [{ label: "", changes: [{ latent: 64, add: 1 }] }];
  await expect(refused({ trials: wrong })).rejects.toThrow("there is no latent 64");
  const controller = new AbortController();
  const seen: number[] = [];
  const aborted = steer({
    ...options,
    signal: controller.signal,
    onProgress: ({ trials }) => {
      seen.push(trials);
      controller.abort();
    },
  });
  await expect(aborted).rejects.toMatchObject({ code: "ERR_ABORTED" });
  expect(seen).toEqual([1]);
});

function reportOf(texts: readonly string[]): SteeringReport {
  return {
    title: "Steering <script>",
    facts: [["model", "evil\u001b[2J\u202e"]],
    prompt: "Once <b>",
    target: " she",
    trials: texts.map((text, i) => ({
      label: `trial ${i}`,
      changes: [],
      texts: [text],
      newTokens: 9,
      perplexity: 12.345,
      activations: [{ latent: 3, mean: 0.5 }],
      targetProbability: 0.25,
    })),
  };
}

test("two texts stand side by side, several one below the other, in lines that fit", () => {
  const two = steeringText(reportOf(["one two three four five six", "short"]), { width: 43 });
  expect(two).toContain(`         perplexity  latent 3  P(" she")\ntrial 0       12.35     0.500      25.0%\n`);
  expect(two).toContain(
    "[trial 0]              [trial 1]\nOnce <b>one two        Once <b>short\nthree four five six\n",
  );
  const three = steeringText(reportOf(["a", "b", "c"]), { width: 43 });
  expect(three).toContain("[trial 1]\nOnce <b>b\n\n[trial 2]\nOnce <b>c\n");
});

test("lines are broken at spaces, long words anywhere, and line breaks stay", () => {
  expect(wrapped("ab cd ef\n\ngh", 5)).toEqual(["ab cd", "ef", "", "gh"]);
  expect(wrapped("abcdefghijkl m", 5)).toEqual(["abcde", "fghij", "kl m"]);
});

test("hostile texts are harmless on a terminal and in a page", () => {
  const report = reportOf(hostileTokens);
  const text = steeringText(report, { width: 80 });
  const html = steeringHtml(report);
  for (const shown of [text, html]) {
    expect(shown).not.toContain("\u001b");
    expect(shown).not.toContain("\u202e");
  }
  expect(html).not.toMatch(/<(script|img|svg|b)\b/);
  expect(html).toContain("Content-Security-Policy");
  expect(html.match(/<style>/g)).toHaveLength(1);
});

test.skipIf(chromium === undefined)("a browser runs nothing of the page", () => {
  const dom = domOf(steeringHtml(reportOf(hostileTokens)));
  expect(dom).toContain("<title>Steering &lt;script&gt;");
  expect(dom).not.toMatch(/<(script|img)\b/);
});
