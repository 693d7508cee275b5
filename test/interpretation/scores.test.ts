import { expect, test } from "vitest";
import { ChatClient } from "../../lib/interpretation/chatClient.js";
import { type Interpretation, type InterpretOptions, interpretLatents } from "../../lib/interpretation/interpret.js";
import { auroc, pearson } from "../../lib/interpretation/statistics.js";
import { dataOf, explanation, fireExamples, judge, numbers, tokenText } from "./judges.js";
import { type MockAnswer, type MockRequest, says, startServer } from "./mockServer.js";

const ALL = ["detection", "fuzzing", "simulation"] as const;

async function interpret(
  answer: (request: MockRequest, index: number) => MockAnswer,
  options: Partial<InterpretOptions> = {},
): Promise<{ readonly interpretation: Interpretation; readonly requests: readonly MockRequest[] }> {
  const server = await startServer(answer);
  const client = new ChatClient({
    baseUrl: server.baseUrl,
    keyVariable: "MONOSEM_NO_SUCH_KEY",
    retries: 1,
    concurrency: 1, // one order of requests, so that random judges are reproducible

    firstDelay: 1,
  });
  const { interpretations } = await interpretLatents({
    judge: client,
    judgeModel: "mock",
    latents: [fireExamples(400)],
    tokenText,
    scorers: ALL,
    tested: 200,
    ...options,
  });
  return { interpretation: interpretations[0]!, requests: server.requests };
}

test("a perfect judge scores 1, an inverted one 0, a constant one 0.5", async () => {
  for (const [decide, yesNo, correlation] of [
    [(right: boolean) => right, 1, 1],
    [(right: boolean) => !right, 0, -1],
    [() => true, 0.5, 0],
    [() => false, 0.5, 0],
  ] as const) {
    const { interpretation } = await interpret(judge(decide));
    expect(interpretation.explanation).toEqual(explanation);
    expect(interpretation.unscored).toEqual({});
    const { detection, fuzzing, simulation } = interpretation.scores;
    expect([detection!.score, fuzzing!.score]).toEqual([yesNo, yesNo]);
    for (const { truePositives, falseNegatives, trueNegatives, falsePositives } of [detection!, fuzzing!]) {
      expect([truePositives + falseNegatives, trueNegatives + falsePositives]).toEqual([200, 200]);
    }
    // The strengths are not told, so that the correlation cannot be quite 1.
    if (correlation === 0) expect(simulation!.score).toBe(0);
    else expect(correlation * simulation!.score).toBeGreaterThan(0.85);
    expect(simulation).toMatchObject({ examples: 200, tokens: 1600, unanswered: 0 });
  }
});

test("a random judge scores 0.5 within four standard deviations", async () => {
  const random = numbers(1);
  const { interpretation } = await interpret(judge(() => random() < 0.5));
  const { detection, fuzzing, simulation } = interpretation.scores;
  // Of the mean of two shares of 200 fair coins.
  const deviation = Math.sqrt(0.25 / 200 / 2);
  for (const { score, truePositives, trueNegatives } of [detection!, fuzzing!]) {
    expect(Math.abs(score - 0.5)).toBeLessThan(4 * deviation);
    for (const count of [truePositives, trueNegatives]) expect(count % 200).not.toBe(0);
  }
  expect(Math.abs(simulation!.score)).toBeLessThan(4 / Math.sqrt(1600));
});

test("half of fuzzing's examples are marked rightly, half on as many inactive tokens", async () => {
  const { requests } = await interpret(
    judge((right) => right),
    { scorers: ["fuzzing"] },
  );
  const marked = requests
    .slice(1)
    .flatMap((request) => dataOf(request).values.slice(1) as { text: string }[])
    .map(({ text }) => [...text.matchAll(/«([^»]*)»/g)].map((match) => match[1]));
  expect(marked).toHaveLength(400);
  for (const tokens of marked) expect(tokens).toHaveLength(1);
  expect(marked.filter(([token]) => token === "fire")).toHaveLength(200);
});

test.each([
  ["a truncated reply", says('{"answers": [{"num', "length"), "truncated"],
  ["a refusal", says("no", "content_filter"), "refused"],
  ["prose", says("I am sorry, but I cannot help with that."), "not JSON"],
  ["broken JSON", says('{"answers": [{"number": 1, "answer": tru}]}'), "not JSON"],
  ["two objects", says('{"answers": []} or {"answers": []}'), "not JSON"],
  ["another form", says({ answers: [{ number: 1, answer: "yes" }] }), "not as asked"],
  ["too few answers", says({ answers: [{ number: 1, answer: true }] }), "not as asked"],
  ["an answer twice", says({ answers: [1, 1, 2, 3, 4].map((number) => ({ number, answer: true })) }), "not as asked"],
  ["an empty reply", says(""), "not JSON"],
] as const)(
  "%s leaves its examples unanswered: counted by reason, and as guesses in the score",
  async (_, bad, reason) => {
    const good = judge((right) => right);
    let asked = 0;
    const answer = (request: MockRequest): MockAnswer => {
      if (request.body.response_format?.json_schema?.name !== "answers") return good(request);
      asked += 1;
      return asked <= 2 ? bad : good(request);
    };
    const { interpretation } = await interpret(answer, { scorers: ["detection"], tested: 20, questionsPerRequest: 5 });
    const { score, unanswered, noAnswers, truePositives, trueNegatives, falsePositives, falseNegatives } =
      interpretation.scores.detection!;
    expect(noAnswers).toEqual({ [reason]: 2 });
    expect(unanswered.positive + unanswered.negative).toBe(10);
    expect(truePositives + unanswered.positive).toBe(20);
    expect(trueNegatives + unanswered.negative).toBe(20);
    expect([falsePositives, falseNegatives]).toEqual([0, 0]);
    expect(score).toBeCloseTo(1 - unanswered.positive / 80 - unanswered.negative / 80, 12);
  },
);

test("a judge that never answers scores 0.5 and 0, not nothing", async () => {
  const good = judge((right) => right);
  const { interpretation } = await interpret(
    (request) => (request.body.response_format?.json_schema?.name === "explanation" ? good(request) : says("no")),
    { tested: 20 },
  );
  const { detection, fuzzing, simulation } = interpretation.scores;
  expect([detection!.score, fuzzing!.score, simulation!.score]).toEqual([0.5, 0.5, 0]);
  expect(detection!.noAnswers).toEqual({ "not JSON": 4 });
  expect(simulation).toMatchObject({ examples: 20, unanswered: 20, noAnswers: { "not JSON": 20 } });
});

test("simulated values that are not one per token, or out of range, are no answer", async () => {
  const good = judge((right) => right);
  const lists = [[1, 2], new Array(8).fill(11), new Array(8).fill(-1), new Array(9).fill(0)];
  let asked = 0;
  const { interpretation } = await interpret(
    (request) => {
      if (request.body.response_format?.json_schema?.name !== "values") return good(request);
      const list = lists[asked++];
      return list === undefined ? good(request) : says({ values: list });
    },
    { scorers: ["simulation"], tested: 20 },
  );
  const { score, unanswered, noAnswers } = interpretation.scores.simulation!;
  expect(unanswered).toBe(4);
  expect(noAnswers).toEqual({ "not as asked": 4 });
  expect(score).toBeGreaterThan(0.3);
});

test("judges that cannot be held to JSON may think, fence and speak around one object", async () => {
  const wrap = [
    (json: string) => `<think>Is it {fire}?</think>\n${json}`,
    (json: string) => `\`\`\`json\n${json}\n\`\`\``,
    (json: string) => `Here you are:\n${json}\nI hope that helps.`,
  ];
  for (const around of wrap) {
    const { interpretation } = await interpret(() => says(around(JSON.stringify(explanation))), { scorers: [] });
    expect(interpretation.explanation).toEqual(explanation);
  }
});

test("a latent without a usable explanation says why; one of too few examples is not asked about", async () => {
  for (const [answer, why] of [
    [says("I refuse"), "the judge's reply was not JSON: I refuse"],
    [says("no".repeat(1000)), new RegExp(`^the judge's reply was not JSON: ${"no".repeat(150)}$`)],
    [
      says({ ...explanation, confidence: 7 }),
      /^the judge's reply was not as asked: confidence: must be at most 1 \(found 7\)\. It said: \{"name"/,
    ],
    [
      says({ name: "a word" }),
      /^the judge's reply was not as asked: explanation: must be text \(missing\); confidence: /,
    ],
    [says({ ...explanation, name: "  " }), /^the judge's reply was not as asked/],
    [{ status: 500, body: { error: "out of memory" } }, "the server gave no reply: HTTP 500: out of memory"],
  ] as const) {
    const { interpretation } = await interpret(() => answer);
    expect(interpretation.unexplained).toMatch(why);
    expect(interpretation.scores).toEqual({});
  }
  const { train, test: tested } = fireExamples(50);
  const few = { ...train, active: train.active.slice(0, 4) };
  const rare = await interpret(
    judge((right) => right),
    { latents: [{ latent: 1, train: few, test: tested }] },
  );
  expect(rare.interpretation.unexplained).toBe("only 4 different active windows of the documents to explain from");
  expect(rare.requests).toHaveLength(0);
  const dense = { ...tested, silent: [] };
  const { interpretation } = await interpret(
    judge((right) => right),
    { latents: [{ latent: 1, train, test: dense }] },
  );
  expect(interpretation.unscored).toEqual({
    detection: "no different silent windows sampled of the documents to test on",
    simulation: "no different silent windows sampled of the documents to test on",
  });
  expect(interpretation.scores.fuzzing!.score).toBe(1);
});

test("explainer and scorers see disjoint examples, and scorers nothing of the activations", async () => {
  const { requests } = await interpret(
    judge((right) => right),
    { tested: 20 },
  );
  const textsOf = (request: MockRequest): string[] =>
    (dataOf(request).values as { text?: string; tokens?: [number, string][] }[])
      .map(({ text, tokens }) => text?.replaceAll(/[«»]/g, "") ?? tokens?.map(([, token]) => token).join(""))
      .filter((text) => text !== undefined);
  const [explained, ...scored] = requests.map(textsOf);
  expect(explained).toHaveLength(25);
  expect(scored.flat().filter((text) => explained!.includes(text))).toEqual([]);
  for (const request of requests.slice(1)) expect(Object.keys(dataOf(request).values[1]!)).not.toContain("active");
});

test("what the caps leave no room for is left out by name, and a further run pays for that alone", async () => {
  const server = await startServer(judge((right) => right));
  const replies = new Map<string, Awaited<ReturnType<ChatClient["complete"]>>>();
  const run = async (maxTokens?: number) => {
    const client = new ChatClient({ baseUrl: server.baseUrl, keyVariable: "MONOSEM_NO_SUCH_KEY", maxTokens });
    // A cache in memory.
    const complete: ChatClient["complete"] = async (request, signal) => {
      const key = JSON.stringify(request);
      const reply = replies.get(key) ?? (await client.complete(request, signal));
      replies.set(key, reply);
      return reply;
    };
    const latents = [1, 2, 3, 4].map((latent) => fireExamples(50, latent));
    return await interpretLatents({
      judge: { complete },
      judgeModel: "m",
      latents,
      tokenText,
      concurrency: 1,
      answerTokens: 100,
    });
  };
  const capped = await run(6000);
  expect(capped.interpretations.length).toBeGreaterThan(0);
  expect(capped.leftOut.length).toBeGreaterThan(0);
  expect([...capped.interpretations.map(({ latent }) => latent), ...capped.leftOut].sort()).toEqual([1, 2, 3, 4]);
  const paid = server.requests.length;
  const whole = await run();
  expect(whole.interpretations).toHaveLength(4);
  expect(whole.interpretations.slice(0, capped.interpretations.length)).toEqual(capped.interpretations);
  const bodies = server.requests.map(({ body }) => JSON.stringify(body));
  expect(new Set(bodies).size).toBe(bodies.length);
  expect(server.requests.length).toBeGreaterThan(paid);
});

test("counts that are none, and a scorer without its model, are refused before anything is asked", async () => {
  for (const [options, message] of [
    [{ tested: 0 }, "tested must be an integer of at least 1, found 0"],
    [{ concurrency: Number.NaN }, "concurrency must be an integer of at least 1, found NaN"],
    [{ typical: -1 }, "typical must be an integer of at least 0, found -1"],
    [{ scorers: ["surprisal"] }, 'the scorer "surprisal" needs surprisalModel'],
  ] as const) {
    await expect(interpret(() => says(""), options)).rejects.toThrow(message);
  }
});

test("an aborted interpretation ends with ERR_ABORTED", async () => {
  const controller = new AbortController();
  const answer = judge((right) => right);
  const stopped = interpret(
    (request) => {
      controller.abort();
      return answer(request);
    },
    { signal: controller.signal },
  );
  await expect(stopped).rejects.toMatchObject({ code: "ERR_ABORTED" });
});

test("correlation and ROC area are those of their definitions", () => {
  expect(pearson([1, 2, 3], [2, 4, 6])).toBeCloseTo(1, 12);
  expect(pearson([1, 2, 3, 4], [1, 3, 2, 4])).toBeCloseTo(0.8, 12);
  expect(pearson([1, 1, 1], [1, 2, 3])).toBe(0);
  expect(pearson([0.1, 0.1, 0.1], [0.7, 0.7, 0.7])).toBe(0); // whose means are rounded
  expect(auroc([3, 4], [1, 2])).toBe(1);
  expect(auroc([1, 3], [2, 3])).toBe(0.375);
});
