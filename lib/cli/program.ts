import { Command, CommanderError } from "commander";
import { visibleText } from "../analysis/visibleText.js";
import { describeFailure } from "./failure.js";
import { packageVersion } from "./version.js";

/** The commands, in the order of the help. Each loads its part of the library, so only the one that is called is loaded. */
const commands: Readonly<Record<string, () => Promise<(program: Command) => void>>> = {
  train: async () => (await import("./train.js")).registerTrain,
  eval: async () => (await import("./eval.js")).registerEval,
  "bench-sae": async () => (await import("./benchSae.js")).registerBenchSae,
  audit: async () => (await import("./audit.js")).registerAudit,
  encode: async () => (await import("./encode.js")).registerEncode,
  features: async () => (await import("./features.js")).registerFeatures,
  interpret: async () => (await import("./interpret.js")).registerInterpret,
  generate: async () => (await import("./generate.js")).registerGenerate,
  attribute: async () => (await import("./attribute.js")).registerAttribute,
  probe: async () => (await import("./probe.js")).registerProbe,
  patch: async () => (await import("./patch.js")).registerPatch,
  steer: async () => (await import("./steer.js")).registerSteer,
  compare: async () => (await import("./compare.js")).registerCompare,
  info: async () => (await import("./info.js")).registerInfo,
  convert: async () => (await import("./convert.js")).registerConvert,
  download: async () => (await import("./download.js")).registerDownload,
  toy: async () => (await import("./toy.js")).registerToy,
};

/** Runs `monosem` with the given arguments; results on the standard output, everything else on the standard error. */
export async function runCommandLine(commandLine: readonly string[]): Promise<number> {
  const program = await createProgram(commandLine);
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

async function createProgram(commandLine: readonly string[]): Promise<Command> {
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
  const called = commandLine.find((word) => !word.startsWith("-"));
  const wanted =
    called !== undefined && Object.hasOwn(commands, called) ? [commands[called]!] : Object.values(commands);
  for (const load of wanted) (await load())(program);
  for (const command of program.commands) demandOptionsLast(command);
  return program;
}

/** A misspelt option leaves the one that was meant without a value: commander would complain of that, and not of the other. */
function demandOptionsLast(command: Command): void {
  for (const below of command.commands) demandOptionsLast(below);
  const needed = command.options.filter(({ mandatory }) => mandatory);
  for (const option of needed) option.mandatory = false;
  command.hook("preAction", () => {
    const missing = needed.find((option) => command.getOptionValue(option.attributeName()) === undefined);
    if (missing === undefined) return;
    command.error(`error: required option '${missing.flags}' not specified`);
  });
}
