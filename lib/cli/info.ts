import { access, readFile } from "node:fs/promises";
import { join } from "node:path";
import type { Command } from "commander";
import { visibleText } from "../analysis/visibleText.js";
import type { Device } from "../engine/device.js";
import { MonosemError } from "../errors.js";
import { HookedTransformer } from "../models/hookedTransformer.js";
import { Sae } from "../sae/sae.js";
import { withInterruption } from "./interruption.js";
import { type DeviceFlags, deviceOption, threadsOption, withDevice } from "./options.js";
import { packageVersion } from "./version.js";

type Facts = Readonly<Record<string, string | number | boolean | undefined>>;

interface InfoFlags extends DeviceFlags {
  readonly json?: boolean;
}

export function registerInfo(program: Command): void {
  program
    .command("info")
    .argument("[dir]", "folder of an SAE or of a model")
    .summary("show the version and the device, or what a folder holds")
    .description(
      "Without a folder: the version of monosem, the device that it computes on and why. With one: what the SAE or the model in it is. The weights are loaded and checked.",
    )
    .option("--json", "print one JSON object")
    .addOption(deviceOption())
    .addOption(threadsOption())
    .addHelpText(
      "after",
      `
Examples:
  monosem info
  monosem info runs/first/sae
  monosem info models/gpt2 --json`,
    )
    .action((directory: string | undefined, flags: InfoFlags) =>
      withInterruption(() =>
        withDevice(flags, async (device) => {
          const facts = directory === undefined ? await factsOfInstallation(device) : await factsOf(directory, device);
          process.stdout.write(flags.json ? `${JSON.stringify(facts)}\n` : asLines(facts));
        }),
      ),
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

async function factsOf(directory: string, device: Device): Promise<Facts> {
  if (await exists(join(directory, "cfg.json"))) return factsOfSae(directory, device);
  if (await exists(join(directory, "config.json"))) return factsOfModel(directory, device);
  throw new MonosemError(
    "ERR_NOT_FOUND",
    `${directory} holds neither an SAE (cfg.json) nor a model (config.json); a training run keeps its SAE in the folder "sae"`,
  );
}

async function factsOfSae(directory: string, device: Device): Promise<Facts> {
  using sae = await Sae.load(directory, device);
  const { architecture, dIn, dSae, ...rest } = sae.config;
  return { kind: "sae", architecture, dIn, dSae, ...scalars(rest), ...scalars(sae.metadata) };
}

async function factsOfModel(directory: string, device: Device): Promise<Facts> {
  // A checkpoint of the trainer has a config.json as well; say so instead of failing on a missing key.
  const config: unknown = JSON.parse(await readFile(join(directory, "config.json"), "utf8"));
  if (typeof config === "object" && config !== null && "sae" in config) {
    throw new MonosemError(
      "ERR_NOT_FOUND",
      `${directory} is the output of a training run; its SAE is in ${join(directory, "sae")}`,
    );
  }
  using model = await HookedTransformer.load(directory, device);
  return { kind: "model", ...scalars({ ...model.config }), hookPoints: model.hookNames.length };
}

function scalars(record: Readonly<Record<string, unknown>>): Facts {
  const entries = Object.entries(record).filter(([, value]) => ["string", "number", "boolean"].includes(typeof value));
  return Object.fromEntries(entries) as Facts;
}

function asLines(facts: Facts): string {
  const known = Object.entries(facts).filter(([, value]) => value !== undefined);
  const width = Math.max(...known.map(([name]) => name.length));
  return known.map(([name, value]) => `${visibleText(name).padEnd(width)}  ${visibleText(String(value))}\n`).join("");
}

async function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}
