import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from "vitest";
import type { Coalitions } from "../../lib/attribution/coalitions.js";
import { kernelShapley } from "../../lib/attribution/kernelShapley.js";
import { latentGame } from "../../lib/attribution/latentGame.js";
import { lime } from "../../lib/attribution/lime.js";
import { type NextTokenMeasure, singleToken, textScores } from "../../lib/attribution/nextToken.js";
import { owenValues } from "../../lib/attribution/owenValues.js";
import { textTree } from "../../lib/attribution/playerTree.js";
import { exactShapley, permutationShapley } from "../../lib/attribution/shapley.js";
import { tokenGame } from "../../lib/attribution/tokenGame.js";
import { WordPlayers } from "../../lib/attribution/words.js";
import type { Device } from "../../lib/engine/device.js";
import type { Tensor } from "../../lib/engine/tensor.js";
import type { HookedTransformer, NamedHook } from "../../lib/models/hookedTransformer.js";
import { Tokenizer } from "../../lib/models/tokenizer.js";
import { Sae } from "../../lib/sae/sae.js";
import { exactSae, HOOK, openTinyModel } from "../analysis/tinyModel.js";

let device: Device;
let model: HookedTransformer;
let bos: number;
let prompt: number[];
let difference: NextTokenMeasure;

beforeAll(async () => {
  ({ device, model } = await openTinyModel());
  bos = model.config.bosTokenId!;
  prompt = [bos, ...model.tokenizer.encode("The little girl was happy, because")];
  difference = {
    kind: "logit-difference",
    token: singleToken(model.tokenizer, " she"),
    against: singleToken(model.tokenizer, " he"),
  };
});

afterAll(async () => {
  model.dispose();
  await device.close();
});

/** The logits of the next token, read as they come. */
async function nextLogits(tokens: readonly number[], hooks: readonly NamedHook[] = []): Promise<Float32Array> {
  using logits = await model.forward([tokens], { hooks });
  return (await logits.readFloat32()).slice(-model.config.vocabularySize);
}

async function nextDifference(tokens: readonly number[], hooks: readonly NamedHook[] = []): Promise<number> {
  const logits = await nextLogits(tokens, hooks);
  return logits[singleToken(model.tokenizer, " she")]! - logits[singleToken(model.tokenizer, " he")]!;
}

function coalitions(...rows: readonly (readonly number[])[]): Coalitions {
  return { rows: rows.length, players: rows[0]!.length, present: Uint8Array.from(rows.flat()) };
}

test("texts score what the model says of the next token, whatever texts they come with", async () => {
  const texts = ["The boy said that", "Once", "The girl said that", "", "She"];
  const token = singleToken(model.tokenizer, " she");
  const probabilities = await textScores(model, { kind: "probability", token })(texts);
  const logProbabilities = await textScores(model, { kind: "log-probability", token })(texts);
  const differences = await textScores(model, difference)(texts);
  for (const [index, text] of texts.entries()) {
    const tokens = [bos, ...model.tokenizer.encode(text)];
    const logits = await nextLogits(tokens);
    const largest = Math.max(...logits);
    const total = logits.reduce((sum, logit) => sum + Math.exp(logit - largest), 0);
    const expected = logits[token]! - largest - Math.log(total);
    expect(logProbabilities[index]).toBeCloseTo(expected, 4);
    expect(probabilities[index]).toBeCloseTo(Math.exp(expected), 5);
    expect(differences[index]).toBeCloseTo(await nextDifference(tokens), 4);
  }
  const noBos = await textScores(model, difference, { prependBos: false })(["The girl"]);
  expect(noBos[0]).toBeCloseTo(await nextDifference(model.tokenizer.encode("The girl")), 4);
  await expect(textScores(model, difference, { prependBos: false })([""])).rejects.toThrow("a text of no tokens");
});

test("hooks change what texts score", async () => {
  const hooks = [{ name: HOOK, hook: (activation: Tensor) => device.zeros(activation.shape) }];
  const scores = await textScores(model, difference, { hooks })(["The girl said that"]);
  const tokens = [bos, ...model.tokenizer.encode("The girl said that")];
  expect(scores[0]).toBeCloseTo(await nextDifference(tokens, hooks), 4);
  expect(Math.abs(scores[0]! - (await nextDifference(tokens)))).toBeGreaterThan(0.1);
});

test("a text that is not one token is refused, with what it is and what was probably meant", () => {
  expect(() => singleToken(model.tokenizer, " happy because")).toThrow('is 2 tokens (" happy", " because")');
  expect(() => singleToken(model.tokenizer, "")).toThrow("is 0 tokens");
  expect(() => singleToken(model.tokenizer, "because")).toThrow('as a word within a text, " because", it is one');
  expect(() => singleToken(model.tokenizer, "qxz")).toThrow(/\("q", .* a next token is one; .* the first of these/);
});

test("a word is one token with its space, also where the tokenizer puts a space of its own before every text", async () => {
  const vocabulary = [" ", ".", "L", "i", "l", "y", " L", " Li", " Lil", " Lily"];
  const pieces = [...Array.from({ length: 259 }, (_, id) => `<${id}>`), ...vocabulary];
  const bytes = pieces.map((piece, id) => {
    const head = Buffer.alloc(8);
    head.writeFloatLE(id);
    head.writeInt32LE(piece.length, 4);
    return Buffer.concat([head, Buffer.from(piece)]);
  });
  const folder = await mkdtemp(join(tmpdir(), "monosem-tokenizer-"));
  onTestFinished(() => rm(folder, { recursive: true }));
  const path = join(folder, "tokenizer.bin");
  await writeFile(path, Buffer.concat([Buffer.alloc(4), ...bytes]));
  const tokenizer = await Tokenizer.load(path);
  expect(tokenizer.encode(" Lily")).toHaveLength(2);
  for (const text of [" Lily", "Lily"]) expect(tokenizer.tokenText(singleToken(tokenizer, text))).toBe(" Lily");
  expect(tokenizer.tokenText(singleToken(tokenizer, "."))).toBe(".");
  expect(() => singleToken(tokenizer, " Lil y")).toThrow('is 3 tokens (" Lil", " ", "y")');
});

describe("tokens of a prompt", () => {
  test("are left out, or another token stands in their place; BOS always stays", async () => {
    const { game, positions } = tokenGame(model, prompt, difference);
    expect(positions).toEqual(Array.from(prompt.keys()).slice(1));
    const players = positions.length;
    const only = (keep: (player: number) => boolean): number[] =>
      Array.from({ length: players }, (_, player) => Number(keep(player)));
    const rows = [only(() => true), only((player) => player !== 2), only(() => false)];
    const scores = await game(coalitions(...rows));
    const kept = rows.map((row) => prompt.filter((_, position) => position === 0 || row[position - 1] === 1));
    for (const [i, tokens] of kept.entries()) expect(scores[i]).toBeCloseTo(await nextDifference(tokens), 4);

    const mask = singleToken(model.tokenizer, ".");
    const masked = await tokenGame(model, prompt, difference, { mask }).game(coalitions(...rows));
    for (const [i, row] of rows.entries()) {
      const tokens = prompt.map((token, position) => (position === 0 || row[position - 1] === 1 ? token : mask));
      expect(masked[i]).toBeCloseTo(await nextDifference(tokens), 4);
    }
    expect(() => tokenGame(model, [bos], difference)).toThrow("no tokens to attribute to");
  });

  test("get values that add up, by every estimator, and the girl is why it says she", async () => {
    const { game, positions } = tokenGame(model, prompt, difference);
    const players = positions.length;
    const girl = positions.findIndex((position) => model.tokenizer.tokenText(prompt[position]!) === " girl");
    const tree = textTree(positions.map((position) => model.tokenizer.tokenText(prompt[position]!)));
    const exact = await exactShapley(game, players);
    const kernel = await kernelShapley(game, players);
    expect(Math.max(...exact.values.map((value, i) => Math.abs(value - kernel.values[i]!)))).toBeLessThan(1e-6);
    for (const { values, full, empty } of [
      exact,
      kernel,
      await permutationShapley(game, players, { permutations: 3 }),
      await owenValues(game, tree, { evaluations: 40 }),
    ]) {
      const sum = values.reduce((total, value) => total + value, 0);
      expect(Math.abs(sum - (full - empty))).toBeLessThan(1e-6);
      expect(values.indexOf(Math.max(...values))).toBe(girl);
    }
    expect(exact.full).toBeCloseTo(await nextDifference(prompt), 4);
    const { features } = await lime(game, players, { samples: 200, features: 3 });
    expect(features[0]).toBe(girl);
  });

  test("are the words of the text, where each word is a token", async () => {
    const text = "The girl said that";
    const words = new WordPlayers(text);
    const tokens = [bos, ...model.tokenizer.encode(text)];
    expect(words.words).toHaveLength(tokens.length - 1);
    const whole = coalitions([1, 1, 1, 1]);
    const byWords = await words.game(textScores(model, difference))(whole);
    expect(byWords[0]).toBeCloseTo((await tokenGame(model, tokens, difference).game(whole))[0]!, 5);
  });
});

/** A hook that adds to the activations `change(position, column)`, at the positions after BOS. */
function adding(name: string, change: (position: number, column: number, value: number) => number): NamedHook {
  return {
    name,
    hook: async (activation) => {
      const width = activation.shape.at(-1)!;
      const data = await activation.readFloat32();
      return device.tensor(
        data.map((value, i) => {
          const position = Math.floor(i / width);
          return position === 0 ? value : value + change(position, i % width, value);
        }),
        activation.shape,
      );
    },
  };
}

describe("latents of an SAE", () => {
  const metadata = { modelName: "tiny-gpt2", hookName: HOOK };

  test("with all of them the model is as it was, whatever the SAE reconstructs: its error stays", async () => {
    for (const scale of [1, 0.3]) {
      using sae = exactSae(device, 192, metadata, scale);
      const { game, latents } = await latentGame(model, sae, prompt, difference);
      expect(latents).toHaveLength(20);
      const scores = await game(coalitions(new Array(20).fill(1)));
      expect(scores[0]).toBeCloseTo(await nextDifference(prompt), 4);
    }
  });

  test("one that is switched off takes what it writes away, at every position but BOS", async () => {
    using sae = exactSae(device, 192, metadata, 0.5);
    // Latent 7 is the positive part of column 7, latent 199 the negative part.
    const { game, activations } = await latentGame(model, sae, prompt, difference, { latents: [199, 7, 60] });
    expect(activations[0]![0]).toBe(0);
    expect(activations.map(({ length }) => length)).toEqual([prompt.length, prompt.length, prompt.length]);
    const scores = await game(coalitions([1, 0, 1], [0, 0, 1], [1, 1, 1]));
    const positive = adding(HOOK, (_, column, value) => (column === 7 && value > 0 ? -0.5 * value : 0));
    const both = adding(HOOK, (_, column, value) => (column === 7 ? -0.5 * value : 0));
    expect(scores[0]).toBeCloseTo(await nextDifference(prompt, [positive]), 4);
    expect(scores[1]).toBeCloseTo(await nextDifference(prompt, [both]), 4);
    expect(Math.abs(scores[1]! - scores[2]!)).toBeGreaterThan(1e-3);
  });

  test("the strongest are those that write the most", async () => {
    using sae = exactSae(device, 192, metadata);
    const { latents, activations } = await latentGame(model, sae, prompt, difference, { strongest: 384 });
    const sums = activations.map((values) => values.reduce((sum, value) => sum + Math.abs(value), 0));
    expect(sums).toEqual([...sums].sort((a, b) => b - a));
    expect(sums.at(-1)).toBeGreaterThan(0);
    const four = await latentGame(model, sae, prompt, difference, { strongest: 4 });
    expect(four.latents).toEqual(latents.slice(0, 4));
    const { values, full, empty } = await permutationShapley(four.game, 4, { permutations: 2 });
    expect(Math.abs(values.reduce((sum, value) => sum + value, 0) - (full - empty))).toBeLessThan(1e-6);
  });

  test("an SAE with layer norm writes in units of each activation's deviation", async () => {
    using plain = exactSae(device, 192);
    const sae = new Sae({ ...plain.config, normalizeActivations: "layer-norm" }, plain.parameters, device, metadata);
    const { game } = await latentGame(model, sae, prompt, difference, { latents: [7, 199] });
    const scores = await game(coalitions([0, 0]));
    using activations = await model.activations([prompt], HOOK);
    const rows = await activations.readFloat32();
    // Without column 7, which it reconstructs to a 1e-5th, but for the mean that it puts back.
    const gone = adding(HOOK, (position, column, value) => {
      const row = rows.subarray(position * 192, (position + 1) * 192);
      return column === 7 ? row.reduce((sum, x) => sum + x, 0) / 192 - value : 0;
    });
    expect(scores[0]).toBeCloseTo(await nextDifference(prompt, [gone]), 3);
  });

  test("a transcoder's write where it writes, a crosscoder's at each of its hook points", async () => {
    using plain = exactSae(device, 192, metadata);
    const hookNameOut = "blocks.3.hook_mlp_out";
    const transcoder = new Sae({ ...plain.config, transcoder: true }, plain.parameters, device, {
      ...metadata,
      hookNameOut,
    });
    using activations = await model.activations([prompt], HOOK);
    const rows = await activations.readFloat32();
    const column7 = (position: number): number => rows[position * 192 + 7]!;
    const written = adding(hookNameOut, (position, column) => (column === 7 ? -column7(position) : 0));
    const off = await latentGame(model, transcoder, prompt, difference, { latents: [7, 199] });
    expect((await off.game(coalitions([0, 0])))[0]).toBeCloseTo(await nextDifference(prompt, [written]), 4);

    using both = exactSae(device, 384);
    const hookNames = ["blocks.1.hook_resid_post", HOOK];
    const crosscoder = new Sae(both.config, both.parameters, device, { modelName: "tiny-gpt2", hookNames });
    // Column 192 + 7 of the two side by side is column 7 of the second.
    const cross = await latentGame(model, crosscoder, prompt, difference, { latents: [199, 199 + 384] });
    const atHook = adding(HOOK, (position, column) => (column === 7 ? -column7(position) : 0));
    expect((await cross.game(coalitions([0, 0])))[0]).toBeCloseTo(await nextDifference(prompt, [atHook]), 4);
  });

  test("latents that are not there or named twice are refused", async () => {
    using sae = exactSae(device, 192, metadata);
    const play = (latents: number[]) => latentGame(model, sae, prompt, difference, { latents });
    await expect(play([384])).rejects.toThrow("there is no latent 384; the SAE has 384, numbered 0 to 383");
    await expect(play([3, 3])).rejects.toThrow("latent 3 is named twice");
    await expect(play([])).rejects.toThrow("no latents were named");
    await expect(latentGame(model, sae, [bos], difference)).rejects.toThrow("no latent of the SAE fires");
    await expect(latentGame(model, sae, prompt, difference, { strongest: 0 })).rejects.toThrow("strongest must be");
  });

  test("a signal stops the runs", async () => {
    using sae = exactSae(device, 192, metadata);
    const { game } = await latentGame(model, sae, prompt, difference, { strongest: 3 });
    const signal = AbortSignal.abort();
    await expect(exactShapley(game, 3, { signal })).rejects.toMatchObject({ code: "ERR_ABORTED" });
    await expect(game(coalitions([1, 1, 1]), signal)).rejects.toMatchObject({ code: "ERR_ABORTED" });
    await expect(
      tokenGame(model, prompt, difference).game(coalitions([1, 1, 1, 1, 1, 1, 1]), signal),
    ).rejects.toMatchObject({ code: "ERR_ABORTED" });
  });
});
