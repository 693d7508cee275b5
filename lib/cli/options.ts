import { InvalidArgumentError, Option } from "commander";
import { visibleText } from "../analysis/visibleText.js";
import { Device, type Precision, precisions } from "../engine/device.js";
import { unusedGpu } from "./unusedGpu.js";

/** Flags that several commands share, and parsers of their values. */

export function deviceOption(): Option {
  return new Option("--device <name>", 'where to compute: "auto", "cpu" or "cuda:N"')
    .default("auto")
    .argParser(deviceName);
}

/** Of commands that mostly multiply by a model's or an SAE's weights. See {@link Device.open}. */
export function precisionOption(): Option {
  return new Option("--precision <name>", "how a GPU multiplies; a CPU always does in float32")
    .choices(precisions)
    .default("float32");
}

export function threadsOption(): Option {
  return new Option("--threads <n>", "CPU threads (default: all cores)").argParser(positiveInteger);
}

/** Beside --model. */
export function tokenizerOption(): Option {
  return new Option("--tokenizer <path>", "folder or file of the model's tokenizer (default: with the model)");
}

export interface TokenizerFlags {
  readonly tokenizer?: string | undefined;
}

export interface DeviceFlags {
  readonly device: "auto" | "cpu" | `cuda:${number}`;
  readonly threads?: number | undefined;
  readonly precision?: Precision | undefined;
}

/** Opens the device that the flags ask for, and closes it when `work` is done. */
export async function withDevice<Result>(
  { device: name, threads, precision }: DeviceFlags,
  work: (device: Device) => Promise<Result>,
): Promise<Result> {
  const device = await Device.open(name, { ...(threads === undefined ? {} : { threads }), precision });
  try {
    const idleGpu = name === "auto" ? unusedGpu(device) : undefined;
    if (precision !== undefined && precision !== device.precision) {
      const why = name === "auto" ? `: ${visibleText(device.reason)}` : "";
      process.stderr.write(`the CPU computes in float32, not in ${precision}${why}\n`);
    } else if (idleGpu !== undefined) {
      process.stderr.write(`${idleGpu}\n`);
    }
    return await work(device);
  } finally {
    await device.close();
  }
}

export function deviceName(text: string): DeviceFlags["device"] {
  if (text === "auto" || text === "cpu" || /^cuda:\d+$/.test(text)) return text as DeviceFlags["device"];
  throw new InvalidArgumentError('expected "auto", "cpu" or "cuda:N".');
}

export function positiveInteger(text: string): number {
  const value = Number(text);
  if (!/^\d+$/.test(text) || !Number.isSafeInteger(value) || value < 1) {
    throw new InvalidArgumentError("expected a positive integer.");
  }
  return value;
}

export function naturalNumber(text: string): number {
  const value = Number(text);
  if (!/^\d+$/.test(text) || !Number.isSafeInteger(value)) {
    throw new InvalidArgumentError("expected an integer of at least 0.");
  }
  return value;
}

export function positiveNumber(text: string): number {
  const value = Number(text);
  if (!Number.isFinite(value) || value <= 0) throw new InvalidArgumentError("expected a number above 0.");
  return value;
}

export function nonNegativeNumber(text: string): number {
  const value = Number(text);
  if (text.trim() === "" || !Number.isFinite(value) || value < 0) {
    throw new InvalidArgumentError("expected a number of at least 0.");
  }
  return value;
}

export function positiveShare(text: string): number {
  const value = Number(text);
  if (!(value > 0 && value <= 1)) throw new InvalidArgumentError("expected a number above 0 and at most 1.");
  return value;
}
