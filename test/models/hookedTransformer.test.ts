import { copyFile, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Device } from "../../lib/engine/device.js";
import type { Tensor } from "../../lib/engine/tensor.js";
import { type SafetensorsArray, SafetensorsFile } from "../../lib/formats/safetensors.js";
import { HookedTransformer, type NamedHook } from "../../lib/models/hookedTransformer.js";
import { reachableBytes } from "../reachableBytes.js";
import { testDevice } from "../testDevice.js";
import { readReference, relativeError, tinyGpt2Directory } from "./tinyGpt2.js";

const tolerance = 1e-4;
let device: Device;
let model: HookedTransformer;
let reference: Map<string, SafetensorsArray>;
let tokens: number[][];

beforeAll(async () => {
  device = await Device.open(testDevice, { threads: 2 });
  model = await HookedTransformer.load(tinyGpt2Directory, device);
  reference = await readReference();
  const ids = Array.from(reference.get("input_ids")!.data as Int32Array);
  tokens = [ids.slice(0, 7), ids.slice(7)];
});

afterAll(async () => {
  model.dispose();
  await device.close();
});

const expected = (name: string): Float32Array => reference.get(name)!.data as Float32Array;

/** Reads and disposes. */
async function valuesOf(tensor: Tensor | Promise<Tensor>): Promise<Float32Array> {
  using resolved = await tensor;
  return await resolved.readFloat32();
}

/** The logits of each sequence's last position. */
async function lastLogits(hooks: readonly NamedHook[]): Promise<Float32Array> {
  const logits = await valuesOf(model.forward(tokens, { hooks }));
  return Float32Array.from([...logits.subarray(6 * 2048, 7 * 2048), ...logits.subarray(13 * 2048)]);
}

describe("against PyTorch", () => {
  test("logits agree, by the fused kernels", async () => {
    using logits = await model.forward(tokens);
    expect(logits.shape).toEqual([2, 7, 2048]);
    expect(relativeError(await logits.readFloat32(), expected("logits"))).toBeLessThan(tolerance);
  });

  test("every hook point agrees in value and shape, and so do the logits when all are hooked", async () => {
    const { output, cache } = await model.runWithCache(tokens);
    expect([...cache.keys()]).toEqual(model.hookNames);
    let compared = 0;
    for (const [name, activation] of cache) {
      const golden = reference.get(name);
      if (golden === undefined) continue;
      expect(activation.shape, name).toEqual(golden.shape);
      expect(relativeError(await activation.readFloat32(), golden.data as Float32Array), name).toBeLessThan(tolerance);
      compared += 1;
    }
    expect(compared).toBe(40);
    expect(relativeError(await valuesOf(output), expected("logits"))).toBeLessThan(tolerance);
    for (const activation of cache.values()) activation.dispose();
  });

  test("the loss is each token's cross-entropy, and 0 where no token follows", async () => {
    using losses = await model.loss(tokens);
    expect(losses.shape).toEqual([14]);
    const found = await losses.readFloat32();
    expect([found[6], found[13]]).toEqual([0, 0]);
    expect(relativeError([...found.subarray(0, 6), ...found.subarray(7, 13)], expected("losses"))).toBeLessThan(
      tolerance,
    );
  });

  test("replaced activations have the effect that they have in PyTorch", async () => {
    const zeros: NamedHook = { name: "blocks.1.hook_resid_post", hook: (x) => device.zeros(x.shape) };
    const doubled: NamedHook = { name: "blocks.2.ln1.hook_scale", hook: async (x) => device.kernels.scale(x, 2) };
    const firstKey: NamedHook = {
      name: "blocks.3.attn.hook_pattern",
      hook: (x) =>
        device.tensor(
          Float32Array.from({ length: x.size }, (_, i) => (i % 7 === 0 ? 1 : 0)),
          x.shape,
        ),
    };
    const error = async (hook: NamedHook, name: string): Promise<number> =>
      relativeError(await lastLogits([hook]), expected(name));
    expect(await error(zeros, "last_logits_resid_post_1_zero")).toBeLessThan(tolerance);
    expect(await error(doubled, "last_logits_scale_2_doubled")).toBeLessThan(tolerance);
    expect(await error(firstKey, "last_logits_pattern_3_first_key")).toBeLessThan(tolerance);
  });
});

describe("hooks", () => {
  test("replacing any activation by itself changes nothing", async () => {
    for (const name of model.hookNames) {
      const read = await valuesOf(model.runWithHooks(tokens, [{ name, hook: () => {} }]));
      const copied = await valuesOf(model.runWithHooks(tokens, [{ name, hook: (x) => device.kernels.scale(x, 1) }]));
      const same = await valuesOf(model.runWithHooks(tokens, [{ name, hook: (x) => x }]));
      expect(relativeError(copied, read), name).toBe(0);
      expect(relativeError(same, read), name).toBe(0);
      expect(relativeError(read, expected("logits")), name).toBeLessThan(tolerance);
    }
  });

  test("several hooks at one point run in order, each on the result of the one before, and may be asynchronous", async () => {
    const seen: number[] = [];
    const name = "blocks.0.mlp.hook_post";
    const look = async (x: Tensor): Promise<void> => {
      seen.push((await x.readFloat32())[0]!);
    };
    using _ = await model.runWithHooks(tokens, [
      { name, hook: look },
      { name, hook: (x) => device.kernels.scale(x, 2) },
      { name, hook: look },
      { name, hook: async (x) => device.kernels.scale(x, 2) },
      { name, hook: look },
    ]);
    expect(seen[1]).toBe(2 * seen[0]!);
    expect(seen[2]).toBe(4 * seen[0]!);
  });

  test("hooks run in order of execution and are told their hook point", async () => {
    const order: string[] = [];
    const hooks = model.hookNames.toReversed().map((name) => ({
      name,
      hook: (_: Tensor, at: string): void => {
        order.push(at);
      },
    }));
    using _ = await model.forward(tokens, { hooks });
    expect(order).toEqual(model.hookNames);
  });

  test("a replacement of another shape, dtype or device is refused, and so is what a hook throws", async () => {
    const name = "blocks.0.hook_resid_pre";
    const other = await Device.open(testDevice, { threads: 1 });
    const run = (hook: NamedHook["hook"]): Promise<Tensor> => model.forward(tokens, { hooks: [{ name, hook }] });
    await expect(run(() => device.zeros([14, 192]))).rejects.toMatchObject({
      code: "ERR_SHAPE_MISMATCH",
      message: expect.stringMatching(/blocks\.0\.hook_resid_pre has shape \[14, 192\], expected \[2, 7, 192\]/),
    });
    await expect(run(() => device.zeros([2, 7, 192], "i32"))).rejects.toMatchObject({ code: "ERR_DTYPE_MISMATCH" });
    await expect(run(() => other.zeros([2, 7, 192]))).rejects.toMatchObject({ code: "ERR_DEVICE_MISMATCH" });
    const failure = new Error("from the hook");
    await expect(run(() => Promise.reject(failure))).rejects.toBe(failure);
    await other.close();
  });

  test("an unknown hook point is refused before anything runs", async () => {
    const misspelt = { name: "blocks.1.hook_resid_pots", hook: () => {} };
    await expect(model.forward(tokens, { hooks: [misspelt] })).rejects.toMatchObject({
      code: "ERR_NOT_FOUND",
      message: expect.stringContaining("blocks.1.hook_resid_post"),
    });
    await expect(model.activations(tokens, "hook_resid_post")).rejects.toMatchObject({ code: "ERR_NOT_FOUND" });
  });
});

describe("logits of the last positions", () => {
  const readFinal: NamedHook = { name: "ln_final.hook_normalized", hook: () => {} };
  test.each([
    { hooked: "nothing", hooks: [] },
    { hooked: "the final norm", hooks: [readFinal] },
  ])("are those of a whole run, with $hooked hooked", async ({ hooks }) => {
    using logits = await model.forward(tokens, { hooks, lastPositionOnly: true });
    expect(logits.shape).toEqual([2, 1, 2048]);
    expect(relativeError(await logits.readFloat32(), await lastLogits([]))).toBeLessThan(1e-6);
    using single = await model.forward([[5]], { hooks, lastPositionOnly: true });
    expect(await single.readFloat32()).toEqual(await valuesOf(model.forward([[5]], { hooks })));
  });

  test("come of what a hook puts in place of all positions", async () => {
    const hooks: NamedHook[] = ["blocks.2.hook_resid_post", "ln_final.hook_scale"].map((name) => ({
      name,
      hook: (activation) => device.kernels.scale(activation, 0.5),
    }));
    using logits = await model.forward(tokens, { hooks, lastPositionOnly: true });
    expect(relativeError(await logits.readFloat32(), await lastLogits(hooks))).toBeLessThan(1e-6);
  });

  test("leave nothing on the device, and have no place in a run that stops early", async () => {
    const before = await reachableBytes(device);
    await valuesOf(model.forward(tokens, { hooks: [readFinal], lastPositionOnly: true }));
    expect(await reachableBytes(device)).toBe(before);
    await expect(model.forward(tokens, { lastPositionOnly: true, stopAtLayer: 1 })).rejects.toMatchObject({
      code: "ERR_INVALID_ARGUMENT",
    });
  });
});

describe("stopping early", () => {
  test("stopAtLayer gives the residual stream that enters the layer", async () => {
    for (const [layer, name] of [
      [0, "blocks.0.hook_resid_pre"],
      [2, "blocks.1.hook_resid_post"],
      [4, "blocks.3.hook_resid_post"],
    ] as const) {
      using residual = await model.forward(tokens, { stopAtLayer: layer });
      expect(residual.shape).toEqual([2, 7, 192]);
      expect(relativeError(await residual.readFloat32(), expected(name)), name).toBeLessThan(tolerance);
    }
  });

  test("a run that stops early caches what it reaches, and refuses hooks behind its end", async () => {
    const { output, cache } = await model.runWithCache(tokens, {
      stopAtLayer: 1,
      names: (name) => name.includes("resid"),
    });
    expect([...cache.keys()]).toEqual([
      "blocks.0.hook_resid_pre",
      "blocks.0.hook_resid_mid",
      "blocks.0.hook_resid_post",
    ]);
    for (const tensor of [output, ...cache.values()]) tensor.dispose();
    const names = ["blocks.1.hook_resid_pre"];
    await expect(model.runWithCache(tokens, { stopAtLayer: 1, names })).rejects.toThrow(/behind stopAtLayer 1/);
    for (const stopAtLayer of [-1, 5, 0.5]) {
      await expect(model.forward(tokens, { stopAtLayer })).rejects.toThrow(
        /stopAtLayer must be an integer from 0 to 4/,
      );
    }
  });

  test("activations at one hook point come as rows, equal to those of a whole run", async () => {
    const { output, cache } = await model.runWithCache(tokens);
    output.dispose();
    for (const [name, whole] of cache) {
      if (name.endsWith("attn_scores") || name.endsWith("pattern")) {
        await expect(model.activations(tokens, name)).rejects.toThrow(/no vector per token/);
        continue;
      }
      using rows = await model.activations(tokens, name);
      expect(rows.shape).toEqual([14, model.hookWidth(name)]);
      expect(relativeError(await rows.readFloat32(), await whole.readFloat32()), name).toBeLessThan(1e-5);
    }
    for (const activation of cache.values()) activation.dispose();
  });

  test("an aborted signal ends a run", async () => {
    const controller = new AbortController();
    const hook = (): void => controller.abort();
    const run = model.forward(tokens, {
      hooks: [
        { name: "hook_embed", hook },
        { name: "hook_pos_embed", hook },
      ],
      signal: controller.signal,
    });
    await expect(run).rejects.toMatchObject({ code: "ERR_ABORTED" });
    await expect(model.forward(tokens, { signal: AbortSignal.abort() })).rejects.toMatchObject({ code: "ERR_ABORTED" });
  });

  test.each<[string, (replacement: () => Tensor) => Promise<Tensor>]>([
    ["never settles", () => new Promise(() => {})],
    ["throws after the abort", (_) => later(() => Promise.reject(new Error("too late")))],
    ["returns a tensor after the abort", (replacement) => later(async () => replacement())],
    ["returns a tensor at the abort", async (replacement) => replacement()],
  ])("an aborted run does not wait for a hook that %s, and keeps nothing", async (_, work) => {
    await device.synchronize();
    const before = device.memory().currentBytes;
    const controller = new AbortController();
    const made: Tensor[] = [];
    const hook: NamedHook["hook"] = ({ shape }) => {
      controller.abort();
      return work(() => {
        made.push(device.zeros(shape));
        return made[0]!;
      });
    };
    const run = model.forward(tokens, { hooks: [{ name: "hook_embed", hook }], signal: controller.signal });
    await expect(run).rejects.toMatchObject({ code: "ERR_ABORTED" });
    await later(async () => undefined);
    for (const tensor of made) expect(() => device.kernels.scale(tensor, 1)).toThrow(/disposed/);
    await device.synchronize();
    expect(device.memory().currentBytes).toBe(before);
  });

  test("a hook that is at work when the signal fires is not waited for", async () => {
    const controller = new AbortController();
    const hook = (): Promise<void> => {
      setImmediate(() => controller.abort());
      return new Promise(() => {});
    };
    const hooks = [{ name: "hook_embed", hook }];
    const { signal } = controller;
    await expect(model.forward(tokens, { hooks, signal })).rejects.toMatchObject({ code: "ERR_ABORTED" });
  });
});

/** What comes of some work, once everything else has had its turn. */
async function later<T>(work: () => Promise<T>): Promise<T> {
  for (let turn = 0; turn < 3; turn++) await new Promise((resolve) => setImmediate(resolve));
  return await work();
}

describe("tokens", () => {
  test("ids may come as a tensor, and a sequence's result does not depend on the others", async () => {
    using ids = device.tensor(Int32Array.from(tokens.flat()), [2, 7]);
    expect(relativeError(await valuesOf(model.forward(ids)), await valuesOf(model.forward(tokens)))).toBe(0);
    const alone = await valuesOf(model.forward([Int32Array.from(tokens[1]!)]));
    expect(relativeError(alone, expected("logits").subarray(7 * 2048))).toBeLessThan(tolerance);
    const first = await valuesOf(model.forward([tokens[0]!.slice(0, 1)]));
    expect(relativeError(first, expected("logits").subarray(0, 2048))).toBeLessThan(tolerance);
  });

  test("ids outside the vocabulary are refused with sequence, position and id", async () => {
    await expect(
      model.forward([
        [0, 1],
        [2, 2048],
      ]),
    ).rejects.toMatchObject({
      code: "ERR_INVALID_ARGUMENT",
      message: expect.stringMatching(/2048 at position 1 of sequence 1 .* 0 to 2047/),
    });
    await expect(model.forward([[0, -1]])).rejects.toThrow(/-1 at position 1 of sequence 0/);
    await expect(model.forward([[0.5]])).rejects.toThrow(/0.5 at position 0/);
    await expect(model.forward([[2 ** 32]])).rejects.toThrow(/4294967296 at position 0/);
    await expect(model.forward([[Number.NaN]])).rejects.toThrow(/NaN at position 0/);
  });

  test("ragged, empty and too long batches are refused", async () => {
    await expect(model.forward([[0, 1], [2]])).rejects.toMatchObject({
      code: "ERR_SHAPE_MISMATCH",
      message: expect.stringContaining("sequence 0 has 2 tokens, sequence 1 has 1"),
    });
    await expect(model.forward([])).rejects.toMatchObject({ code: "ERR_INVALID_ARGUMENT" });
    await expect(model.forward([[]])).rejects.toMatchObject({ code: "ERR_INVALID_ARGUMENT" });
    await expect(model.forward([new Array(257).fill(1)])).rejects.toThrow(/257 tokens are longer than .* 256/);
    using flat = device.tensor(Int32Array.of(1, 2), [2]);
    await expect(model.forward(flat)).rejects.toMatchObject({ code: "ERR_SHAPE_MISMATCH" });
    using floats = device.tensor(Float32Array.of(1, 2), [1, 2]);
    await expect(model.forward(floats)).rejects.toMatchObject({ code: "ERR_DTYPE_MISMATCH" });
  });
});

test("a direction's logits are its product with W_U, centred and weighted as by the final LayerNorm", async () => {
  await using file = await SafetensorsFile.open(join(tinyGpt2Directory, "model.safetensors"));
  const unembedding = await file.readFloat32("transformer.wte.weight");
  const weight = await file.readFloat32("transformer.ln_f.weight");
  const direction = Float32Array.from({ length: 192 }, (_, i) => Math.sin(i) + 0.5);
  const mean = direction.reduce((sum, value) => sum + value, 0) / 192;
  const plain = Array.from({ length: 2048 }, (_, token) =>
    direction.reduce((sum, value, i) => sum + (value - mean) * weight[i]! * unembedding[token * 192 + i]!, 0),
  );
  using directions = device.tensor(Float32Array.from([...direction, ...direction.map((value) => -value)]), [2, 192]);
  const logits = await valuesOf(model.directionLogits(directions));
  expect(relativeError(logits, [...plain, ...plain.map((value) => -value)])).toBeLessThan(1e-5);
});

test("a model reads texts and token ids, one or several, and texts begin with BOS", async () => {
  const ids = model.tokenizer.encode("The king");
  const [bos, names] = [model.config.bosTokenId!, "blocks.1.hook_resid_post"];
  const plain = await valuesOf(model.forward([[bos, ...ids]]));
  using tensor = device.tensor(Int32Array.of(bos, ...ids), [1, ids.length + 1]);
  for (const input of ["The king", ["The king"], [bos, ...ids], Int32Array.of(bos, ...ids), tensor]) {
    expect(await valuesOf(model.forward(input))).toEqual(plain);
    expect(await valuesOf(model.loss(input))).toEqual(await valuesOf(model.loss([[bos, ...ids]])));
    const { output, cache } = await model.runWithCache(input, { names });
    expect(await valuesOf(output)).toEqual(plain);
    expect([...cache.keys()]).toEqual([names]);
    expect(await valuesOf(cache.get(names)!)).toEqual(await valuesOf(model.activations(input, names)));
  }
  expect(await valuesOf(model.forward(ids, { prependBos: true }))).toEqual(plain);
  expect(await valuesOf(model.forward("The king", { prependBos: false }))).toEqual(
    await valuesOf(model.forward([ids])),
  );
  await expect(model.forward(tensor, { prependBos: true })).rejects.toThrow(/prependBos/);
  await expect(model.forward(["The king said", "She"])).rejects.toMatchObject({ code: "ERR_SHAPE_MISMATCH" });
});

test("a model without a tokenizer takes token ids, and says what it lacks where a text is given", async () => {
  const folder = await mkdtemp(join(tmpdir(), "monosem-model-"));
  for (const name of ["config.json", "model.safetensors"]) {
    await copyFile(join(tinyGpt2Directory, name), join(folder, name));
  }
  using bare = await HookedTransformer.load(folder, device);
  expect(await valuesOf(bare.forward(tokens))).toEqual(await valuesOf(model.forward(tokens)));
  const options = { maxNewTokens: 5, temperature: 0 };
  const [ids] = await model.generate(tokens[0]!, options);
  expect(await bare.generate(tokens[0]!, options)).toEqual([ids]);
  for await (const { text } of bare.stream(tokens[0]!, options)) expect(text).toEqual([""]);
  const refused = { code: "ERR_NOT_FOUND", message: expect.stringMatching(/takes token ids only.*--tokenizer/) };
  await expect(bare.forward("The king")).rejects.toMatchObject(refused);
  await expect(bare.generate("The king")).rejects.toMatchObject(refused);
  expect(() => bare.tokenizer).toThrow(/takes token ids only/);
  await expect(bare.generate(tokens[0]!, { stopStrings: ["."] })).rejects.toThrow(/without a tokenizer/);
  await expect(HookedTransformer.load(folder, device, { tokenizer: folder })).rejects.toMatchObject({
    code: "ERR_NOT_FOUND",
    message: expect.stringContaining("tokenizer.json does not exist; a tokenizer is"),
  });
  await rm(folder, { recursive: true });
});

test("nothing stays on the device after a run, whatever way it ends", async () => {
  const name = "blocks.2.hook_resid_post";
  const before = await reachableBytes(device);
  for (let i = 0; i < 3; i++) {
    await valuesOf(model.forward(tokens));
    await valuesOf(model.activations(tokens, name));
    await valuesOf(model.loss(tokens));
    await valuesOf(
      model.runWithHooks(
        tokens,
        model.hookNames.map((at) => ({ name: at, hook: (x: Tensor) => device.kernels.scale(x, 1) })),
      ),
    );
    const { output, cache } = await model.runWithCache(tokens);
    for (const tensor of [output, ...cache.values()]) tensor.dispose();
    await model.runWithHooks(tokens, [{ name, hook: () => device.zeros([1]) }]).catch(() => {});
    await model.runWithHooks(tokens, [{ name, hook: () => Promise.reject(new Error()) }]).catch(() => {});
    await model.generate("The", { maxNewTokens: 4 });
    expect(await reachableBytes(device)).toBe(before);
  }
});

test.runIf(testDevice === "cpu")("the results do not depend on the number of threads", async () => {
  const all = await valuesOf(model.forward(tokens));
  for (const threads of [1, 3]) {
    const other = await Device.open("cpu", { threads });
    using same = await HookedTransformer.load(tinyGpt2Directory, other);
    expect(relativeError(await valuesOf(same.forward(tokens)), all)).toBe(0);
    await other.close();
  }
});

test("the shape of a hook point has named dimensions", () => {
  expect(model.hookShape("blocks.0.attn.hook_q")).toEqual(["batch", "pos", "head", "dHead"]);
  expect(model.hookWidth("blocks.0.attn.hook_q")).toBe(192);
  expect(model.hookWidth("blocks.0.mlp.hook_pre")).toBe(768);
});

test("the configuration says what the model is", () => {
  expect(model.config).toMatchObject({
    architecture: "gpt2",
    name: "tiny-gpt2",
    nLayers: 4,
    dModel: 192,
    nHeads: 6,
    dHead: 32,
    dMlp: 768,
    contextSize: 256,
    vocabularySize: 2048,
    bosTokenId: 0,
    eosTokenId: 0,
  });
});
