import { Command, CommanderError } from "commander";
import { visibleText } from "../analysis/visibleText.js";
import { registerAttribute } from "./attribute.js";
import { registerAudit } from "./audit.js";
import { registerBenchSae } from "./benchSae.js";
import { registerConvert } from "./convert.js";
import { registerDownload } from "./download.js";
import { registerEncode } from "./encode.js";
import { registerEval } from "./eval.js";
import { describeFailure } from "./failure.js";
import { registerFeatures } from "./features.js";
import { registerGenerate } from "./generate.js";
import { registerInfo } from "./info.js";
import { registerInterpret } from "./interpret.js";
import { registerProbe } from "./probe.js";
import { registerToy } from "./toy.js";
import { registerTrain } from "./train.js";
import { packageVersion } from "./version.js";

/** Runs `monosem` with the given arguments; results on the standard output, everything else on the standard error. */
export async function runCommandLine(commandLine: readonly string[]): Promise<number> {
  const program = await createProgram();
  try {
    await program.parseAsync(commandLine, { from: "user" });
    return 0;
  } catch (error) {
    // Commander has printed its own message, help or version already.
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 1;
    const failure = describeFailure(error, program.opts<{ verbose?: boolean }>().verbose ?? false);
    process.stderr.write(failure.text);
    return failure.exitCode;
  }
}

async function createProgram(): Promise<Command> {
  const program = new Command("monosem")
    .description("Sparse autoencoders for language models: train, evaluate, encode, and read their features.")
    .version(await packageVersion())
    .option("--verbose", "print the stack of an error")
    .helpOption("-h, --help", "show help; also after a command")
    .helpCommand(false)
    .exitOverride()
    .configureOutput({
      outputError: (text, write) => {
        const message = text.replace(/^error: /, "").trim();
        write(`monosem: ${visibleText(message.replaceAll("\n", " "))}\n`);
      },
    });
  for (const register of [
    registerTrain,
    registerEval,
    registerBenchSae,
    registerAudit,
    registerEncode,
    registerFeatures,
    registerInterpret,
    registerGenerate,
    registerAttribute,
    registerProbe,
    registerInfo,
    registerConvert,
    registerDownload,
    registerToy,
  ]) {
    register(program);
  }
  return program;
}
