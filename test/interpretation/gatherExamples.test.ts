import { afterAll, beforeAll, expect, test } from "vitest";
import { Corpus } from "../../lib/activations/corpus.js";
import type { Device } from "../../lib/engine/device.js";
import { type DocumentContext, documentContexts } from "../../lib/interpretation/documentContexts.js";
import { gatherExamples } from "../../lib/interpretation/gatherExamples.js";
import type { HookedTransformer } from "../../lib/models/hookedTransformer.js";
import { exactSae, HOOK, openTinyModel } from "../analysis/tinyModel.js";

let device: Device;
let model: HookedTransformer;

beforeAll(async () => {
  ({ device, model } = await openTinyModel());
});

afterAll(() => device.close());

const documents = [
  "The old man said that he would go home. She was very happy, and he looked at her for a long time.",
  "Once there was a house by the sea, and nobody knew who had built it or why.",
  "",
  "He asked her name.",
  "It was late when they came back; the door stood open and the light was still on in the kitchen.",
];

async function contextsOf(
  texts: readonly string[],
  options: Parameters<typeof documentContexts>[2],
): Promise<DocumentContext[]> {
  const letters = { encode: (text: string) => Array.from(text, (letter) => letter.charCodeAt(0)) };
  const found: DocumentContext[] = [];
  for await (const context of documentContexts(Corpus.fromDocuments(texts), letters, options)) found.push(context);
  return found;
}

test("contexts hold one document each, in order and complete, up to the limit of tokens", async () => {
  const show = (contexts: DocumentContext[]): string[] =>
    contexts.map(({ document, start, tokens }) => `${document}@${start} ${String.fromCharCode(...tokens)}`);
  const found = await contextsOf(["abcdefg", "", "hi", "jklm"], { contextSize: 4, bos: 35, tokens: 100 });
  expect(show(found)).toEqual(["0@0 #abc", "0@3 #def", "0@6 #g", "2@0 #hi", "3@0 #jkl", "3@3 #m"]);
  expect(show(await contextsOf(["abcdefg", "hi"], { contextSize: 4, bos: undefined, tokens: 5 }))).toEqual([
    "0@0 abcd",
    "0@4 e",
  ]);
  const long = "word ".repeat(9000); // several pieces
  const pieces = await contextsOf([long, "x"], { contextSize: 1000, bos: undefined, tokens: 1e6 });
  const first = pieces.filter(({ document }) => document === 0);
  expect(first.map(({ start }) => start)).toEqual(first.map((_, index) => 1000 * index));
  expect(first.map(({ tokens }) => String.fromCharCode(...tokens)).join("")).toBe(long);
});

test("examples carry the activations that the model and the SAE give on their document alone", async () => {
  const sae = exactSae(device, 192, { hookName: HOOK });
  const latents = [5, 192 + 7];
  const options = { sae, model, latents, contextSize: 24, prependBos: true, tokens: 1000, windowTokens: 10 };
  const found = await gatherExamples({ ...options, corpus: Corpus.fromDocuments(documents), contextsPerBatch: 2 });
  expect(found.map(({ latent }) => latent)).toEqual(latents);
  let compared = 0;
  for (const [index, { train, test }] of found.entries()) {
    for (const { document, start, tokens, activations, peak } of [...train.strongest, ...test.strongest]) {
      const all = model.tokenizer.encode(documents[document]!);
      expect(all.slice(start, start + tokens.length)).toEqual([...tokens]);
      const contextStart = 23 * Math.floor(start / 23);
      const context = [model.config.bosTokenId!, ...all.slice(contextStart, contextStart + 23)];
      using rows = await model.activations([context], [HOOK]);
      const values = await rows.readFloat32();
      const [column, sign] = index === 0 ? [5, 1] : [7, -1];
      const expected = Array.from(tokens, (_, i) =>
        Math.max(0, sign * values[192 * (1 + start - contextStart + i) + column]!),
      );
      activations.forEach((value, i) => {
        expect(value).toBeCloseTo(expected[i]!, 4);
      });
      expect(peak).toBe(Math.max(...activations));
      compared += tokens.length;
    }
  }
  expect(compared).toBeGreaterThan(50);
});

test("how contexts are batched changes nothing", async () => {
  const sae = exactSae(device, 192, { hookName: HOOK });
  const options = { sae, model, latents: [0, 1, 2], contextSize: 32, prependBos: true, tokens: 1000, windowTokens: 16 };
  const corpus = Corpus.fromDocuments(documents);
  const one = await gatherExamples({ ...options, corpus, contextsPerBatch: 1 });
  const many = await gatherExamples({ ...options, corpus, contextsPerBatch: 16 });
  const places = (found: typeof one): unknown =>
    found.map(({ train, test }) =>
      [train, test].map((side) => [side.active, side.silent].map((list) => list.map((e) => [e.document, e.start]))),
    );
  expect(places(many)).toEqual(places(one));
});

test("one document cannot be explained from and tested on; impossible sizes and latents are named", async () => {
  const sae = exactSae(device, 192, { hookName: HOOK });
  const options = { sae, model, latents: [0], contextSize: 33, prependBos: true, tokens: 1000 };
  const corpus = Corpus.fromDocuments(documents);
  await expect(gatherExamples({ ...options, corpus: Corpus.fromDocuments(documents.slice(0, 1)) })).rejects.toThrow(
    /^the corpus: explanations are tested on other documents .* but the \d+ tokens read lie in too few; give several/,
  );
  await expect(gatherExamples({ ...options, corpus, tokens: 10 })).rejects.toMatchObject({ code: "ERR_CONFIG" });
  await expect(gatherExamples({ ...options, corpus, contextSize: 32 })).rejects.toThrow(
    "contexts of 32 tokens have no room for windows of 32 and BOS",
  );
  await expect(gatherExamples({ ...options, corpus, latents: [384] })).rejects.toThrow(
    "there is no latent 384: they are numbered 0 to 383",
  );
  await expect(gatherExamples({ ...options, corpus, windowTokens: 0 })).rejects.toMatchObject({
    code: "ERR_INVALID_ARGUMENT",
  });
});
