import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type HookedSaeTransformer, withSae } from "../../lib/analysis/hookedSaeTransformer.js";
import { spliceHook } from "../../lib/analysis/spliceHook.js";
import type { Device } from "../../lib/engine/device.js";
import type { Tensor } from "../../lib/engine/tensor.js";
import type { HookedTransformer } from "../../lib/models/hookedTransformer.js";
import { Sae, type SaeMetadata } from "../../lib/sae/sae.js";
import { reachableBytes } from "../reachableBytes.js";
import { openTinyModel } from "./tinyModel.js";

const first = "blocks.1.hook_resid_post";
const second = "blocks.2.hook_resid_pre";
const tokens = [
  [5, 17, 300, 2, 9],
  [44, 17, 8, 120, 3],
];
const [batch, positions, dModel] = [2, 5, 192];

let device: Device;
let model: HookedTransformer;
let sae: Sae;
beforeAll(async () => {
  ({ device, model } = await openTinyModel());
  sae = topk(3, { hookName: first });
});
afterAll(() => device.close());

function topk(seed: number, metadata: SaeMetadata, extra: object = {}): Sae {
  const config = { architecture: "topk" as const, dIn: dModel, dSae: 64, k: 8, applyBDecToInput: true, ...extra };
  const made = Sae.create(config, device, seed, { metadata });
  // a decoder bias that is not 0, so that it cannot be forgotten without being noticed
  device.kernels.fill(made.parameters.decoderBias, 0.05);
  return made;
}

async function logits(run: Promise<Tensor>): Promise<Float32Array> {
  using output = await run;
  return await output.readFloat32();
}

function largestDifference(a: Float32Array, b: Float32Array): number {
  expect(a.length).toBe(b.length);
  return a.reduce((largest, value, i) => Math.max(largest, Math.abs(value - b[i]!)), 0);
}

/** The residual stream [batch * positions, dModel] that leaves block 1, whatever stands there. */
async function leaving(spliced: HookedSaeTransformer, hooks: Parameters<HookedSaeTransformer["runWithHooks"]>[1] = []) {
  let seen: Float32Array | undefined;
  const read = {
    name: second,
    hook: async (x: Tensor): Promise<void> => {
      seen = await x.readFloat32();
    },
  };
  (await spliced.runWithHooks(tokens, [...hooks, read])).dispose();
  return seen!;
}

test("an SAE stands where its reconstruction would be spliced in, and with its error changes nothing", async () => {
  const spliced = await logits(model.forward(tokens, { hooks: [{ name: first, hook: spliceHook(sae) }] }));
  expect(await logits(withSae(model, sae).forward(tokens))).toEqual(spliced);
  const clean = await logits(model.forward(tokens));
  const withError = await logits(withSae(model, sae, { errorTerm: true }).forward(tokens));
  expect(largestDifference(withError, clean)).toBeLessThan(1e-4);
  expect(largestDifference(spliced, clean)).toBeGreaterThan(0.1);
});

test("everything in an SAE can be read, under names in order of execution", async () => {
  const spliced = withSae(model, sae, { errorTerm: true });
  const own = ["input", "acts_pre", "acts_post", "recons", "error", "output"].map(
    (name) => `${first}.hook_sae_${name}`,
  );
  const at = spliced.hookNames.indexOf(first);
  expect(spliced.hookNames.slice(at, at + 8)).toEqual([first, ...own, second]);
  const { output, cache } = await spliced.runWithCache(tokens, { names: [...own, first, second] });
  output.dispose();
  expect([...cache.keys()]).toEqual([first, ...own, second]);
  const content = new Map<string, Float32Array>();
  for (const [name, tensor] of cache) {
    expect(tensor.shape).toEqual([batch, positions, name.includes("acts") ? 64 : dModel]);
    content.set(name.split("hook_sae_").at(-1)!, await tensor.readFloat32());
  }
  const x = cache.get(first)!;
  using codes = sae.encode(x);
  using latents = device.kernels.densify(codes);
  using reconstruction = sae.decode(codes);
  expect(content.get("input")).toEqual(await x.readFloat32());
  expect(content.get("acts_post")).toEqual(await latents.readFloat32());
  expect(content.get("recons")).toEqual(await reconstruction.readFloat32());
  expect(content.get("output")).toEqual(content.get(second));
  const { features, preActivations, rowOffsets } = await codes.read();
  for (let row = 0; row < batch * positions; row++) {
    for (let entry = rowOffsets[row]!; entry < rowOffsets[row + 1]!; entry++) {
      expect(content.get("acts_pre")![row * 64 + features[entry]!]).toBeCloseTo(preActivations[entry]!, 4);
    }
  }
  content.get("error")!.forEach((error, i) => {
    expect(error).toBeCloseTo(content.get("input")![i]! - content.get("recons")![i]!, 5);
  });
  for (const tensor of cache.values()) tensor.dispose();
});

describe("interventions on latents", () => {
  const latent = 11;
  const decoderRow = async () =>
    (await sae.parameters.decoder.readFloat32()).subarray(latent * dModel, (latent + 1) * dModel);
  const setTo = (value: number) => ({
    name: `${first}.hook_sae_acts_post`,
    hook: async (latents: Tensor) => {
      const values = await latents.readFloat32();
      for (let i = latent; i < values.length; i += 64) values[i] = value;
      return device.tensor(values, latents.shape);
    },
  });

  test.each([false, true])("move the stream along the decoder's row, with errorTerm %s", async (errorTerm) => {
    const spliced = withSae(model, sae, { errorTerm });
    const [at0, at3] = [await leaving(spliced, [setTo(0)]), await leaving(spliced, [setTo(3)])];
    const row = await decoderRow();
    for (let i = 0; i < at0.length; i++) expect(at3[i]! - at0[i]!).toBeCloseTo(3 * row[i % dModel]!, 4);
    // what the SAE does not reconstruct is still there, or not
    const untouched = await leaving(spliced);
    const { output, cache } = await model.runWithCache(tokens, { names: [first] });
    output.dispose();
    using x = cache.get(first)!;
    const difference = largestDifference(untouched, await x.readFloat32());
    if (errorTerm) expect(difference).toBeLessThan(1e-4);
    else expect(difference).toBeGreaterThan(0.01);
  });

  test("of reconstruction, error, input and output have their effect", async () => {
    const spliced = withSae(model, sae, { errorTerm: true });
    const zero = (own: string) => ({
      name: `${first}.hook_sae_${own}`,
      hook: (x: Tensor) => device.kernels.scale(x, 0),
    });
    const whole = await leaving(spliced);
    const [withoutRecons, withoutError] = [
      await leaving(spliced, [zero("recons")]),
      await leaving(spliced, [zero("error")]),
    ];
    withoutRecons.forEach((value, i) => {
      expect(value + withoutError[i]!).toBeCloseTo(whole[i]!, 4);
    });
    expect(withoutError).toEqual(await leaving(withSae(model, sae)));
    expect((await leaving(spliced, [zero("output")])).every((value) => value === 0)).toBe(true);
    using nothing = device.zeros([1, dModel]);
    using ofNothing = sae.reconstruct(nothing);
    const row = await ofNothing.readFloat32();
    (await leaving(withSae(model, sae), [zero("input")])).forEach((value, i) => {
      expect(value).toBeCloseTo(row[i % dModel]!, 5);
    });
  });

  test("hooks where the SAE stands run before it", async () => {
    const halved = { name: first, hook: (x: Tensor) => device.kernels.scale(x, 0.5) };
    const expected = await logits(model.forward(tokens, { hooks: [halved, { name: first, hook: spliceHook(sae) }] }));
    expect(await logits(withSae(model, sae).runWithHooks(tokens, [halved]))).toEqual(expected);
  });
});

test("special tokens stay clean, wherever they stand", async () => {
  const spliced = withSae(model, sae, { cleanTokens: [17, 3] });
  const [mixed, replaced] = [await leaving(spliced), await leaving(withSae(model, sae))];
  const { output, cache } = await model.runWithCache(tokens, { names: [first] });
  output.dispose();
  using x = cache.get(first)!;
  const clean = await x.readFloat32();
  tokens.flat().forEach((token, row) => {
    const of = (all: Float32Array) => all.subarray(row * dModel, (row + 1) * dModel);
    if (token === 17 || token === 3) expect(of(mixed)).toEqual(of(clean));
    else expect(largestDifference(of(mixed), of(replaced))).toBeLessThan(1e-5);
  });
});

test("several SAEs, and a transcoder in an MLP's place", async () => {
  using other = topk(4, { hookName: "blocks.3.hook_resid_pre" });
  const [input, target] = ["blocks.2.ln2.hook_normalized", "blocks.2.hook_mlp_out"];
  using transcoder = topk(
    5,
    { hookName: input, hookNameOut: target },
    { transcoder: true, dOut: dModel, applyBDecToInput: false },
  );
  const all = withSae(model, sae).withSae(other).withSae(transcoder);
  let x: Tensor | undefined;
  const expected = await logits(
    model.forward(tokens, {
      hooks: [
        { name: first, hook: spliceHook(sae) },
        { name: "blocks.3.hook_resid_pre", hook: spliceHook(other) },
        {
          name: input,
          hook: (activation): void => {
            x = activation.reshape([batch * positions, dModel]);
          },
        },
        {
          name: target,
          hook: (activation) => {
            using rows = transcoder.reconstruct(x!);
            x!.dispose();
            return rows.reshape(activation.shape);
          },
        },
      ],
    }),
  );
  expect(await logits(all.forward(tokens))).toEqual(expected);
  const names = [`${target}.hook_sae_input`, `${target}.hook_sae_output`, target];
  const { output, cache } = await all.runWithCache(tokens, { names });
  output.dispose();
  expect([...cache.keys()]).toEqual([target, names[0], names[1]]);
  for (const tensor of cache.values()) tensor.dispose();
  const withErrors = withSae(model, sae, { errorTerm: true }).withSae(transcoder, { errorTerm: true });
  expect(largestDifference(await logits(withErrors.forward(tokens)), await logits(model.forward(tokens)))).toBeLessThan(
    1e-4,
  );
});

test("loss and generation run with the SAE", async () => {
  const neutral = withSae(model, sae, { errorTerm: true });
  using losses = await neutral.loss(tokens);
  using expected = await model.loss(tokens);
  expect(largestDifference(await losses.readFloat32(), await expected.readFloat32())).toBeLessThan(1e-4);
  const options = { maxNewTokens: 6, temperature: 0 };
  const prompts = ["The king said", "She went to the house and"];
  expect(await neutral.generate(prompts, options)).toEqual(await model.generate(prompts, options));
  const replaced = await withSae(model, sae, { cleanTokens: [model.config.bosTokenId!] }).generate(prompts, options);
  expect(replaced).not.toEqual(await model.generate(prompts, options));
  let text = "";
  for await (const step of neutral.stream(prompts[0]!, options)) text += step.text[0];
  expect(text).toBe(model.tokenizer.decode((await model.generate(prompts[0]!, options))[0]!.slice(-6)));
});

test("a run that stops before the SAE leaves it out", async () => {
  const spliced = withSae(model, sae);
  expect(await logits(spliced.forward(tokens, { stopAtLayer: 1 }))).toEqual(
    await logits(model.forward(tokens, { stopAtLayer: 1 })),
  );
  const { output, cache } = await spliced.runWithCache(tokens, { stopAtLayer: 1 });
  output.dispose();
  expect([...cache.keys()].some((name) => name.includes("hook_sae"))).toBe(false);
  for (const tensor of cache.values()) tensor.dispose();
  const hook = { name: `${first}.hook_sae_recons`, hook: () => {} };
  await expect(spliced.forward(tokens, { stopAtLayer: 1, hooks: [hook] })).rejects.toThrow(
    /hook point blocks\.1\.hook_resid_post\.hook_sae_recons lies behind stopAtLayer 1/,
  );
});

test("what cannot be is refused", async () => {
  const spliced = withSae(model, sae);
  const code = (name: string) => expect.objectContaining({ code: name });
  const at = (name: string) => [{ name, hook: (x: Tensor) => device.kernels.scale(x, 1) }];
  await expect(spliced.runWithHooks(tokens, at(`${first}.hook_sae_error`))).rejects.toThrow(code("ERR_NOT_FOUND"));
  await expect(spliced.runWithHooks(tokens, at(`${first}.hook_sae_acts`))).rejects.toThrow(
    /did you mean .*hook_sae_acts_pre/,
  );
  await expect(spliced.runWithHooks(tokens, at("blocks.1.hook_resid_pst"))).rejects.toThrow(code("ERR_NOT_FOUND"));
  expect(() => spliced.withSae(sae)).toThrow(/there is an SAE at hook point blocks\.1\.hook_resid_post already/);
  expect(() => withSae(model, sae, { hook: second })).toThrow(code("ERR_CONFIG"));
  expect(withSae(model, sae, { hook: second, allowMismatch: true }).hookNames).toContain(`${second}.hook_sae_recons`);
  using backwards = topk(
    5,
    { hookName: second, hookNameOut: "blocks.1.hook_mlp_out" },
    { transcoder: true, dOut: dModel, applyBDecToInput: false },
  );
  expect(() => withSae(model, backwards)).toThrow(code("ERR_UNSUPPORTED"));
  using crosscoder = topk(5, { hookNames: [first, second] }, { dIn: 2 * dModel, hookWidths: [dModel, dModel] });
  using early = topk(6, { hookName: "blocks.0.hook_mlp_out" });
  const place =
    /untouched model, which an SAE at blocks\.0\.hook_mlp_out, before its last hook point blocks\.2\.hook_resid_pre/;
  expect(() => withSae(model, crosscoder).withSae(early)).toThrow(place);
  expect(() => withSae(model, early).withSae(crosscoder)).toThrow(place);
  expect(() => spliced.withSae(crosscoder)).toThrow(/there is an SAE at hook point blocks\.1\.hook_resid_post already/);
  await expect(withSae(model, crosscoder).generate("She")).rejects.toThrow(code("ERR_UNSUPPORTED"));
  const wrong = { name: `${first}.hook_sae_acts_post`, hook: () => device.zeros([1]) };
  await expect(spliced.runWithHooks(tokens, [wrong])).rejects.toThrow(code("ERR_SHAPE_MISMATCH"));
});

test("several SAEs at once are one after the other", async () => {
  using other = topk(4, { hookName: "blocks.3.hook_mlp_out" });
  const one = withSae(model, sae, { errorTerm: true }).withSae(other, { errorTerm: true });
  const together = withSae(model, [sae, other], { errorTerm: true });
  expect(together.hookNames).toEqual(one.hookNames);
  expect(await logits(together.forward(tokens))).toEqual(await logits(one.forward(tokens)));
});

test("sequences that are not as in an SAE's training are refused wherever they go in, unless that is allowed", async () => {
  const bos = model.config.bosTokenId!;
  using without = topk(3, { hookName: first, prependBos: false, contextSize: 4 });
  using beginning = topk(3, { hookName: first, prependBos: true, contextSize: 4 });
  for (const [trained, ids, message] of [
    [without, [bos, 5, 17], /without BOS \(prependBos false\)/],
    [beginning, [5, 17, 9], /that begin with BOS \(prependBos\)/],
    [without, [5, 17, 9, 300, 2], /contexts of 4 tokens, but one of 5/],
    [beginning, [bos, 17, 9, 300, 2], /contexts of 4 tokens, but one of 5/],
  ] as const) {
    const spliced = withSae(model, trained);
    const refused = { code: "ERR_CONFIG", message: expect.stringMatching(message) };
    await expect(spliced.forward([ids])).rejects.toMatchObject(refused);
    await expect(spliced.forward(device.tensor(Int32Array.from(ids), [1, ids.length]))).rejects.toMatchObject(refused);
    await expect(spliced.loss(ids)).rejects.toMatchObject(refused);
    await expect(spliced.runWithCache([ids])).rejects.toMatchObject(refused);
    await expect(spliced.generate([...ids], { maxNewTokens: 1 })).rejects.toMatchObject(refused);
    expect(() => spliced.stream([...ids], { maxNewTokens: 1 })).toThrow(message);
    const allowed = withSae(model, trained, { allowMismatch: true });
    expect((await logits(allowed.forward([ids]))).length).toBe(ids.length * model.config.vocabularySize);
    expect((await allowed.generate([...ids], { maxNewTokens: 1 }))[0]).toHaveLength(ids.length + 1);
  }
});

test("texts begin as the SAE's training had it, token ids as they are", async () => {
  using without = topk(3, { hookName: first, prependBos: false });
  using beginning = topk(3, { hookName: first, prependBos: true });
  const ids = model.tokenizer.encode("The king");
  const bos = model.config.bosTokenId!;
  const plain = await logits(withSae(model, without).forward([ids]));
  expect(await logits(withSae(model, without).forward("The king"))).toEqual(plain);
  expect((await withSae(model, without).generate("The king", { maxNewTokens: 1 }))[0]!.slice(0, -1)).toEqual(ids);
  const led = await logits(withSae(model, beginning).forward([[bos, ...ids]]));
  expect(await logits(withSae(model, beginning).forward("The king"))).toEqual(led);
  await expect(withSae(model, without).forward("The king", { prependBos: true })).rejects.toMatchObject({
    code: "ERR_CONFIG",
  });
});

test("no memory is left behind", async () => {
  const spliced = withSae(model, sae, { errorTerm: true, cleanTokens: [17] });
  const before = await reachableBytes(device);
  const { output, cache } = await spliced.runWithCache(tokens);
  output.dispose();
  for (const tensor of cache.values()) tensor.dispose();
  await device.synchronize();
  expect(device.memory().currentBytes).toBe(before);
});

describe("a crosscoder", () => {
  const hooks = ["blocks.0.hook_resid_post", "blocks.2.hook_mlp_out"] as const;
  let crosscoder: Sae;
  let last: Sae;
  beforeAll(() => {
    crosscoder = topk(8, { hookNames: hooks }, { dIn: 2 * dModel, hookWidths: [dModel, dModel] });
    last = topk(9, { hookName: "blocks.3.hook_resid_pre" });
  });

  /** The model's hook points of the crosscoder, after it. */
  async function placed(spliced: HookedSaeTransformer, userHooks: Parameters<typeof leaving>[1] = []) {
    const seen = new Map<string, Float32Array>();
    const read = hooks.map((name) => ({
      name: `${name}.hook_sae_output`,
      hook: async (x: Tensor) => void seen.set(name, await x.readFloat32()),
    }));
    (await spliced.runWithHooks(tokens, [...userHooks, ...read])).dispose();
    return hooks.map((name) => seen.get(name)!);
  }

  test("puts the reconstruction of each hook point there, by latents of the untouched model", async () => {
    using x = await model.activations(tokens, hooks);
    using reconstruction = crosscoder.reconstruct(x);
    const expected = hooks.map((_, index) => device.kernels.sliceColumns(reconstruction, index * dModel, dModel));
    const spliced = withSae(model, crosscoder).withSae(last);
    const found = await placed(spliced);
    for (const [index, part] of expected.entries()) expect(found[index]).toEqual(await part.readFloat32());
    const logitsOfBoth = await logits(spliced.forward(tokens));
    const replace = hooks.map((name, index) => ({
      name,
      hook: (activation: Tensor) => expected[index]!.reshape(activation.shape),
    }));
    const behind = { name: "blocks.3.hook_resid_pre", hook: spliceHook(last) };
    expect(logitsOfBoth).toEqual(await logits(model.forward(tokens, { hooks: [...replace, behind] })));
    for (const part of expected) part.dispose();
  });

  test("has hook points for what it encodes at the first one, and for what it writes at each", () => {
    const names = withSae(model, crosscoder, { errorTerm: true }).hookNames;
    const [from, to] = hooks.map((hook) => names.indexOf(hook)) as [number, number];
    expect(names.slice(from + 1, from + 7).map((name) => name.slice(hooks[0].length + 1))).toEqual(
      ["input", "acts_pre", "acts_post", "recons", "error", "output"].map((own) => `hook_sae_${own}`),
    );
    expect(names.slice(to + 1, to + 4)).toEqual(
      ["recons", "error", "output"].map((own) => `${hooks[1]}.hook_sae_${own}`),
    );
  });

  test("moves every hook point by the latent's row there alone, if errors are kept", async () => {
    const spliced = withSae(model, crosscoder, { errorTerm: true });
    expect(largestDifference(await logits(spliced.forward(tokens)), await logits(model.forward(tokens)))).toBeLessThan(
      1e-4,
    );
    const setTo = (value: number) => ({
      name: `${hooks[0]}.hook_sae_acts_post`,
      hook: async (latents: Tensor) => {
        const values = await latents.readFloat32();
        for (let i = 21; i < values.length; i += 64) values[i] = value;
        return device.tensor(values, latents.shape);
      },
    });
    const [at0, at3] = [await placed(spliced, [setTo(0)]), await placed(spliced, [setTo(3)])];
    const decoder = await crosscoder.parameters.decoder.readFloat32();
    for (const hook of [0, 1]) {
      const row = decoder.subarray(21 * 2 * dModel + hook * dModel, 21 * 2 * dModel + (hook + 1) * dModel);
      for (const [i, value] of at3[hook]!.entries())
        expect(value - at0[hook]![i]!).toBeCloseTo(3 * row[i % dModel]!, 4);
    }
  });

  test("leaves clean tokens, losses, shorter runs and memory as they should be", async () => {
    const every = withSae(model, crosscoder, { cleanTokens: tokens.flat() });
    expect(await logits(every.forward(tokens))).toEqual(await logits(model.forward(tokens)));
    const neutral = withSae(model, crosscoder, { errorTerm: true });
    using losses = await neutral.loss(tokens);
    using expected = await model.loss(tokens);
    expect(largestDifference(await losses.readFloat32(), await expected.readFloat32())).toBeLessThan(1e-4);
    // between its hook points: the first reconstruction is there
    const short = await logits(withSae(model, crosscoder).forward(tokens, { stopAtLayer: 1 }));
    expect(short).toEqual((await placed(withSae(model, crosscoder)))[0]);
    const before = await reachableBytes(device);
    (await neutral.forward(tokens, { stopAtLayer: 1 })).dispose();
    const failing = { name: `${hooks[1]}.hook_sae_recons`, hook: () => Promise.reject(new Error("no")) };
    await expect(neutral.forward(tokens, { hooks: [failing] })).rejects.toThrow("no");
    await device.synchronize();
    expect(device.memory().currentBytes).toBe(before);
  });
});
