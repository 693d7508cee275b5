import { afterAll, beforeAll, expect, test } from "vitest";
import type { Device } from "../../lib/engine/device.js";
import type { Example } from "../../lib/interpretation/examples.js";
import { surprisalScore } from "../../lib/interpretation/surprisal.js";
import type { HookedTransformer } from "../../lib/models/hookedTransformer.js";
import { openTinyModel } from "../analysis/tinyModel.js";

let device: Device;
let model: HookedTransformer;

beforeAll(async () => {
  ({ device, model } = await openTinyModel());
});

afterAll(() => device.close());

function example(text: string): Example {
  const tokens = Int32Array.from(model.tokenizer.encode(text));
  return { document: 0, start: 0, tokens, activations: new Float32Array(tokens.length), peak: 0 };
}

test("the score is the ROC area of the losses' fall behind the explanation, computed one text at a time", async () => {
  const examples = {
    active: [" The old man went home to his wife.", " He said that the old man was tired."].map(example),
    silent: [" The sea was calm.", " She looked at the door and laughed, for it was late."].map(example),
  };
  const explanation = "words about an old man";
  const score = await surprisalScore(explanation, examples, { model });
  const lossOf = async (before: readonly number[], { tokens }: Example): Promise<number> => {
    using logits = await model.forward([[...before, ...tokens]]);
    const values = await logits.readFloat32();
    const width = model.config.vocabularySize;
    let total = 0;
    for (let i = 1; i < tokens.length; i++) {
      const row = values.subarray((before.length + i - 1) * width, (before.length + i) * width);
      const most = row.reduce((a, b) => Math.max(a, b));
      total += Math.log(row.reduce((sum, value) => sum + Math.exp(value - most), 0)) + most - row[tokens[i]!]!;
    }
    return total / (tokens.length - 1);
  };
  const bos = [model.config.bosTokenId!];
  const prefix = [...bos, ...model.tokenizer.encode(`${explanation}\n\n`)];
  const fall = async (item: Example): Promise<number> => (await lossOf(bos, item)) - (await lossOf(prefix, item));
  const [a, b, c, d] = [
    await fall(examples.active[0]!),
    await fall(examples.active[1]!),
    await fall(examples.silent[0]!),
    await fall(examples.silent[1]!),
  ];
  expect(score.activeReduction).toBeCloseTo((a + b) / 2, 3);
  expect(score.silentReduction).toBeCloseTo((c + d) / 2, 3);
  expect(score.score).toBe([a > c, a > d, b > c, b > d].filter(Boolean).length / 4);
  expect(score.isCut).toBe(false);
});

test("an explanation that gives the text away scores 1; one too long is cut and says so; one without room is refused", async () => {
  const text = " The old man went home to his wife and the king of the sea";
  const examples = { active: [example(text)], silent: [example(" She looked at the door, and laughed.")] };
  const told = await surprisalScore(`${text}.${text}`, examples, { model });
  expect(told).toMatchObject({ score: 1, isCut: false });
  expect(told.activeReduction).toBeGreaterThan(0.2);
  expect((await surprisalScore(text.repeat(20), examples, { model })).isCut).toBe(true);
  const long = { ...examples, active: [example(text.repeat(100))] };
  long.active[0] = { ...long.active[0]!, tokens: long.active[0]!.tokens.slice(0, model.config.contextSize - 8) };
  await expect(surprisalScore(text, long, { model })).rejects.toThrow(
    /leaves no room for an explanation before examples/,
  );
});
