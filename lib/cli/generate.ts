import type { Command } from "commander";
import { printableText } from "../analysis/visibleText.js";
import type { GenerationOptions } from "../models/generation.js";
import type { HookedTransformer } from "../models/hookedTransformer.js";
import { loadModel } from "./folders.js";
import { withInterruption } from "./interruption.js";
import {
  type DeviceFlags,
  deviceOption,
  naturalNumber,
  nonNegativeNumber,
  positiveInteger,
  positiveShare,
  precisionOption,
  type TokenizerFlags,
  threadsOption,
  tokenizerOption,
  withDevice,
} from "./options.js";
import { startProgress } from "./progress.js";
import { requireFittingPrompt } from "./promptLength.js";

interface GenerateFlags extends DeviceFlags, TokenizerFlags {
  readonly model: string;
  readonly prompt: string;
  readonly maxNewTokens: number;
  readonly temperature: number;
  readonly topK?: number;
  readonly topP?: number;
  readonly seed: number;
  readonly stop?: readonly string[];
  readonly samples?: number;
}

export function registerGenerate(program: Command): void {
  program
    .command("generate")
    .summary("let a model continue a text")
    .description(
      "Continues a prompt token by token and prints the text as it comes. The same seed gives the same text. Control characters in the text are printed as escapes.",
    )
    .requiredOption("--model <dir>", "folder of the model (config.json, model.safetensors, tokenizer.json)")
    .addOption(tokenizerOption())
    .requiredOption("--prompt <text>", 'text to continue; "" begins a new document')
    .option(
      "--max-new-tokens <n>",
      "tokens to generate at most; the model's context, prompt included, may end it before",
      positiveInteger,
      64,
    )
    .option("--temperature <x>", "0 always takes the likeliest token", nonNegativeNumber, 1)
    .option("--top-k <n>", "choose among the n likeliest tokens only", positiveInteger)
    .option("--top-p <x>", "choose among the likeliest tokens that hold this share of probability", positiveShare)
    .option("--stop <text...>", "end where the new text comes to one of these, which is not printed")
    .option("--seed <n>", "seed of the random choices", naturalNumber, 0)
    .option(
      "--samples <n>",
      'continue the prompt n times, all at once, and print each as a line {"text": ...}: a corpus (.jsonl)',
      positiveInteger,
    )
    .addOption(deviceOption())
    .addOption(precisionOption())
    .addOption(threadsOption())
    .addHelpText(
      "after",
      `
Examples:
  monosem generate --model models/gpt2 --prompt "The door opened and"
  monosem generate --model models/gpt2 --prompt "" --temperature 0.8 --top-p 0.95 --seed 7
  monosem generate --model models/gpt2 --prompt "Q: Who was he?\\nA:" --stop "Q:"
  monosem generate --model models/gpt2 --prompt "Once" --max-new-tokens 200 --samples 100 > stories.jsonl`,
    )
    .action((flags: GenerateFlags) =>
      withInterruption((signal) =>
        withDevice(flags, async (device) => {
          using model = await loadModel(flags.model, device, { tokenizer: flags.tokenizer, signal });
          requireFittingPrompt(model, "--prompt", flags.prompt);
          if (flags.samples === undefined) await printContinuation(flags, model, signal);
          else await printSamples(flags.samples, flags, model, signal);
        }),
      ),
    );
}

function generationOptions(flags: GenerateFlags, signal: AbortSignal): GenerationOptions {
  return {
    maxNewTokens: flags.maxNewTokens,
    temperature: flags.temperature,
    ...(flags.topK === undefined ? {} : { topK: flags.topK }),
    ...(flags.topP === undefined ? {} : { topP: flags.topP }),
    ...(flags.stop === undefined ? {} : { stopStrings: flags.stop }),
    seed: flags.seed,
    signal,
  };
}

async function printSamples(
  samples: number,
  flags: GenerateFlags,
  model: HookedTransformer,
  signal: AbortSignal,
): Promise<void> {
  const texts = new Array<string>(samples).fill(flags.prompt);
  const progress = startProgress("generating", flags.maxNewTokens, "tokens each");
  try {
    let steps = 0;
    for await (const { text } of model.stream([...texts], generationOptions(flags, signal))) {
      text.forEach((fresh, sample) => {
        texts[sample] += fresh;
      });
      steps += 1;
      progress.update(steps);
    }
  } finally {
    progress.stop();
  }
  for (const text of texts) process.stdout.write(`${JSON.stringify({ text })}\n`);
}

async function printContinuation(flags: GenerateFlags, model: HookedTransformer, signal: AbortSignal): Promise<void> {
  const steps = model.stream(flags.prompt, generationOptions(flags, signal));
  // What is wrong with the options is said before anything is printed.
  let step = await steps.next();
  let newTokens = 0;
  process.stdout.write(printableText(flags.prompt));
  try {
    for (; !step.done; step = await steps.next()) {
      if (step.value.tokens[0] !== undefined) newTokens += 1;
      process.stdout.write(printableText(step.value.text[0]!));
    }
  } finally {
    process.stdout.write("\n");
  }
  const { contextSize } = model.config;
  if (newTokens < flags.maxNewTokens && model.promptTokens(flags.prompt)[0]!.length + newTokens === contextSize) {
    process.stderr.write(
      `stopped after ${newTokens} new tokens: the model's context of ${contextSize} tokens is full\n`,
    );
  }
}
