/** What a source gives, looked at before it is worked with: a source may be anybody's. */
import { kindOf, refuseArgument } from "../checkArguments.js";
import type { Device } from "../engine/device.js";
import { Tensor } from "../engine/tensor.js";
import { type ErrorCode, MonosemError } from "../errors.js";
import type { ActivationSource } from "./source.js";

/**
 * @param what - the argument: "Trainer.create: source"
 * @throws MonosemError ERR_INVALID_ARGUMENT for what is no source
 */
export function checkSource(what: string, source: ActivationSource): void {
  if (typeof source !== "object" || source === null) {
    refuseArgument(what, "an ActivationSource (such as await StoredActivations.open(...))", source);
  }
  if (!Number.isSafeInteger(source.dIn) || source.dIn < 1) {
    refuseArgument(`${what}.dIn`, "the width of its activations, a positive integer", source.dIn);
  }
  for (const method of ["next", "saveState", "restoreState"] as const) {
    if (typeof source[method] !== "function") {
      refuseArgument(`${what}.${method}`, "a function (see ActivationSource)", source[method]);
    }
  }
}

/**
 * The source's next activations, which are what it promises; undefined at its end.
 *
 * @throws MonosemError ERR_INVALID_ARGUMENT for what is no promise of a tensor; ERR_SHAPE_MISMATCH for no rows, more than
 *   asked for, or rows of another width than it says; ERR_DTYPE_MISMATCH; ERR_DEVICE_MISMATCH; what the source throws
 */
export async function nextBatch(
  source: ActivationSource,
  batchSize: number,
  device: Device,
  signal: AbortSignal | undefined,
): Promise<Tensor | undefined> {
  const refuse = (code: ErrorCode, expected: string, found: string): never => {
    throw new MonosemError(
      code,
      `next(${batchSize}) of the source of activations (${kindOf(source)}) must give ${expected}, found ${found}`,
    );
  };
  const promised: unknown = source.next(batchSize, signal);
  if (typeof (promised as PromiseLike<unknown> | undefined)?.then !== "function") {
    if (promised instanceof Tensor) promised.dispose();
    refuse("ERR_INVALID_ARGUMENT", "a promise", kindOf(promised));
  }
  const batch = (await promised) as Tensor | undefined;
  if (batch === undefined) return undefined;
  if (!(batch instanceof Tensor)) {
    const expected = "a Tensor (device.tensor(values, [rows, dIn])), or undefined at its end";
    return refuse("ERR_INVALID_ARGUMENT", expected, kindOf(batch));
  }
  try {
    const { shape, dtype } = batch;
    if (batch.device !== device) {
      refuse("ERR_DEVICE_MISMATCH", "a Tensor on the device that is worked on", `one on another, ${batch.device.name}`);
    }
    if (dtype !== "f32") refuse("ERR_DTYPE_MISMATCH", "f32", dtype);
    const [rows = 0, width] = shape;
    if (shape.length !== 2 || width !== source.dIn || rows < 1 || rows > batchSize) {
      const rowsText = batchSize === 1 ? "1 row" : `1 to ${batchSize} rows`;
      const expected = `[rows, ${source.dIn}] with ${rowsText}, or undefined at its end`;
      refuse("ERR_SHAPE_MISMATCH", expected, `[${shape.join(", ")}]`);
    }
    return batch;
  } catch (error) {
    batch.dispose();
    throw error;
  }
}
