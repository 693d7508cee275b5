import { type Command, Option } from "commander";
import { decimal } from "../analysis/featureReport.js";
import { quotedText, visibleText } from "../analysis/visibleText.js";
import { type AttributionPage, attributionHtml } from "../attribution/attributionPage.js";
import { type AttributedPlayer, attributionText } from "../attribution/attributionText.js";
import type { Game, GameOptions } from "../attribution/coalitions.js";
import { kernelShapley } from "../attribution/kernelShapley.js";
import { latentGame } from "../attribution/latentGame.js";
import { type FeatureSelection, lime } from "../attribution/lime.js";
import { measureText, singleToken } from "../attribution/nextToken.js";
import { owenValues } from "../attribution/owenValues.js";
import { type PlayerTree, textTree } from "../attribution/playerTree.js";
import {
  type EstimatedShapleyValues,
  exactShapley,
  permutationShapley,
  type ShapleyValues,
} from "../attribution/shapley.js";
import { tokenGame } from "../attribution/tokenGame.js";
import type { Device } from "../engine/device.js";
import { MonosemError } from "../errors.js";
import { writeFileAtomically } from "../formats/atomicFile.js";
import { loadModel, loadSae } from "./folders.js";
import { withInterruption } from "./interruption.js";
import { measureOf } from "./measureFlags.js";
import {
  type DeviceFlags,
  deviceOption,
  naturalNumber,
  nonNegativeNumber,
  positiveInteger,
  precisionOption,
  type TokenizerFlags,
  threadsOption,
  tokenizerOption,
  withDevice,
} from "./options.js";
import { checkOutputFiles } from "./outputFiles.js";
import { type Progress, startProgress } from "./progress.js";
import { requireFittingPrompt } from "./promptLength.js";
import { printsColour } from "./terminal.js";

interface AttributeFlags extends DeviceFlags, TokenizerFlags {
  readonly model: string;
  readonly prompt: string;
  readonly target?: string;
  readonly against?: string;
  readonly mask?: string;
  readonly sae?: string;
  readonly hook?: readonly string[];
  readonly latents?: readonly number[];
  readonly strongest?: number;
  readonly seed: number;
  readonly json?: boolean;
  readonly html?: string;
}

interface LimeFlags extends AttributeFlags {
  readonly samples: number;
  readonly features: number;
  readonly featureSelection?: FeatureSelection;
  readonly kernelWidth: number;
  readonly ridge: number;
}

type ShapMethod = "exact" | "permutation" | "kernel" | "partition";

interface ShapFlags extends AttributeFlags {
  readonly method?: ShapMethod;
  readonly permutations?: number;
  readonly samples?: number;
  readonly evaluations?: number;
}

export function registerAttribute(program: Command): void {
  const attribute = program
    .command("attribute")
    .helpCommand(false)
    .summary("say which tokens or latents a prediction owes what to, by LIME or SHAP")
    .description(
      "Scores how likely a model finds a token after a prompt, switches tokens of the prompt (or, with --sae, latents) off in many combinations, and says what each does to the score.",
    )
    .addHelpText(
      "after",
      `
Examples:
  monosem attribute shap --model models/gpt2 --prompt "The girl was happy, because" --target " she" --against " he"
  monosem attribute lime --model models/gpt2 --prompt "The girl was happy, because" --target " she"
  monosem attribute shap --model models/gpt2 --sae runs/first/sae --prompt "The girl was happy, because"`,
    );
  registerLime(attribute);
  registerShap(attribute);
}

function registerLime(attribute: Command): void {
  const command = attribute
    .command("lime")
    .summary("a sparse linear model of the score around the prompt")
    .description(
      "LIME (Ribeiro et al. 2016): fits a linear model to random removals, nearer ones weighing more, and prints its weights. R² says how well a linear model does.",
    );
  addPlayerOptions(command)
    .option("--samples <n>", "random removals", positiveInteger, 1000)
    .option("--features <n>", "tokens or latents in the explanation at most", positiveInteger, 10)
    .addOption(
      new Option(
        "--feature-selection <how>",
        "how they are chosen (default: forward-selection of up to 6, else highest-weights)",
      ).choices(["highest-weights", "forward-selection", "lasso-path"]),
    )
    .option("--kernel-width <x>", "of the kernel, in hundredths of the cosine distance", nonNegativeNumber, 25)
    .option("--ridge <x>", "penalty of the fit", nonNegativeNumber, 1);
  addCommonOptions(command)
    .addHelpText(
      "after",
      `
Examples:
  monosem attribute lime --model models/gpt2 --prompt "The girl was happy, because" --target " she" --against " he"
  monosem attribute lime --model models/gpt2 --sae runs/first/sae --prompt "The girl was happy," --features 5`,
    )
    .action((flags: LimeFlags) =>
      withInterruption((signal) =>
        withDevice(flags, (device) =>
          attributed(flags, device, signal, async (players, options) => {
            const found = await lime(players.game, players.labels.length, { ...flags, ...options });
            return {
              method: "LIME",
              facts: [
                ["score", `${number(found.full)}; the linear model says ${number(found.localPrediction)}`],
                ["fit", `R² ${number(found.rSquared)}, intercept ${number(found.intercept)}`],
              ],
              shown: [...found.features].sort((a, b) => (players.ordered ? a - b : 0)),
              values: found.weights,
              evaluations: found.evaluations,
              numbers: {
                full: found.full,
                localPrediction: found.localPrediction,
                rSquared: found.rSquared,
                intercept: found.intercept,
              },
            };
          }),
        ),
      ),
    );
}

function registerShap(attribute: Command): void {
  const command = attribute
    .command("shap")
    .summary("Shapley values: shares that add up to the whole score")
    .description(
      "SHAP: the shares of tokens or latents in the score, averaged over orders of switching them on; they add up to the score with all less the score with none. Estimated values have standard errors where the method gives them.",
    );
  addPlayerOptions(command)
    .addOption(
      new Option("--method <name>", "how to compute them (default: exact for up to 10, else permutation)").choices([
        "exact",
        "permutation",
        "kernel",
        "partition",
      ]),
    )
    .option("--permutations <n>", "permutation: orders, each taken in both directions (default: 10)", positiveInteger)
    .option("--samples <n>", "kernel: combinations to fit to (default: 2 x players + 2048)", positiveInteger)
    .option(
      "--evaluations <n>",
      "partition (Owen values over sentences, clauses, words): combinations at most (default: 500)",
      positiveInteger,
    );
  addCommonOptions(command)
    .addHelpText(
      "after",
      `
Examples:
  monosem attribute shap --model models/gpt2 --prompt "The girl was happy, because" --target " she" --against " he"
  monosem attribute shap --model models/gpt2 --prompt "$(cat long.txt)" --method partition --evaluations 2000
  monosem attribute shap --model models/gpt2 --sae runs/first/sae --prompt "The girl was happy," --latents 17 512`,
    )
    .action((flags: ShapFlags) => {
      checkMethodOptions(flags);
      return withInterruption((signal) =>
        withDevice(flags, (device) =>
          attributed(flags, device, signal, async (players, options) => {
            const count = players.labels.length;
            const method = flags.method ?? (count <= 10 ? "exact" : "permutation");
            const found = await shapley(method, players, { ...flags, ...options });
            const standardErrors = "standardErrors" in found ? found.standardErrors : undefined;
            return {
              method: `SHAP, ${method}`,
              facts: [
                [
                  "score",
                  `${number(found.full)} with all, ${number(found.empty)} with none: the values add up to ${number(found.full - found.empty)}`,
                ],
              ],
              shown: players.ordered
                ? Array.from(found.values.keys())
                : Array.from(found.values.keys()).sort(
                    (a, b) => Math.abs(found.values[b]!) - Math.abs(found.values[a]!),
                  ),
              values: found.values,
              standardErrors,
              evaluations: found.evaluations,
              numbers: { full: found.full, empty: found.empty },
            };
          }),
        ),
      );
    });
}

function addPlayerOptions(command: Command): Command {
  return command
    .requiredOption("--model <dir>", "folder of the model")
    .addOption(tokenizerOption())
    .requiredOption("--prompt <text>", "what the model reads, after BOS where it has one")
    .option("--target <token>", 'the next token that is scored, such as " she" (default: the likeliest one)')
    .option("--against <token>", "score the difference of the logits of the target and of this token")
    .option("--mask <token>", "put this token in the place of absent ones (default: leave them out)")
    .option("--sae <dir>", "switch latents of this SAE off, instead of tokens; its error stays")
    .option("--hook <name...>", "hook point of the SAE, of a crosscoder all of them (default: the SAE's)")
    .option("--latents <n...>", "these latents", (text: string, earlier: readonly number[] = []) => [
      ...earlier,
      naturalNumber(text),
    ])
    .option(
      "--strongest <n>",
      "as many of the latents that are the strongest on the prompt (default: 20)",
      positiveInteger,
    );
}

function addCommonOptions(command: Command): Command {
  return command
    .option("--seed <n>", "seed of the random choices", naturalNumber, 0)
    .option("--json", "print JSON instead of a table")
    .option("--html <file>", "also write a self-contained HTML page")
    .addOption(deviceOption())
    .addOption(precisionOption())
    .addOption(threadsOption());
}

function checkMethodOptions(flags: ShapFlags): void {
  for (const [name, method] of [
    ["permutations", "permutation"],
    ["samples", "kernel"],
    ["evaluations", "partition"],
  ] as const) {
    if (flags[name] === undefined || flags.method === method) continue;
    throw new MonosemError("ERR_CONFIG", `--${name} belongs to --method ${method}`);
  }
  if (flags.method === "partition" && flags.sae !== undefined) {
    throw new MonosemError(
      "ERR_CONFIG",
      "--method partition needs players in the order of a text; latents have none: choose another method",
    );
  }
}

function shapley(
  method: ShapMethod,
  { game, labels, tree }: Players,
  flags: ShapFlags & GameOptions,
): Promise<ShapleyValues | EstimatedShapleyValues> {
  switch (method) {
    case "exact":
      return exactShapley(game, labels.length, flags);
    case "permutation":
      return permutationShapley(game, labels.length, flags);
    case "kernel":
      return kernelShapley(game, labels.length, flags);
    case "partition":
      return owenValues(game, tree!, flags);
  }
}

/** What is switched on and off. */
interface Players {
  readonly game: Game;
  readonly labels: readonly string[];
  /** What identifies each of them in JSON. */
  readonly keys: readonly Readonly<Record<string, string | number>>[];
  /** Whether they stand in an order of their own, which results keep. */
  readonly ordered: boolean;
  /** Of tokens, their texts. */
  readonly texts: readonly string[] | undefined;
  /** Of tokens. */
  readonly tree: PlayerTree | undefined;
}

interface Attribution {
  readonly method: string;
  readonly facts: readonly (readonly [string, string])[];
  /** The players to show, in order. */
  readonly shown: readonly number[];
  readonly values: Float64Array;
  readonly standardErrors?: Float64Array | undefined;
  readonly evaluations: number;
  readonly numbers: Readonly<Record<string, number>>;
}

/** Everything but the method itself. */
async function attributed(
  flags: AttributeFlags,
  device: Device,
  signal: AbortSignal,
  attribute: (players: Players, options: GameOptions) => Promise<Attribution>,
): Promise<void> {
  if (flags.sae === undefined) {
    for (const name of ["hook", "latents", "strongest"] as const) {
      if (flags[name] !== undefined) throw new MonosemError("ERR_CONFIG", `--${name} needs --sae`);
    }
  } else if (flags.mask !== undefined) {
    throw new MonosemError("ERR_CONFIG", "--mask is for tokens; with --sae, latents are switched off");
  }
  await checkOutputFiles(flags.html);
  using sae = flags.sae === undefined ? undefined : await loadSae(flags.sae, device, signal);
  using model = await loadModel(flags.model, device, {
    tokenizer: flags.tokenizer,
    signal,
    saes: sae === undefined ? [] : [sae],
  });
  requireFittingPrompt(model, "--prompt", flags.prompt);
  const { bosTokenId } = model.config;
  const ids = model.tokenizer.encode(flags.prompt);
  const tokens = bosTokenId === undefined ? ids : [bosTokenId, ...ids];
  const measure = await measureOf(model, tokens, flags, signal);
  let players: Players;
  if (sae === undefined) {
    const mask = flags.mask === undefined ? {} : { mask: singleToken(model.tokenizer, flags.mask) };
    const { game, positions } = tokenGame(model, tokens, measure, mask);
    const texts = positions.map((position) => model.tokenizer.tokenText(tokens[position]!));
    players = {
      game,
      labels: texts.map((text) => quotedText(text)),
      keys: positions.map((position, i) => ({ position, token: texts[i]! })),
      ordered: true,
      texts,
      tree: textTree(texts),
    };
  } else {
    const { game, latents, activations } = await latentGame(model, sae, tokens, measure, flags);
    const peaks = activations.map((values) =>
      values.reduce((best, value, i) => (Math.abs(value) > Math.abs(values[best]!) ? i : best), 0),
    );
    const peakTexts = peaks.map((position) => model.tokenizer.tokenText(tokens[position]!));
    players = {
      game,
      labels: latents.map((latent, i) => {
        const peak = activations[i]![peaks[i]!]!;
        return peak === 0
          ? `latent ${latent}, silent`
          : `latent ${latent}, ${decimal(peak)} at ${quotedText(peakTexts[i]!)}`;
      }),
      keys: latents.map((latent, i) => ({
        latent,
        position: peaks[i]!,
        token: peakTexts[i]!,
        activation: activations[i]![peaks[i]!]!,
      })),
      ordered: false,
      texts: undefined,
      tree: undefined,
    };
  }
  let progress: Progress | undefined;
  const started = performance.now();
  const found = await attribute(players, {
    signal,
    onProgress: ({ evaluations }) => {
      progress ??= startProgress("evaluating", undefined, "combinations");
      progress.update(evaluations);
    },
  }).finally(() => progress?.stop());
  const seconds = (performance.now() - started) / 1000;
  const report: AttributionPage = {
    title: `What the ${measureText(model.tokenizer, measure)} is owed to`,
    facts: [
      ["model", model.config.name],
      ["prompt", flags.prompt],
      ["measure", measureText(model.tokenizer, measure)],
      ...found.facts,
      ["method", `${found.method}; ${found.evaluations} combinations in ${seconds.toFixed(1)} s`],
    ],
    players: found.shown.map((player) => attributedPlayer(players.labels[player]!, player, found)),
    text: players.texts?.map((text, player) => attributedPlayer(text, player, found)),
  };
  // Before anything is printed, as in `features`.
  if (flags.html !== undefined) await writeFileAtomically(flags.html, attributionHtml(report));
  if (flags.json) {
    const description = { ...measure, token: model.tokenizer.tokenText(measure.token) };
    const against = "against" in measure ? { against: model.tokenizer.tokenText(measure.against) } : {};
    const result = {
      model: model.config.name,
      ...(flags.sae === undefined ? {} : { sae: flags.sae }),
      prompt: flags.prompt,
      measure: { ...description, ...against },
      method: found.method,
      ...found.numbers,
      evaluations: found.evaluations,
      seconds,
      players: players.keys.map((key, player) => ({
        ...key,
        value: found.values[player]!,
        ...(found.standardErrors === undefined ? {} : { standardError: found.standardErrors[player]! }),
      })),
    };
    process.stdout.write(`${JSON.stringify(result)}\n`);
    return;
  }
  process.stdout.write(attributionText(report, { colour: printsColour() }));
  if (flags.html !== undefined) process.stdout.write(`\nwrote ${visibleText(flags.html)}\n`);
}

function attributedPlayer(label: string, player: number, { values, standardErrors }: Attribution): AttributedPlayer {
  const error = standardErrors === undefined ? {} : { standardError: standardErrors[player]! };
  return { label, value: values[player]!, ...error };
}

function number(value: number): string {
  return value.toFixed(4);
}
