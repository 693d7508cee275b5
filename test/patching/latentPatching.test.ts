import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type NextTokenMeasure, singleToken } from "../../lib/attribution/nextToken.js";
import type { Device } from "../../lib/engine/device.js";
import type { HookedTransformer } from "../../lib/models/hookedTransformer.js";
import { activationPatching } from "../../lib/patching/activationPatching.js";
import { attributionPatching } from "../../lib/patching/attributionPatching.js";
import { type LatentPatch, latentPatching } from "../../lib/patching/latentPatching.js";
import type { PatchingOptions } from "../../lib/patching/patchedRuns.js";
import { attributionMap, latentPatchingSweep } from "../../lib/patching/patchingSweep.js";
import { Sae } from "../../lib/sae/sae.js";
import { exactSae, HOOK, openTinyModel } from "../analysis/tinyModel.js";

let device: Device;
let model: HookedTransformer;
let options: PatchingOptions;

const tokens = (text: string): number[] => [model.config.bosTokenId!, ...model.tokenizer.encode(text)];

beforeAll(async () => {
  ({ device, model } = await openTinyModel());
  const metric: NextTokenMeasure = {
    kind: "logit-difference",
    token: singleToken(model.tokenizer, " she"),
    against: singleToken(model.tokenizer, " he"),
  };
  const pair = {
    clean: tokens("The little girl was happy, because"),
    corrupted: tokens("The little boy was happy, because"),
  };
  options = { model, pair, metric };
});

afterAll(async () => {
  model.dispose();
  await device.close();
});

const kinds = {
  plain: {},
  "layer-norm": { normalizeActivations: "layer-norm" as const },
  transcoder: { transcoder: true, dOut: 192, applyBDecToInput: false },
};

function randomSae(kind: keyof typeof kinds = "plain"): Sae {
  const config = { architecture: "topk" as const, dIn: 192, dSae: 64, k: 8, applyBDecToInput: true, ...kinds[kind] };
  const hooks =
    kind === "transcoder"
      ? { hookName: "blocks.2.ln2.hook_normalized", hookNameOut: "blocks.2.hook_mlp_out" }
      : { hookName: HOOK };
  return Sae.create(config, device, 3, { metadata: { modelName: "tiny-gpt2", ...hooks } });
}

const allOf = (count: number): number[] => Array.from({ length: count }, (_, latent) => latent);

/** Pearson's. */
function correlation(a: ArrayLike<number>, b: ArrayLike<number>): number {
  const mean = (x: ArrayLike<number>): number => Array.from(x).reduce((sum, value) => sum + value, 0) / x.length;
  const [ma, mb] = [mean(a), mean(b)];
  const covariance = (x: ArrayLike<number>, mx: number, y: ArrayLike<number>, my: number): number =>
    Array.from(x).reduce((sum, value, i) => sum + (value - mx) * (y[i]! - my), 0);
  return covariance(a, ma, b, mb) / Math.sqrt(covariance(a, ma, a, ma) * covariance(b, mb, b, mb));
}

describe("patching latents", () => {
  test("with an SAE that reconstructs exactly, all latents are the whole activation", async () => {
    using sae = exactSae(device, 192, { hookName: HOOK });
    const positions = [...options.pair.clean.keys()];
    for (const direction of ["denoising", "noising"] as const) {
      const both = { ...options, direction };
      const latents = await latentPatching(
        [{ latents: allOf(384) }, ...positions.map((position) => ({ latents: allOf(384), positions: [position] }))],
        { ...both, sae },
      );
      const whole = await activationPatching(
        [{ hook: HOOK }, ...positions.map((position) => ({ hook: HOOK, positions: [position] }))],
        both,
      );
      whole.effects.forEach((effect, i) => {
        expect(Math.abs(latents.effects[i]! - effect)).toBeLessThan(1e-5);
      });
      expect(latents.forwardPasses).toBe(4 + 9);
    }
  });

  test("the SAE's error stays: with one that reconstructs nothing, latents do nothing, and silent ones never do", async () => {
    using nothing = exactSae(device, 192, { hookName: HOOK }, 0);
    const { scores, corrupted } = await latentPatching([{ latents: allOf(384) }], { ...options, sae: nothing });
    expect(scores[0]).toBe(corrupted);
    using sae = randomSae();
    const found = await latentPatching(
      ({ differences }) => [{ latents: allOf(64).filter((latent) => !differences.has(latent)) }],
      { ...options, sae },
    );
    expect(found.patches[0]!.latents.length).toBeGreaterThan(3);
    expect(found.scores[0]).toBe(found.corrupted);
  });

  test.each(["plain", "layer-norm", "transcoder"] as const)(
    "a latent takes its value of the other run, times the scale of this one (%s)",
    async (kind) => {
      using sae = randomSae(kind);
      const { hookName, hookNameOut } = sae.metadata;
      const { clean, corrupted } = options.pair;
      // by hand: decode the codes of the corrupted run with one column replaced by that of the clean run
      using xClean = await model.activations([clean], hookName!);
      using x = await model.activations([corrupted], hookName!);
      const dense = async (codes: ReturnType<Sae["encode"]>): Promise<Float32Array> => {
        using latents = device.kernels.densify(codes);
        codes.dispose();
        return await latents.readFloat32();
      };
      const [given, own] = [await dense(sae.encode(xClean)), await dense(sae.encode(x))];
      const latent = allOf(64).find((one) => given[7 * 64 + one] !== 0 && own[7 * 64 + one] !== given[7 * 64 + one])!;
      const changed = own.map((value, i) => (i % 64 === latent ? given[i]! : value));
      using before = sae.decodeDense(device.tensor(own, [8, 64]), x);
      using after = sae.decodeDense(device.tensor(changed, [8, 64]), x);
      using difference = device.kernels.add(after, before, { scale: -1 });
      using logits = await model.forward([corrupted], {
        hooks: [
          {
            name: hookNameOut ?? hookName!,
            hook: (activation) => {
              using shaped = difference.reshape(activation.shape);
              return device.kernels.add(activation, shaped);
            },
          },
        ],
      });
      const values = (await logits.readFloat32()).slice(-model.config.vocabularySize);
      const { token, against } = options.metric as { token: number; against: number };
      const { scores, corrupted: base } = await latentPatching([{ latents: [latent] }], { ...options, sae });
      expect(Math.abs(scores[0]! - base)).toBeGreaterThan(1e-4);
      expect(scores[0]!).toBeCloseTo(values[token]! - values[against]!, 4);
    },
  );

  test("a sweep shows each latent at all positions and at each, and nothing before the prompts differ", async () => {
    using sae = randomSae();
    const { maps, forwardPasses } = await latentPatchingSweep(5, { ...options, sae });
    const [map] = maps;
    expect(map!.columns.slice(0, 3)).toEqual(["all", "<|endoftext|>", "The"]);
    expect(map!.rows).toHaveLength(5);
    for (const row of map!.effects) expect(row.slice(1, 4)).toEqual([0, 0, 0]);
    const wholes = map!.effects.map((row) => Math.abs(row[0]!));
    expect(wholes).toEqual([...wholes].sort((a, b) => b - a));
    expect(forwardPasses).toBe(4 + 5 + map!.effects.flatMap((row) => row.slice(1)).filter((one) => one !== 0).length);
  });

  test("latents that the SAE does not have, or are named twice, or not at all, are refused", async () => {
    using sae = randomSae();
    const run = (patches: readonly LatentPatch[]): Promise<unknown> => latentPatching(patches, { ...options, sae });
    for (const [patch, message] of [
      [{ latents: [64] }, "there is no latent 64; the SAE has 64"],
      [{ latents: [1, 1] }, "latent 1 is named twice"],
      [{ latents: [] }, "no latents were named"],
      [{ latents: [1], positions: [] }, "names no positions"],
      [{ latents: [1], positions: [-1] }, "position -1 of the clean prompt cannot be patched"],
    ] as const) {
      await expect(run([patch])).rejects.toMatchObject({
        code: "ERR_INVALID_ARGUMENT",
        message: expect.stringContaining(message),
      });
    }
    await expect(run([])).rejects.toThrow("no patches");
    using other = exactSae(device, 192, { modelName: "gpt2", hookName: HOOK });
    await expect(latentPatching([{ latents: [0] }], { ...options, sae: other })).rejects.toMatchObject({
      code: "ERR_CONFIG",
    });
    await latentPatching([{ latents: [0] }], { ...options, sae: other, allowMismatch: true });
  });
});

describe("attribution patching", () => {
  test("is exact where what follows is linear, however many latents differ", async () => {
    const hookName = "ln_final.hook_normalized";
    for (const sae of [
      exactSae(device, 192, { hookName }),
      Sae.create({ architecture: "topk", dIn: 192, dSae: 64, k: 8, applyBDecToInput: true }, device, 1, {
        metadata: { hookName },
      }),
    ]) {
      using owned = sae;
      const effects: Map<number, number>[] = [];
      for (const direction of ["denoising", "noising"] as const) {
        const found = await attributionPatching({ ...options, direction, sae: owned });
        const patched = await latentPatching(
          found.latents.map(({ latent }) => ({ latents: [latent] })),
          { ...options, direction, sae: owned },
        );
        expect(found.latents.length).toBeGreaterThan(10);
        found.latents.forEach(({ effect }, i) => {
          expect(Math.abs(effect - patched.effects[i]!)).toBeLessThan(2e-4);
        });
        effects.push(new Map(found.latents.map(({ latent }, i) => [latent, patched.effects[i]!])));
      }
      // what is enough to restore a part of a sum is what is needed for it
      const [denoised, noised] = effects;
      expect(noised!.size).toBe(denoised!.size);
      for (const [latent, effect] of denoised!) expect(Math.abs(noised!.get(latent)! - effect)).toBeLessThan(2e-4);
    }
  });

  test("finds what patching finds, at three layers, by decoder rows and by axes, and says what it cost", async () => {
    for (const hookName of ["blocks.0.hook_resid_post", "blocks.1.hook_resid_post", HOOK]) {
      for (const sae of [
        exactSae(device, 192, { hookName }),
        Sae.create({ architecture: "topk", dIn: 192, dSae: 512, k: 16, applyBDecToInput: true }, device, 1, {
          metadata: { hookName },
        }),
      ]) {
        using owned = sae;
        const found = await attributionPatching({ ...options, sae: owned });
        const patched = await latentPatching(
          found.latents.map(({ latent }) => ({ latents: [latent] })),
          { ...options, sae: owned },
        );
        const estimates = found.latents.map(({ effect }) => effect);
        expect(correlation(estimates, patched.effects), hookName).toBeGreaterThan(0.97);
        const perPosition = new Map<number, number>();
        for (const { positions } of found.latents) {
          for (const position of positions.keys()) perPosition.set(position, (perPosition.get(position) ?? 0) + 1);
        }
        const probes = [...perPosition.values()].reduce((sum, count) => sum + Math.min(count, 192), 0);
        expect(found.forwardPasses).toBe(5 + 2 * probes);
      }
    }
  });

  test("its map lists the strongest latents, and the parts of each add up", async () => {
    using sae = randomSae();
    const map = attributionMap(await attributionPatching({ ...options, sae }), 4, options);
    expect(map.rows).toHaveLength(4);
    for (const [whole, ...parts] of map.effects) {
      expect(parts.reduce((sum, part) => sum + part, 0)).toBeCloseTo(whole!, 9);
    }
  });
});
