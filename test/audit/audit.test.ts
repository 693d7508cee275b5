import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { auditSae } from "../../lib/audit/audit.js";
import type { AuditFigure, AuditSection, AuditTopic } from "../../lib/audit/auditReport.js";
import type { Device } from "../../lib/engine/device.js";
import type { HookedTransformer } from "../../lib/models/hookedTransformer.js";
import { Sae } from "../../lib/sae/sae.js";
import { exactSae, HOOK, openTinyModel } from "../analysis/tinyModel.js";

let device: Device;
let model: HookedTransformer;
let contexts: Int32Array[];

const story =
  "One day Tom went home. Lily was very happy, and she had 3 dogs. The old man said that he would go, but he did not. ";

beforeAll(async () => {
  ({ device, model } = await openTinyModel());
  const tokens = model.tokenizer.encode(story.repeat(8));
  contexts = Array.from({ length: 10 }, (_, i) =>
    Int32Array.of(model.config.bosTokenId!, ...tokens.slice(19 * i, 19 * i + 31)),
  );
});
afterAll(() => device.close());

async function section(sae: Sae, topic: AuditTopic, more: object = {}): Promise<AuditSection> {
  const options = { sae, model, contexts, contextSize: 48, prependBos: true, topics: [topic], ...more };
  const [found] = await auditSae(options);
  expect(found!.topic).toBe(topic);
  return found!;
}

function figure({ figures }: AuditSection, name: string): AuditFigure {
  const found = figures.filter((one) => one.name.includes(name));
  expect(found, name).toHaveLength(1);
  return found[0]!;
}

/** An SAE of dense latents z = ReLU(x W_enc + b_enc), from rows of encoder and decoder. */
function rowsSae(
  rows: readonly { readonly encoder: Float32Array; readonly decoder: Float32Array; readonly bias?: number }[],
  hookName: string = HOOK,
): Sae {
  const dIn = rows[0]!.encoder.length;
  const matrix = (of: (row: (typeof rows)[number]) => Float32Array) =>
    device.tensor(Float32Array.from(rows.flatMap((row) => [...of(row)])), [rows.length, dIn]);
  const parameters = {
    encoder: matrix(({ encoder }) => encoder),
    encoderBias: device.tensor(
      Float32Array.from(rows, ({ bias = 0 }) => bias),
      [rows.length],
    ),
    decoder: matrix(({ decoder }) => decoder),
    decoderBias: device.zeros([dIn]),
  };
  const config = { architecture: "relu" as const, dIn, dSae: rows.length, applyBDecToInput: false };
  return new Sae(config, parameters, device, { hookName });
}

const unit = (width: number, at: number, size = 1): Float32Array =>
  Float32Array.from({ length: width }, (_, i) => (i === at ? size : 0));

describe("consistency", () => {
  test("of an SAE that is the identity is exact in every shape, and another token is another one", async () => {
    using sae = exactSae(device, 192, { hookName: HOOK });
    const found = await section(sae, "consistency");
    for (const name of ["repeated", "one text at a time", "beside other texts", "cut shorter"]) {
      const same = figure(found, `the same latents, ${name}`);
      expect(same.value).toBe(1);
      expect(same.baseline.value).toBeLessThan(0.2);
      expect(same.sample.count).toBe(name === "cut shorter" ? 150 : 310);
      const change = figure(found, `largest change of a reconstruction, ${name}`);
      expect(change.value).toBeLessThan(1e-5);
      expect(change.baseline.value).toBeGreaterThan(0.1);
    }
    expect(figure(found, "largest change of a reconstruction, repeated").value).toBe(0);
  });
});

describe("counterfactual stability", () => {
  test("of latents that see the token alone is perfect, where another token's is not", async () => {
    using sae = exactSae(device, 192, { hookName: "hook_embed" });
    const found = await section(sae, "counterfactuals");
    for (const edit of ["a sentence in front", "another name", "other numbers", "the first letter's case"]) {
      const kept = figure(found, `latents kept, ${edit}`);
      expect(kept.value, edit).toBeCloseTo(1, 6);
      expect(kept.baseline.value).toBeLessThan(0.5);
      expect(kept.sample.of).toMatch(/^tokens of \d+ pairs?$/);
      expect(figure(found, `cosine of the activations, ${edit}`).value).toBeCloseTo(1, 6);
    }
  });

  test("of latents that see what came before is less, and those that change most are named", async () => {
    using sae = exactSae(device, 192, { hookName: HOOK });
    const found = await section(sae, "counterfactuals");
    const kept = figure(found, "latents kept, a sentence in front");
    expect(kept.value).toBeLessThan(0.99);
    expect(kept.value).toBeGreaterThan(kept.baseline.value!);
    expect(found.cases[0]).toMatch(/^latent \d+ keeps [\d.]+% of its activation on \d+ tokens$/);
  });

  test("pairs of one's own are measured under the name of their edit", async () => {
    using sae = exactSae(device, 192, { hookName: "hook_embed" });
    const pairs = [{ edit: "mine", original: "He said no.", edited: "She said no." }];
    const found = await section(sae, "counterfactuals", { pairs });
    expect(figure(found, "latents kept, mine").value).toBeCloseTo(1, 6);
    expect(figure(found, "latents kept, mine").sample).toEqual({ count: 3, of: "tokens of 1 pair" });
  });
});

describe("effects on the model", () => {
  const reading = (write: (latent: number) => Float32Array): Sae =>
    rowsSae(Array.from({ length: 40 }, (_, latent) => ({ encoder: unit(192, latent), decoder: write(latent) })));

  test("a direction that every LayerNorm takes out has none, unlike a random one of the same norm", async () => {
    const constant = new Float32Array(192).fill(1);
    using sae = reading(() => constant);
    const found = await section(sae, "effects");
    const stronger = figure(found, "latents with more effect than a random direction");
    expect(stronger.baseline.name).toBe("no difference; by chance 33 to 67%");
    expect(stronger).toMatchObject({ value: 0, baseline: { value: 0.5 }, sample: { count: 32, of: "latents" } });
    const divergence = figure(found, "divergence in nats, against a random direction");
    expect(divergence.value).toBeLessThan(1e-6);
    expect(divergence.baseline.value).toBeGreaterThan(1e-4);
    expect(figure(found, "divergence in nats, against another latent").baseline.value).toBeLessThan(1e-6);
  });

  test("what the unembedding reads has more than a random one", async () => {
    const last = "blocks.3.hook_resid_post";
    // The unembedding is the embedding: rows of this raise the logit of their token.
    using embedding = await model.activations(contexts, "hook_embed");
    const rows = await embedding.readFloat32();
    using sae = rowsSae(
      Array.from({ length: 40 }, (_, latent) => ({
        encoder: unit(192, latent),
        decoder: rows.slice((7 * latent + 3) * 192, (7 * latent + 4) * 192),
      })),
      last,
    );
    const found = await section(sae, "effects");
    expect(figure(found, "latents with more effect than a random direction").value).toBeGreaterThan(0.8);
  });

  test("an SAE whose decoder rows have no fixed size is not measured, and the reason is said", async () => {
    const config = { architecture: "topk", dIn: 192, dSae: 20, k: 4, normalizeActivations: "layer-norm" } as const;
    using sae = Sae.create({ ...config, applyBDecToInput: true }, device, 0, { metadata: { hookName: HOOK } });
    const found = await section(sae, "effects");
    expect(found.figures).toEqual([]);
    expect(found.notMeasured).toContain("token by token");
  });
});

describe("planted latents", () => {
  /** Latents 0 to 19 in directions of their own; 20 and 21 copy latents 4 and 5; 22 to 24 never fire. */
  const planted = (): Sae => {
    const own = Array.from({ length: 20 }, (_, i) => ({ encoder: unit(192, i), decoder: unit(192, i) }));
    const dead = Array.from({ length: 3 }, (_, i) => ({
      encoder: unit(192, 50 + i),
      decoder: unit(192, 50 + i),
      bias: -1e6,
    }));
    return rowsSae([...own, own[4]!, own[5]!, ...dead]);
  };

  test("copies are found as near duplicates of decoder and encoder rows, with both latents named", async () => {
    using sae = planted();
    const found = await section(sae, "overlap");
    for (const what of ["decoder", "encoder"]) {
      expect(figure(found, `${what} rows with one of cosine 0.9`)).toMatchObject({
        value: 4 / 25,
        baseline: { value: 0 },
        sample: { count: 25 },
      });
    }
    expect(found.cases).toEqual([
      "decoder rows of latents 4 and 20: cosine 1.000",
      "decoder rows of latents 5 and 21: cosine 1.000",
    ]);
  });

  test("a random dictionary overlaps as much as random directions do", async () => {
    const config = { architecture: "topk" as const, dIn: 192, dSae: 300, k: 4, applyBDecToInput: true };
    using sae = Sae.create(config, device, 9, { metadata: { hookName: HOOK } });
    const largest = figure(await section(sae, "overlap"), "largest cosine with another decoder row");
    expect(largest.value).toBeCloseTo(largest.baseline.value!, 1);
    expect(largest.value).not.toBe(largest.baseline.value);
  });

  test("copies are the only clusters of what fires together", async () => {
    using sae = planted();
    const found = await section(sae, "fragmentation");
    const { clusters } = found.data as { clusters: number[][] };
    expect(clusters).toEqual([
      [4, 20],
      [5, 21],
    ]);
    expect(figure(found, "latents in the largest cluster").value).toBe(2);
    expect(figure(found, "pairs of like decoder rows")).toMatchObject({ value: 1, sample: { count: 2 } });
    expect(found.cases[0]).toMatch(/^latents 4, 20: strongest on .*\[.+\] · .*\[.+\]$/);
  });

  test("dead latents are counted and named, with what silence on so few tokens is worth", async () => {
    using sae = planted();
    const found = await section(sae, "firing");
    const dead = figure(found, "dead");
    expect(dead.value).toBeCloseTo(3 / 25, 12);
    expect(dead.baseline.value).toBeCloseTo((1 - 1e-4) ** 310, 12);
    expect((found.data as { dead: number[] }).dead).toEqual([22, 23, 24]);
  });
});

test("absorption of a model that cannot spell is not measured, and the reason has the numbers", async () => {
  using sae = exactSae(device, 192, { hookName: HOOK });
  const found = await section(sae, "absorption");
  expect(found.figures).toEqual([]);
  expect(found.notMeasured).toMatch(
    /probes find \d+ of 26 letters \(\d+ have words enough to be probed; F1 above 0\.6; the best is [01]\.\d\d\), 20 are needed/,
  );
});

test("a transcoder is audited where it writes, a crosscoder as far as that means anything", async () => {
  const [before, after] = ["blocks.1.hook_resid_post", "blocks.2.hook_resid_pre"]; // the same activations
  using plain = exactSae(device, 192);
  const config = { ...plain.config, transcoder: true };
  const transcoder = new Sae(config, plain.parameters, device, { hookName: before, hookNameOut: after });
  const topics: AuditTopic[] = ["consistency", "counterfactuals", "effects", "fragmentation", "absorption"];
  const options = { model, contexts: contexts.slice(0, 4), contextSize: 48, prependBos: true, topics };
  const sections = await auditSae({ ...options, sae: transcoder });
  for (const { topic, figures, notMeasured } of sections) {
    expect(figures.length > 0, topic).toBe(topic !== "absorption");
    if (topic === "absorption") expect(notMeasured).toContain("a transcoder's rows are of another hook point");
  }
  using crosscoder = exactSae(device, 384, { hookNames: [before, "blocks.3.hook_resid_post"] });
  const found = await auditSae({ ...options, topics: ["consistency", "effects"], sae: crosscoder });
  expect(figure(found[0]!, "the same latents, repeated").value).toBe(1);
  expect(found[1]!.notMeasured).toBe("a crosscoder writes at several hook points");
});

test("the same seed gives the same audit; every figure has a baseline and a sample", async () => {
  using sae = exactSae(device, 192, { hookName: HOOK });
  const topics: AuditTopic[] = ["counterfactuals", "effects", "overlap", "fragmentation", "firing"];
  const options = { sae, model, contexts, contextSize: 48, prependBos: true, topics, seed: 3 };
  const [one, two] = [await auditSae(options), await auditSae(options)];
  expect(one).toEqual(two);
  for (const { figures, definition } of one) {
    expect(definition.length).toBeGreaterThan(100);
    for (const { baseline, sample } of figures) {
      expect(baseline.name).not.toBe("");
      expect(sample.count).toBeGreaterThanOrEqual(0);
    }
  }
});

test("an audit of nothing and an aborted one are refused", async () => {
  using sae = exactSae(device, 192, { hookName: HOOK });
  const options = { sae, model, contextSize: 48, prependBos: true };
  await expect(auditSae({ ...options, contexts: [] })).rejects.toMatchObject({ code: "ERR_CONFIG" });
  const signal = AbortSignal.abort();
  await expect(auditSae({ ...options, contexts, signal })).rejects.toMatchObject({ code: "ERR_ABORTED" });
});
