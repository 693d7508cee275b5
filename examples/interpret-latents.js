// @ts-check
/**
 * Latents of an SAE in words, and how well the words tell where a latent is active.
 *
 *   node examples/interpret-latents.js [--html PAGE] [SAE_DIRECTORY] [CORPUS...]
 *
 * `npm run demo` makes such an SAE; the corpus is several .txt files, or .jsonl. With MONOSEM_SERVER (such as
 * http://127.0.0.1:8080/v1) and MONOSEM_JUDGE set, that judge is asked. Otherwise a small server in this program plays the
 * judge: it takes the word that is marked most often for the whole explanation.
 */
import { existsSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import {
  ChatClient,
  Corpus,
  collectFeatures,
  contexts,
  Device,
  gatherExamples,
  HookedTransformer,
  interpretationHtml,
  interpretationText,
  interpretLatents,
  rankLatents,
  Sae,
} from "monosem";

const { values, positionals } = parseArgs({ options: { html: { type: "string" } }, allowPositionals: true });
const [directory = "demo-output/sae", ...files] = positionals;
if (!existsSync(directory)) {
  console.error(`${directory} does not exist: run \`npm run demo\` first, or name an SAE`);
  process.exit(1);
}
if (files.length === 0) {
  console.error("name text to run the SAE on, after the SAE: .txt or .jsonl files");
  process.exit(1);
}
const CONTEXT = { contextSize: 64, prependBos: true };

/**
 * What stands between the marker lines of a prompt: JSON, line by line.
 *
 * @param {string} prompt
 */
function dataOf(prompt) {
  const lines = /^BEGIN DATA \S+\n(.*)\nEND DATA/ms.exec(prompt)?.[1]?.split("\n") ?? [];
  return lines.map((line) => JSON.parse(line));
}

/**
 * The judge in this program: explains a latent as one word, and says yes where that word stands, or is marked.
 *
 * @param {string} question the kind of answer that is asked for
 * @param {string} prompt
 */
function answerByWord(question, prompt) {
  const data = dataOf(prompt);
  if (question === "explanation") {
    /** @type {Map<string, number>} */
    const counts = new Map();
    for (const [, word = ""] of data.flatMap(({ text }) => [...text.matchAll(/«([^»]*)»/g)])) {
      counts.set(word, (counts.get(word) ?? 0) + 1);
    }
    const [[word, count] = ["nothing", 0]] = [...counts].sort((a, b) => b[1] - a[1]);
    const confidence =
      count /
      Math.max(
        1,
        [...counts.values()].reduce((sum, n) => sum + n, 0),
      );
    return { name: word, explanation: `the word "${word}"`, confidence };
  }
  const [{ explanation }, ...examples] = data;
  const word = /^the word "(.*)"$/s.exec(explanation)?.[1] ?? "";
  return {
    answers: examples.map(({ number, text }) => {
      const marked = [...text.matchAll(/«([^»]*)»/g)].map((match) => match[1]);
      return { number, answer: marked.length > 0 ? marked.includes(word) : text.includes(word) };
    }),
  };
}

const server = createServer(async (request, response) => {
  let text = "";
  for await (const chunk of request.setEncoding("utf8")) text += chunk;
  const { messages, response_format } = JSON.parse(text);
  const answer = answerByWord(response_format.json_schema.name, messages.at(-1).content);
  const usage = { prompt_tokens: Math.ceil(text.length / 4), completion_tokens: 50 };
  response.setHeader("content-type", "application/json");
  response.end(
    JSON.stringify({ choices: [{ finish_reason: "stop", message: { content: JSON.stringify(answer) } }], usage }),
  );
});
await new Promise((listening) => server.listen(0, "127.0.0.1", () => listening(undefined)));
const address = server.address();
const port = typeof address === "object" && address !== null ? address.port : 0;

const device = await Device.open("auto");
const model = await HookedTransformer.load(fileURLToPath(new URL("../assets/tiny-gpt2", import.meta.url)), device);
const sae = await Sae.load(directory, device);
const corpus = await Corpus.fromFiles(files);
const tokenText = (/** @type {number} */ id) => model.tokenizer.tokenText(id);

const { statistics } = await collectFeatures({ sae, model, contexts: contexts(corpus, model.tokenizer, CONTEXT) });
const latents = await gatherExamples({
  sae,
  model,
  corpus,
  latents: rankLatents(statistics, tokenText, 4),
  ...CONTEXT,
  tokens: 200_000,
});

const client = new ChatClient({ baseUrl: process.env.MONOSEM_SERVER ?? `http://127.0.0.1:${port}/v1` });
const interpreted = await interpretLatents({
  judge: client,
  judgeModel: process.env.MONOSEM_JUDGE ?? "by-word",
  latents,
  tokenText,
  scorers: ["detection", "fuzzing", "surprisal"],
  surprisalModel: model,
});
const report = {
  title: "Latents in words",
  facts: [],
  ...interpreted,
  scorers: /** @type {const} */ (["detection", "fuzzing", "surprisal"]),
  activity: client.activity,
  tokenText,
};
process.stdout.write(interpretationText(report, { colour: false, width: 100, examples: 3 }));
if (values.html !== undefined) await writeFile(values.html, interpretationHtml(report));

await device.close();
server.close();
