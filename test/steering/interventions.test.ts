import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { withSae } from "../../lib/analysis/hookedSaeTransformer.js";
import type { Device } from "../../lib/engine/device.js";
import type { HookedTransformer, NamedHook } from "../../lib/models/hookedTransformer.js";
import { Sae } from "../../lib/sae/sae.js";
import { type InterventionOptions, interventions, latentIntervention } from "../../lib/steering/interventions.js";
import { changeColumns, type LatentChange } from "../../lib/steering/latentChange.js";
import { exactSae, HOOK, openTinyModel } from "../analysis/tinyModel.js";

let device: Device;
let model: HookedTransformer;
let prompt: number[];

beforeAll(async () => {
  ({ device, model } = await openTinyModel());
  prompt = [model.config.bosTokenId!, ...model.tokenizer.encode("The little girl was happy, because")];
});

afterAll(async () => {
  model.dispose();
  await device.close();
});

const kinds = {
  topk: { architecture: "topk" as const, k: 8, applyBDecToInput: true },
  "layer-norm": {
    architecture: "topk" as const,
    k: 8,
    applyBDecToInput: true,
    normalizeActivations: "layer-norm" as const,
  },
  "constant-norm": {
    architecture: "topk" as const,
    k: 8,
    applyBDecToInput: true,
    normalizeActivations: "constant-norm" as const,
  },
  transcoder: { architecture: "topk" as const, k: 8, applyBDecToInput: false, transcoder: true, dOut: 192 },
};

function saeOf(kind: keyof typeof kinds): Sae {
  const hooks =
    kind === "transcoder"
      ? { hookName: "blocks.2.ln2.hook_normalized", hookNameOut: "blocks.2.hook_mlp_out" }
      : { hookName: HOOK };
  return Sae.create({ dIn: 192, dSae: 64, ...kinds[kind] }, device, 3, {
    metadata: { modelName: "tiny-gpt2", ...hooks },
  });
}

/** The hook point that the hook points inside an SAE are named after. */
const writesAt = ({ metadata }: Sae): unknown => metadata.hookNameOut ?? metadata.hookName;

async function logits(hooks: readonly NamedHook[], tokens: readonly number[] = prompt): Promise<Float32Array> {
  using result = await model.forward([tokens], { hooks });
  return await result.readFloat32();
}

function largestDifference(a: Float32Array, b: Float32Array): number {
  expect(a.length).toBe(b.length);
  return a.reduce((largest, value, i) => Math.max(largest, Math.abs(value - b[i]!)), 0);
}

const changes: readonly LatentChange[] = [
  { latent: [3, 17], add: 4 },
  { latent: 5, set: 2.5 },
  { latent: Array.from({ length: 20 }, (_, i) => 30 + i), scale: -0.5 },
  { latent: [17, 60, 61], clamp: [0.25, 3] },
];

describe.each(["topk", "layer-norm", "constant-norm", "transcoder"] as const)("latents of an SAE (%s)", (kind) => {
  test("changed in the activations are changed as in an SAE that stands in the model, error term or not", async () => {
    using sae = saeOf(kind);
    const name = `${writesAt(sae)}.hook_sae_acts_post`;
    const plain = await logits([]);
    for (const errorTerm of [true, false]) {
      const found = await logits(interventions(model, sae, changes, { errorTerm }));
      using expected = await withSae(model, sae, { errorTerm }).forward([prompt], {
        hooks: [{ name, hook: latentIntervention(changes) }],
      });
      expect(largestDifference(found, await expected.readFloat32())).toBeLessThan(2e-4);
      expect(largestDifference(found, plain)).toBeGreaterThan(0.1);
    }
  });

  test("that do not change, or change nowhere, leave the model's logits as they are, to the bit", async () => {
    using sae = saeOf(kind);
    const plain = await logits([]);
    for (const [same, options] of [
      [[{ latent: [1, 2, 3], scale: 1 }], {}],
      [[{ latent: [1, 2, 3], add: 0 }], {}],
      [[{ latent: [1, 2, 3], clamp: [Number.NEGATIVE_INFINITY, 1e6] }], {}],
      [changes, { positions: [prompt.length] }],
      [changes, { positions: () => false, errorTerm: false }],
    ] as const) {
      expect(largestDifference(await logits(interventions(model, sae, same, options)), plain)).toBe(0);
    }
  });

  test("at chosen positions change these, and nothing before them", async () => {
    using sae = saeOf(kind);
    const plain = await logits([]);
    const everywhere = await logits(interventions(model, sae, changes));
    const found = await logits(interventions(model, sae, changes, { positions: [4, 5, 6, 7] }));
    const row = (values: Float32Array, at: number): Float32Array => values.slice(at * 2048, (at + 1) * 2048);
    expect(largestDifference(found.slice(0, 4 * 2048), plain.slice(0, 4 * 2048))).toBe(0);
    expect(largestDifference(row(found, 4), row(plain, 4))).toBeGreaterThan(0.01);
    expect(largestDifference(found, everywhere)).toBeGreaterThan(0.01);
    const inSae = latentIntervention(changes, { positions: [4, 5, 6, 7] });
    using expected = await withSae(model, sae, { errorTerm: true }).forward([prompt], {
      hooks: [{ name: `${writesAt(sae)}.hook_sae_acts_post`, hook: inSae }],
    });
    expect(largestDifference(found, await expected.readFloat32())).toBeLessThan(2e-4);
  });
});

test("what each change does to a value, with an SAE whose latents are the activations themselves", async () => {
  using sae = exactSae(device, 192, { hookName: HOOK });
  const read = async (hooks: readonly NamedHook[]): Promise<Float32Array> => {
    let after: Promise<Float32Array> | undefined;
    await logits([
      ...hooks,
      {
        name: HOOK,
        hook: (activation) => {
          after = activation.readFloat32();
        },
      },
    ]);
    return await after!;
  };
  const x = await read([]);
  const list: readonly LatentChange[] = [
    { latent: 0, scale: 0 },
    { latent: 1, set: 7 },
    { latent: 2, add: -3 },
    { latent: 3, clamp: [0, 0.125] },
    { latent: 4, clamp: [0.5, Number.POSITIVE_INFINITY] },
  ];
  const expected = x.map((value, i) => {
    // latent i is the positive part of input i; the negative part stays
    const [positive, negative] = [Math.max(0, value), Math.max(0, -value)];
    switch (i % 192) {
      case 0:
        return -negative;
      case 1:
        return 7 - negative;
      case 2:
        return positive - 3 - negative;
      case 3:
        return Math.min(positive, 0.125) - negative;
      case 4:
        return Math.max(positive, 0.5) - negative;
      default:
        return value;
    }
  });
  for (const errorTerm of [true, false]) {
    expect(largestDifference(await read(interventions(model, sae, list, { errorTerm })), expected)).toBeLessThan(1e-4);
  }
});

test("a generation is steered at the positions named, past the prompt and with cached keys and values", async () => {
  using sae = saeOf("topk");
  const steering: readonly LatentChange[] = [{ latent: [3, 17], add: 8 }];
  const plain = (await model.generate([prompt], { maxNewTokens: 12, temperature: 0 }))[0]!;
  for (const positions of [undefined, [0, 3], (at: number) => at >= prompt.length] as const) {
    const options: InterventionOptions = { positions };
    const [found] = await model.generate([prompt], {
      maxNewTokens: 12,
      temperature: 0,
      hooks: interventions(model, sae, steering, options),
    });
    // One pass over all of it gives at each position the token that was generated there.
    const values = await logits(interventions(model, sae, steering, options), found);
    for (let at = prompt.length - 1; at < found!.length - 1; at++) {
      const row = values.slice(at * 2048, (at + 1) * 2048);
      expect(row.indexOf(Math.max(...row))).toBe(found![at + 1]);
    }
    if (typeof positions === "function") expect(found![prompt.length]).toBe(plain[prompt.length]);
    const inSae = await withSae(model, sae, { errorTerm: true }).generate([prompt], {
      maxNewTokens: 12,
      temperature: 0,
      hooks: [{ name: `${HOOK}.hook_sae_acts_post`, hook: latentIntervention(steering, options) }],
    });
    expect(inSae[0]).toEqual(found);
  }
  const strong = await model.generate([prompt], {
    maxNewTokens: 12,
    temperature: 0,
    hooks: interventions(model, sae, [{ latent: [3, 17], add: 40 }]),
  });
  expect(strong[0]).not.toEqual(plain);
});

test("changes that make no sense are refused", async () => {
  using sae = saeOf("topk");
  for (const [change, message] of [
    [{ latent: 64, add: 1 }, "there is no latent 64; the SAE has 64"],
    [{ latent: [], add: 1 }, "no latents were named"],
    [{ latent: [2, 2], add: 1 }, "latent 2 is named twice"],
    [{ latent: 1, add: Number.NaN }, "add must be a finite number, found the number NaN"],
    [{ latent: 1, set: Number.POSITIVE_INFINITY }, "set must be a finite number"],
    [{ latent: 1, clamp: [2, 1] }, "the lower one first, found 2 and 1"],
    [{ latent: 1, clamp: [Number.NaN, 1] }, "a clamp is two numbers"],
  ] as const) {
    expect(() => interventions(model, sae, [change])).toThrow(
      expect.objectContaining({ code: "ERR_INVALID_ARGUMENT", message: expect.stringContaining(message) }),
    );
  }
  expect(() => interventions(model, sae, [])).toThrow("no changes");
  expect(() => interventions(model, sae, changes, { positions: [] })).toThrow("none are chosen");
  expect(() => interventions(model, sae, changes, { hook: "blocks.1.hook_resid_post" })).toThrow("--allow-mismatch");
  using crosscoder = Sae.create(
    { architecture: "topk", dIn: 384, dSae: 64, k: 8, applyBDecToInput: false, hookWidths: [192, 192] },
    device,
    0,
    { metadata: { hookNames: [HOOK, "blocks.3.hook_resid_post"] } },
  );
  expect(() => interventions(model, crosscoder, changes)).toThrow(expect.objectContaining({ code: "ERR_UNSUPPORTED" }));
});

test("a clamp gives the bound itself, however far the value lies from it", async () => {
  const values = [1000, 1e5, -1e5, 3.3333, 0.05];
  using columns = device.tensor(Float32Array.from(values), [values.length, 1]);
  for (const clamp of [
    [Number.NEGATIVE_INFINITY, 0.001],
    [0.001, Number.POSITIVE_INFINITY],
    [0.01, 0.1],
  ] as const) {
    using changed = changeColumns(device.kernels, columns, [7], [{ latent: 7, clamp }]);
    const [lowest, highest] = clamp.map(Math.fround) as [number, number];
    const expected = values.map((value) => Math.min(highest, Math.max(lowest, Math.fround(value))));
    expect(Array.from(await changed.readFloat32())).toEqual(expected);
  }
});
