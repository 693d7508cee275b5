import { readFile } from "node:fs/promises";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type NextTokenMeasure, singleToken } from "../../lib/attribution/nextToken.js";
import type { Device } from "../../lib/engine/device.js";
import type { HookedTransformer } from "../../lib/models/hookedTransformer.js";
import { activationPatching } from "../../lib/patching/activationPatching.js";
import { patchingSweep } from "../../lib/patching/patchingSweep.js";
import type { Patch } from "../../lib/patching/patchRows.js";
import type { PromptPair } from "../../lib/patching/promptPair.js";
import { openTinyModel } from "../analysis/tinyModel.js";

let device: Device;
let model: HookedTransformer;
let pair: PromptPair;
let metric: NextTokenMeasure;

const tokens = (text: string): number[] => [model.config.bosTokenId!, ...model.tokenizer.encode(text)];

beforeAll(async () => {
  ({ device, model } = await openTinyModel());
  pair = {
    clean: tokens("The little girl was happy, because"),
    corrupted: tokens("The little boy was happy, because"),
  };
  metric = {
    kind: "logit-difference",
    token: singleToken(model.tokenizer, " she"),
    against: singleToken(model.tokenizer, " he"),
  };
});

afterAll(async () => {
  model.dispose();
  await device.close();
});

const error = (found: number, expected: number): number => Math.abs(found - expected);

describe("against TransformerLens", () => {
  interface Golden {
    readonly clean: string;
    readonly corrupted: string;
    readonly cleanScore: number;
    readonly corruptedScore: number;
    readonly scores: Readonly<Record<string, readonly (readonly number[])[]>>;
    readonly headScores: Readonly<Record<string, readonly (readonly number[])[]>>;
    readonly zByPositionAndHead: readonly (readonly (readonly number[])[])[];
  }
  let golden: Golden;

  beforeAll(async () => {
    golden = JSON.parse(await readFile(new URL("../fixtures/patching/patching.json", import.meta.url), "utf8"));
  });

  function expectClose(found: readonly (readonly number[])[], scores: readonly (readonly number[])[]): void {
    const scale = golden.cleanScore - golden.corruptedScore;
    expect(found.map(({ length }) => length)).toEqual(scores.map(({ length }) => length));
    found.forEach((row, i) => {
      row.forEach((effect, j) => {
        expect(error(effect, (scores[i]![j]! - golden.corruptedScore) / scale)).toBeLessThan(1e-5);
      });
    });
  }

  test("every layer and position of what enters a block, of attention and of the MLP gives its numbers", async () => {
    const components = Object.keys(golden.scores);
    const { maps, clean, corrupted, forwardPasses } = await patchingSweep(components, "position", {
      model,
      pair: { clean: tokens(golden.clean), corrupted: tokens(golden.corrupted) },
      metric,
    });
    expect(error(clean, golden.cleanScore)).toBeLessThan(3e-5);
    expect(error(corrupted, golden.corruptedScore)).toBeLessThan(3e-5);
    expect(forwardPasses).toBe(3 + 3 * 4 * 8);
    expect(maps).toHaveLength(3);
    components.forEach((component, index) => {
      expectClose(maps[index]!.effects, golden.scores[component]!);
    });
    expect(maps[0]!.columns.map((column) => column.trim())).toContain("girl/boy");
  });

  test("every head's queries, keys, values, patterns and outputs, too", async () => {
    const components = Object.keys(golden.headScores);
    const { maps } = await patchingSweep(components, "head", { model, pair, metric });
    components.forEach((component, index) => {
      expectClose(maps[index]!.effects, golden.headScores[component]!);
    });
    const byPosition = await patchingSweep(["z"], "head-and-position", { model, pair, metric, batchSize: 7 });
    expectClose(
      byPosition.maps[0]!.effects,
      golden.zByPositionAndHead.flatMap((layer) =>
        Array.from({ length: 6 }, (_, head) => layer.map((positions) => positions[head]!)),
      ),
    );
  });
});

describe("closed forms", () => {
  test("all of the last residual stream is the whole difference, in both directions; the prompts' own activations are none of it", async () => {
    const last = "blocks.3.hook_resid_post";
    for (const direction of ["denoising", "noising"] as const) {
      const { scores, effects, clean, corrupted } = await activationPatching(
        [{ hook: last }, { hook: last, positions: [7] }, { hook: last, positions: [0, 1, 2, 3, 4, 5, 6] }],
        { model, pair, metric, direction, batchSize: 1 },
      );
      const [base, source] = direction === "denoising" ? [corrupted, clean] : [clean, corrupted];
      expect(scores[0]).toBe(source);
      expect(scores[1]).toBe(source);
      expect(scores[2]).toBe(base);
      expect(Array.from(effects, Math.abs)).toEqual([1, 1, 0]);
    }
  });

  test("where the prompts are equal, a patch changes nothing", async () => {
    const patches: readonly Patch[] = model.hookNames
      .filter((name) => model.hookShape(name)[1] === "pos")
      .map((hook) => ({ hook, positions: [0, 1, 2] }));
    const { effects } = await activationPatching(patches, { model, pair, metric });
    for (const effect of effects) expect(Math.abs(effect)).toBeLessThan(1e-5);
  });

  test("every hook point can be patched, and all hooks that the next logits depend on alone restore the clean run", async () => {
    const hooks = model.hookNames.filter((name) => name !== "hook_pos_embed");
    const { effects } = await activationPatching(
      hooks.map((hook) => ({ hook })),
      { model, pair, metric },
    );
    const at = (hook: string): number => effects[hooks.indexOf(hook)]!;
    for (const hook of [
      "hook_embed",
      ...[0, 1, 2, 3].flatMap((layer) => [`blocks.${layer}.hook_resid_pre`, `blocks.${layer}.hook_resid_post`]),
      "blocks.3.hook_resid_mid",
      "ln_final.hook_normalized",
    ]) {
      expect(error(at(hook), 1)).toBeLessThan(1e-5);
    }
    expect(new Set(effects).size).toBeGreaterThan(20);
  });

  test("denoising and noising of complementary parts of a stream add up to 1", async () => {
    // Whatever the logits are of the last stream: one run with the clean last position is the other with it left alone.
    const hook = "blocks.3.hook_resid_pre";
    const others = [0, 1, 2, 3, 4, 5, 6];
    const denoised = await activationPatching([{ hook, positions: [7] }], { model, pair, metric });
    const noised = await activationPatching([{ hook, positions: others }], {
      model,
      pair,
      metric,
      direction: "noising",
    });
    expect(error(denoised.effects[0]! + noised.effects[0]!, 1)).toBeLessThan(1e-5);
  });
});

test("effects do not depend on how many runs go through the model together, and progress is told", async () => {
  const patches = [0, 1, 2, 3].map((layer) => ({ hook: `blocks.${layer}.hook_attn_out` }));
  const seen: string[] = [];
  const one = await activationPatching(patches, {
    model,
    pair,
    metric,
    batchSize: 1,
    onProgress: ({ patches: done, of }) => seen.push(`${done}/${of}`),
  });
  expect(seen).toEqual(["1/4", "2/4", "3/4", "4/4"]);
  const all = await activationPatching(patches, { model, pair, metric, batchSize: 3 });
  all.effects.forEach((effect, i) => {
    expect(error(effect, one.effects[i]!)).toBeLessThan(1e-5);
  });
});

test("the KL divergence is 0 for the clean run, and any function of the logits is a metric", async () => {
  const patches = [{ hook: "blocks.3.hook_resid_post" }, { hook: "blocks.2.hook_attn_out" }];
  const kl = await activationPatching(patches, { model, pair, metric: { kind: "kl-divergence" }, batchSize: 1 });
  expect(kl.clean).toBe(0);
  expect(kl.corrupted).toBeGreaterThan(0.5);
  expect(kl.scores[0]).toBe(0);
  expect(kl.scores[1]).toBeGreaterThan(0);
  // the logit of " she" at the last position, read by hand
  const she = singleToken(model.tokenizer, " she");
  const own = await activationPatching(patches, {
    model,
    pair,
    batchSize: 1,
    metric: async (logits) => {
      const [batch, positions, vocabulary] = logits.shape as [number, number, number];
      const values = await logits.readFloat32();
      return Array.from({ length: batch }, (_, i) => values[((i + 1) * positions - 1) * vocabulary + she]!);
    },
  });
  const probability = await activationPatching(patches, { model, pair, metric: { kind: "probability", token: she } });
  expect(own.clean).toBeGreaterThan(own.corrupted);
  expect(own.effects[0]).toBe(1);
  expect(probability.clean).toBeGreaterThan(0.5);
  expect(probability.effects[1]).toBeGreaterThan(0.5);
});

test("prompts of different lengths are patched where they are aligned", async () => {
  const longer: PromptPair = {
    clean: tokens("The girl was happy, because"),
    corrupted: tokens("The little boy was happy, because"),
    aligned: [
      [0, 0],
      [1, 1],
      [2, 3],
      [3, 4],
      [4, 5],
      [5, 6],
      [6, 7],
    ],
  };
  const { effects } = await activationPatching(
    [
      { hook: "hook_embed", positions: [2] },
      { hook: "hook_embed", positions: [1, 3] },
      { hook: "blocks.3.hook_resid_post", positions: [6] },
    ],
    { model, pair: longer, metric, batchSize: 1 },
  );
  expect(effects[0]).toBeGreaterThan(0.7);
  expect(Math.abs(effects[1]!)).toBeLessThan(1e-5);
  expect(effects[2]).toBe(1);
});

describe("what cannot be patched is refused", () => {
  const run = (patches: readonly Patch[], changes: Partial<PromptPair> = {}): Promise<unknown> =>
    activationPatching(patches, { model, pair: { ...pair, ...changes }, metric });
  const hook = "blocks.1.hook_resid_pre";

  test("prompts of different lengths, and alignments that do not exist", async () => {
    const longer = tokens("The very little boy was happy, because");
    await expect(run([{ hook }], { corrupted: longer })).rejects.toMatchObject({
      code: "ERR_INVALID_ARGUMENT",
      message: expect.stringContaining("the clean prompt has 8 tokens, the corrupted one 9"),
    });
    for (const [aligned, message] of [
      [[], "no positions are aligned"],
      [[[8, 0]], "the clean prompt has positions 0 to 7, found 8"],
      [[[0, 9]], "the corrupted prompt has positions 0 to 8, found 9"],
      [
        [
          [1, 1],
          [1, 2],
        ],
        "position 1 of the clean prompt is named twice",
      ],
    ] as const) {
      await expect(run([{ hook }], { corrupted: longer, aligned })).rejects.toThrow(message);
    }
    const aligned = [[1, 1]] as const;
    await expect(run([{ hook: "blocks.0.attn.hook_pattern" }], { corrupted: longer, aligned })).rejects.toThrow(
      "relates all positions to each other",
    );
    await expect(run([{ hook, positions: [2] }], { corrupted: longer, aligned })).rejects.toThrow(
      "position 2 of the clean prompt cannot be patched; those that can: 1",
    );
  });

  test("unknown hook points, positions and heads, and empty sets", async () => {
    await expect(run([{ hook: "blocks.1.hook_resid" }])).rejects.toMatchObject({
      code: "ERR_NOT_FOUND",
      message: expect.stringContaining("nearest:"),
    });
    for (const [patch, message] of [
      [{ hook, positions: [] }, "names no positions"],
      [{ hook, positions: [8] }, "position 8 of the clean prompt cannot be patched"],
      [{ hook, heads: [0] }, "and no heads"],
      [{ hook: "blocks.1.attn.hook_z", heads: [] }, "names no heads"],
      [{ hook: "blocks.1.attn.hook_z", heads: [6] }, "has 6 heads, numbered 0 to 5, found 6"],
    ] as const) {
      await expect(run([patch])).rejects.toMatchObject({
        code: "ERR_INVALID_ARGUMENT",
        message: expect.stringContaining(message),
      });
    }
    await expect(run([])).rejects.toThrow("no patches");
    await expect(run([{ hook }], { clean: [] })).rejects.toThrow("the clean prompt has no tokens");
    await expect(patchingSweep(["resid_pre"], "head", { model, pair, metric })).rejects.toThrow("and no heads");
    await expect(patchingSweep([], "position", { model, pair, metric })).rejects.toThrow("no components");
  });

  test("prompts that the metric does not tell apart, metrics that are no numbers, and an aborted sweep", async () => {
    await expect(run([{ hook }], { corrupted: pair.clean })).rejects.toThrow("no difference there is nothing to trace");
    const options = { model, pair };
    await expect(activationPatching([{ hook }], { ...options, metric: () => [Number.NaN] })).rejects.toMatchObject({
      code: "ERR_NON_FINITE",
    });
    await expect(activationPatching([{ hook }], { ...options, metric: () => [] })).rejects.toMatchObject({
      code: "ERR_SHAPE_MISMATCH",
    });
    await expect(activationPatching([{ hook }], { ...options, metric, batchSize: 0 })).rejects.toThrow("batchSize");
    const controller = new AbortController();
    const aborted = activationPatching([{ hook }, { hook }], {
      ...options,
      metric,
      batchSize: 1,
      signal: controller.signal,
      onProgress: () => controller.abort(),
    });
    await expect(aborted).rejects.toMatchObject({ code: "ERR_ABORTED" });
  });
});
