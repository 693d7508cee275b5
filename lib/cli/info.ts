import { stat } from "node:fs/promises";
import { extname } from "node:path";
import type { Command } from "commander";
import { visibleText } from "../analysis/visibleText.js";
import type { Device } from "../engine/device.js";
import { MonosemError } from "../errors.js";
import { exists } from "../formats/exists.js";
import { HookedTransformer } from "../models/hookedTransformer.js";
import { namesNear, repositoryOfModel } from "../models/locateModel.js";
import { knownFormats, publishedFormatOf } from "../pretrained/formats.js";
import {
  type PublishedSae,
  publishedReleases,
  publishedSae,
  publishedSaeIds,
  splitPublishedName,
} from "../pretrained/registry.js";
import { Sae } from "../sae/sae.js";
import { holdsModelConfig, holdsSae, outputOfRun, saeBelow, trainingRunIn } from "./folders.js";
import { factsOfPublishedSae, factsOfRemoteModel } from "./infoRemote.js";
import { withInterruption } from "./interruption.js";
import {
  type DeviceFlags,
  deviceOption,
  type TokenizerFlags,
  threadsOption,
  tokenizerOption,
  withDevice,
} from "./options.js";
import { packageVersion } from "./version.js";

type Facts = Readonly<Record<string, string | number | boolean | undefined | readonly HookPointFacts[]>>;

/** The hook points of one name, in all layers. */
interface HookPointFacts {
  /** With {layer} in place of the number. */
  readonly name: string;
  /** Numbers for each token; null where there is no vector for each token. */
  readonly width: number | null;
}

interface InfoFlags extends DeviceFlags, TokenizerFlags {
  readonly json?: boolean;
}

export function registerInfo(program: Command): void {
  program
    .command("info")
    .argument("[name]", "folder or file of an SAE or of a model; or the name of a published one")
    .summary("show the version and the device, or what a folder or a published SAE holds")
    .description(
      `Without a name: the version of monosem, the device that it computes on and why. With that of a folder: what the SAE or the model in it is; the weights are loaded and checked.

With the name of a published SAE (release/id, or hf:owner/name/folder) or of a model on the hub: what its configuration and the headers of its files say, which are read without a download. With the name of a release: its SAEs. With "releases": all releases.`,
    )
    .addOption(tokenizerOption())
    .option("--json", "print one JSON object")
    .addOption(deviceOption())
    .addOption(threadsOption())
    .addHelpText(
      "after",
      `
Examples:
  monosem info
  monosem info runs/first/sae
  monosem info releases
  monosem info gpt2-small-res-jb/blocks.8.hook_resid_pre
  monosem info models/gpt2 --json`,
    )
    .action((name: string | undefined, flags: InfoFlags) =>
      withInterruption(async (signal) => {
        const facts =
          (name === undefined || (await exists(name)) ? undefined : await factsOfPublished(name, signal)) ??
          (await withDevice(flags, (device) =>
            name === undefined ? factsOfInstallation(device) : factsOf(name, flags, device),
          ));
        process.stdout.write(flags.json ? `${JSON.stringify(facts)}\n` : asLines(facts));
      }),
    );
}

async function factsOfInstallation(device: Device): Promise<Facts> {
  return {
    monosem: await packageVersion(),
    node: process.version,
    platform: `${process.platform}-${process.arch}`,
    device: device.name,
    processor: device.description,
    reason: device.reason,
  };
}

/** Undefined for what is no name of anything published. */
async function factsOfPublished(name: string, signal: AbortSignal): Promise<Facts | undefined> {
  if (name === "releases") {
    const releases = publishedReleases().map(({ release, model, saes }) => [release, `${saes} of ${model}`] as const);
    return Object.fromEntries(releases);
  }
  const split = splitPublishedName(name);
  if (split === undefined) {
    const repository = repositoryOfModel(name);
    return repository === undefined ? undefined : await factsOfRemoteModel(repository, signal);
  }
  const { release, saeId } = split;
  if (saeId === undefined && !release.includes("/")) {
    const saes = publishedSaeIds(release).map((id) => [id, saeInOneLine(publishedSae(release, id))] as const);
    return Object.fromEntries(saes);
  }
  return await factsOfPublishedSae(publishedSae(release, saeId), signal);
}

function saeInOneLine({ hook, hookOut, l0 }: PublishedSae): string {
  const where = hook === undefined ? [] : [hookOut === undefined ? hook : `${hook} to ${hookOut}`];
  return [...where, ...(l0 === undefined ? [] : [`L0 ${l0}`])].join(", ");
}

async function factsOf(path: string, flags: TokenizerFlags, device: Device): Promise<Facts> {
  if (await holdsSae(path)) return factsOfSae(path, device);
  if (!(await exists(path))) {
    throw new MonosemError("ERR_NOT_FOUND", `the folder ${path} does not exist${namesNear(path)}`);
  }
  if ((await stat(path)).isFile()) {
    if (extname(path) === ".bin") return factsOfModel(path, flags, device); // of llama2.c
    const message = `${path} is neither an SAE, which is known by ${knownFormats()}, nor a model: name a model's folder, or a file .bin of llama2.c`;
    throw new MonosemError("ERR_NOT_FOUND", message);
  }
  const run = await trainingRunIn(path);
  if (run !== undefined) throw await outputOfRun(path, run);
  if (await holdsModelConfig(path)) return factsOfModel(path, flags, device);
  throw new MonosemError(
    "ERR_NOT_FOUND",
    `${path} holds neither an SAE (cfg.json, or files of another system) nor a model (config.json)${await saeBelow(path)}`,
  );
}

async function factsOfSae(directory: string, device: Device): Promise<Facts> {
  using sae = await Sae.load(directory, device);
  const { architecture, dIn, dSae, ...rest } = sae.config;
  const { trainedAs, ...metadata } = scalars(sae.metadata);
  const format = await publishedFormatOf(directory);
  return {
    kind: "sae",
    format,
    architecture,
    trainedAs,
    dIn,
    dSae,
    ...scalars(rest),
    ...metadata,
    ...crosscoderHooks(sae),
  };
}

function crosscoderHooks({ config: { hookWidths }, metadata: { hookNames } }: Sae): Facts {
  if (hookWidths === undefined) return {};
  if (!Array.isArray(hookNames)) return { crosscoder: true };
  const hooks = hookNames.map((name, index) => ({ name: String(name), width: hookWidths[index] ?? null }));
  return { crosscoder: true, hooks };
}

async function factsOfModel(path: string, { tokenizer }: TokenizerFlags, device: Device): Promise<Facts> {
  using model = await HookedTransformer.load(path, device, tokenizer === undefined ? {} : { tokenizer });
  return { kind: "model", ...scalars({ ...model.config }), hookPoints: hookPointsOf(model) };
}

function hookPointsOf(model: HookedTransformer): readonly HookPointFacts[] {
  const points = model.hookNames.map((name): readonly [string, number | null] => {
    const perPair = model.hookShape(name).includes("queryPos");
    return [name.replace(/^blocks\.\d+\./, "blocks.{layer}."), perPair ? null : model.hookWidth(name)];
  });
  return [...new Map(points)].map(([name, width]) => ({ name, width }));
}

function scalars(record: Readonly<Record<string, unknown>>): Facts {
  const entries = Object.entries(record).filter(([, value]) => ["string", "number", "boolean"].includes(typeof value));
  return Object.fromEntries(entries) as Facts;
}

function asLines(facts: Facts): string {
  const known = Object.entries(facts).filter(([, value]) => value !== undefined);
  const width = Math.max(...known.map(([name]) => name.length));
  return known
    .map(([name, value]) =>
      typeof value === "object"
        ? `${visibleText(name)}\n${hookLines(value)}`
        : `${visibleText(name).padEnd(width)}  ${visibleText(String(value))}\n`,
    )
    .join("");
}

function hookLines(hooks: readonly HookPointFacts[]): string {
  const shown = hooks.map(({ name, width }) => [visibleText(name), width ?? "no vector per token"] as const);
  const length = Math.max(...shown.map(([name]) => name.length));
  return shown.map(([name, width]) => `  ${name.padEnd(length)}  ${width}\n`).join("");
}
