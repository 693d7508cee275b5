import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Device } from "../../lib/engine/device.js";
import type { Tensor } from "../../lib/engine/tensor.js";
import { HookedTransformer } from "../../lib/models/hookedTransformer.js";
import { reachableBytes } from "../reachableBytes.js";
import { testDevice } from "../testDevice.js";
import { syntheticConfig, syntheticWeights, writeGpt2 } from "./syntheticGpt2.js";
import { textFixture, tinyGpt2Directory } from "./tinyGpt2.js";

let device: Device;
let model: HookedTransformer;

beforeAll(async () => {
  device = await Device.open(testDevice, { threads: 2 });
  model = await HookedTransformer.load(tinyGpt2Directory, device);
});

afterAll(async () => {
  model.dispose();
  await device.close();
});

test("greedy text equals PyTorch's", async () => {
  const { greedyFromBos60, greedyText } = JSON.parse(await readFile(textFixture, "utf8"));
  const [tokens] = await model.generate("", { maxNewTokens: 60, temperature: 0 });
  expect(tokens).toEqual(greedyFromBos60);
  expect(model.tokenizer.decode(tokens!.slice(1))).toBe(greedyText);
});

test("the cache of keys and values changes nothing: each token is the likeliest after a whole run over its text", async () => {
  const prompts = [
    [0, 35, 74, 554, 350],
    [1633, 912, 0, 289, 291],
  ];
  const generated = await model.generate(prompts, { maxNewTokens: 30, temperature: 0, stopAtEos: false });
  const { vocabularySize } = model.config;
  using logits = await model.forward(generated);
  const values = await logits.readFloat32();
  for (const [sequence, tokens] of generated.entries()) {
    expect(tokens).toHaveLength(35);
    expect(tokens.slice(0, 5)).toEqual(prompts[sequence]);
    for (let position = 4; position < 34; position++) {
      const first = (sequence * 35 + position) * vocabularySize;
      const row = values.subarray(first, first + vocabularySize);
      expect(row.indexOf(Math.max(...row))).toBe(tokens[position + 1]);
    }
  }
});

test("the same seed gives the same text, another seed another", async () => {
  const sample = (seed: number): Promise<number[][]> =>
    model.generate("She said", { maxNewTokens: 20, temperature: 0.9, topK: 50, topP: 0.95, seed });
  const first = await sample(1);
  expect(await sample(1)).toEqual(first);
  expect(await sample(2)).not.toEqual(first);
});

test("a topK of 1 and a tiny topP choose as greedy does", async () => {
  const [greedy] = await model.generate("The", { maxNewTokens: 12, temperature: 0 });
  expect(await model.generate("The", { maxNewTokens: 12, topK: 1 })).toEqual([greedy]);
  expect(await model.generate("The", { maxNewTokens: 12, topP: 1e-6 })).toEqual([greedy]);
});

test("sequences of a batch differ in their draws", async () => {
  const generated = await model.generate(new Array(8).fill([0]), { maxNewTokens: 10, stopAtEos: false });
  expect(new Set(generated.map(String)).size).toBeGreaterThan(1);
});

test("generation ends at the context's size, prompt included", async () => {
  const prompt = new Array(250).fill(35);
  const [tokens] = await model.generate(prompt, { maxNewTokens: 100, temperature: 0, stopAtEos: false });
  expect(tokens).toHaveLength(256);
  const full = new Array(256).fill(35);
  expect(await model.generate(full, { maxNewTokens: 5 })).toEqual([full]);
});

test("a sequence ends after EOS while the others go on, and every step is told", async () => {
  const folder = await mkdtemp(join(tmpdir(), "monosem-generation-"));
  const [endOfText, batch] = [6, 32];
  await writeGpt2(folder, { ...syntheticConfig, eos_token_id: endOfText }, syntheticWeights());
  using small = await HookedTransformer.load(folder, device);
  await rm(folder, { recursive: true });
  const steps: (readonly (number | undefined)[])[] = [];
  const prompts = new Array(batch).fill([1]);
  const options = { maxNewTokens: 7, temperature: 30 }; // close to uniform
  for await (const { tokens } of small.stream(prompts, options)) steps.push(tokens);
  const generated = await small.generate(prompts, options);
  const lengths = generated.map((tokens) => tokens.length);
  expect(Math.min(...lengths)).toBeLessThan(8);
  expect(Math.max(...lengths)).toBe(8);
  for (const [sequence, tokens] of generated.entries()) {
    const end = tokens.indexOf(endOfText);
    expect(end === -1 ? tokens.length : end + 1).toBe(end === -1 ? 8 : tokens.length);
    expect([1, ...steps.map((step) => step[sequence]).filter((token) => token !== undefined)]).toEqual(tokens);
  }
  expect(steps).toHaveLength(7);
  const further = await small.generate(prompts, { maxNewTokens: 7, temperature: 30, stopAtEos: false });
  expect(further.every((tokens) => tokens.length === 8)).toBe(true);
  expect(further.map((tokens, sequence) => tokens.slice(0, lengths[sequence]))).toEqual(generated);
});

describe("a sequence ends after any of the tokens that end one", () => {
  async function stopTokens(config: object, generation?: object): Promise<readonly number[]> {
    const folder = await mkdtemp(join(tmpdir(), "monosem-stops-"));
    try {
      await writeGpt2(folder, { ...syntheticConfig, ...config }, syntheticWeights());
      if (generation !== undefined) await writeFile(join(folder, "generation_config.json"), JSON.stringify(generation));
      using small = await HookedTransformer.load(folder, device);
      const { stopTokenIds } = small.config;
      const options = { maxNewTokens: 7, temperature: 30 };
      const prompts = new Array(32).fill([1]);
      const generated = await small.generate(prompts, options);
      const whole = await small.generate(prompts, { ...options, stopAtEos: false });
      for (const [i, tokens] of generated.entries()) {
        const end = whole[i]!.findIndex((token, at) => at > 0 && stopTokenIds.includes(token));
        expect(tokens).toEqual(end < 0 ? whole[i] : whole[i]!.slice(0, end + 1));
      }
      return stopTokenIds;
    } finally {
      await rm(folder, { recursive: true });
    }
  }

  test("those of generation_config.json, and the tokenizer's EOS", async () => {
    expect(await stopTokens({ eos_token_id: 6 }, { eos_token_id: [3, 4] })).toEqual([6, 3, 4]);
    expect(await stopTokens({ eos_token_id: 6 }, { eos_token_id: 6 })).toEqual([6]);
    expect(await stopTokens({ eos_token_id: 6 }, { eos_token_id: null })).toEqual([6]);
  });

  test("without that file those of config.json", async () => {
    expect(await stopTokens({ eos_token_id: [5, 2] })).toEqual([5, 2]);
    expect(await stopTokens({})).toEqual([]);
  });

  test("an entry that is no token is refused", async () => {
    await expect(stopTokens({}, { eos_token_id: "</s>" })).rejects.toMatchObject({
      code: "ERR_FORMAT",
      message: expect.stringMatching(/generation_config\.json: eos_token_id must be a token id.*found "<\/s>"/),
    });
  });
});

test("texts begin with BOS unless told otherwise, token ids only when told", async () => {
  const ids = model.tokenizer.encode("The");
  const none = { maxNewTokens: 0 };
  expect(await model.generate("The", none)).toEqual([[0, ...ids]]);
  expect(await model.generate("The", { ...none, prependBos: false })).toEqual([ids]);
  expect(await model.generate(ids, none)).toEqual([ids]);
  expect(await model.generate([ids, ids], { ...none, prependBos: true })).toEqual([
    [0, ...ids],
    [0, ...ids],
  ]);
});

test("an abort ends generation in the middle", async () => {
  const controller = new AbortController();
  let steps = 0;
  const run = async (): Promise<void> => {
    const options = { maxNewTokens: 200, stopAtEos: false, signal: controller.signal };
    for await (const _ of model.stream("The", options)) {
      steps += 1;
      if (steps === 5) controller.abort();
    }
  };
  await expect(run()).rejects.toMatchObject({ code: "ERR_ABORTED" });
  expect(steps).toBe(5);
});

test("impossible options and prompts are refused by name", async () => {
  const generate = (options: object, prompt: string | number[][] = "The"): Promise<number[][]> =>
    model.generate(prompt, { maxNewTokens: 1, ...options });
  await expect(generate({ maxNewTokens: -1 })).rejects.toThrow(/maxNewTokens/);
  await expect(generate({ temperature: -1 })).rejects.toThrow(/temperature/);
  await expect(generate({ topK: 0 })).rejects.toThrow(/topK/);
  await expect(generate({ topP: 0 })).rejects.toThrow(/topP/);
  await expect(generate({ topP: 1.5 })).rejects.toThrow(/topP/);
  await expect(generate({ seed: 0.5 })).rejects.toThrow(/seed/);
  await expect(generate({ prependBos: false }, "")).rejects.toMatchObject({ code: "ERR_INVALID_ARGUMENT" });
  await expect(generate({}, [[1, 2], []])).rejects.toThrow(/prompt 1 is empty/);
  await expect(generate({}, [])).rejects.toThrow(/no prompts/);
  await expect(generate({}, [[5, 1 << 20]])).rejects.toThrow(/not in the vocabulary/);
  await expect(generate({ stopStrings: [""] })).rejects.toThrow(/stop string/);
  const hook = { name: "blocks.9.hook_resid_pre", hook: () => {} };
  await expect(generate({ hooks: [hook] })).rejects.toMatchObject({ code: "ERR_NOT_FOUND" });
});

test("prompts of different lengths are continued as each by itself", async () => {
  const prompts = [[0, 35, 74, 554, 350, 12, 99], [1633], [912, 0, 289]];
  const options = { maxNewTokens: 25, temperature: 0, stopAtEos: false };
  const together = await model.generate(prompts, options);
  for (const [i, prompt] of prompts.entries()) expect(together[i]).toEqual((await model.generate(prompt, options))[0]);
  const texts = await model.generate(["The king said", "She"], options);
  expect(texts[1]).toEqual((await model.generate("She", options))[0]);
});

test("a stream tells complete characters, and all text together is the decoded one", async () => {
  const prompts = [[0], [0, 35, 74]];
  const texts = ["", ""];
  const tokens: number[][] = [[], []];
  const options = { maxNewTokens: 40, seed: 3, temperature: 2, stopAtEos: false };
  for await (const step of model.stream(prompts, options)) {
    for (const [i, text] of step.text.entries()) texts[i] += text;
    for (const [i, token] of step.tokens.entries()) if (token !== undefined) tokens[i]!.push(token);
  }
  const special = model.tokenizer.specialTokenIds;
  const expected = tokens.map((ids) => model.tokenizer.decode(ids.filter((id) => !special.has(id))));
  expect(texts).toEqual(expected);
  expect(tokens.map((ids, i) => [...prompts[i]!, ...ids])).toEqual(await model.generate(prompts, options));
});

test("a stop string ends its sequence; neither it nor its beginning is told", async () => {
  const whole = { maxNewTokens: 60, temperature: 0 };
  const [all] = await model.generate("", whole);
  const text = model.tokenizer.decode(all!.slice(1));
  const stop = text.slice(50, 57);
  const told: string[] = [];
  for await (const step of model.stream("", { ...whole, stopStrings: ["nowhere in it", stop] }))
    told.push(step.text[0]!);
  expect(told.join("")).toBe(text.slice(0, text.indexOf(stop)));
  const [tokens] = await model.generate("", { ...whole, stopStrings: [stop] });
  expect(all!.slice(0, tokens!.length)).toEqual(tokens);
  expect(model.tokenizer.decode(tokens!.slice(1))).toContain(stop);
  expect(model.tokenizer.decode(tokens!.slice(1, -1))).not.toContain(stop);
  const begun = text.slice(-3); // held back, as it might become a stop string, and told in the end
  const rest: string[] = [];
  for await (const step of model.stream("", { ...whole, stopStrings: [`${begun}\u0000`] })) rest.push(step.text[0]!);
  expect(rest.join("")).toBe(text);
});

test.each(["blocks.1.hook_resid_post", "ln_final.hook_normalized"])(
  "hooks run in every pass, over the prompt and then over each new position: %s",
  async (name) => {
    const shapes: string[] = [];
    const read = { name, hook: ({ shape }: { shape: readonly number[] }) => void shapes.push(String(shape)) };
    const options = { maxNewTokens: 4, temperature: 0, stopAtEos: false };
    const [plain] = await model.generate([0, 35, 74], options);
    expect(await model.generate([0, 35, 74], { ...options, hooks: [read] })).toEqual([plain]);
    expect(shapes).toEqual(["1,3,192", "1,1,192", "1,1,192", "1,1,192"]);
    const ablate = { name, hook: (activation: Tensor) => device.zeros(activation.shape) };
    expect(await model.generate([0, 35, 74], { ...options, hooks: [ablate] })).not.toEqual([plain]);
  },
);

test("who leaves a stream leaves nothing behind on the device", async () => {
  const before = await reachableBytes(device);
  for await (const _ of model.stream("The", { maxNewTokens: 100 })) break;
  expect(await reachableBytes(device)).toBe(before);
});

test("NaN that a hook brings in while generating is sampling's error, whether a hook reads or not", async () => {
  const nan = device.tensor(new Float32Array(192).fill(Number.NaN), [1, 1, 192]);
  for (const reading of [false, true]) {
    let passes = 0;
    const hook = async (activation: Tensor): Promise<Tensor | undefined> => {
      passes += 1;
      if (reading) await activation.read();
      return passes === 3 ? nan.reshape(activation.shape) : undefined;
    };
    const hooks = [{ name: "blocks.1.hook_resid_post", hook }];
    const run = model.generate("The king", { maxNewTokens: 20, stopAtEos: false, hooks });
    await expect(run).rejects.toMatchObject({ code: "ERR_NON_FINITE", message: expect.stringMatching(/^sample/) });
  }
});

test("without a number of new tokens there are 64", async () => {
  const [ids] = await model.generate([0, 5], { stopAtEos: false });
  expect(ids).toHaveLength(66);
});
