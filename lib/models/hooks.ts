/**
 * How hooks meet a forward pass.
 *
 * A forward pass is a generator that enqueues kernels and, at every hook point that somebody asked for, yields the
 * activation and continues with what it is given back. Nothing else stands between two kernels, so a pass without hooks
 * runs in one go; a pass that is not needed any further is simply not resumed, and its temporaries are freed by their
 * own `using`.
 */
import { kindOf } from "../checkArguments.js";
import { Tensor } from "../engine/tensor.js";
import { MonosemError, throwIfAborted, untilAborted } from "../errors.js";

/** In messages. */
const what = "the run of the model";

/**
 * Looks at an activation, and may replace it by returning another tensor of the same shape.
 *
 * The activation belongs to the model and is gone when the hook (or its promise) is done, or the run is aborted; to keep it, keep
 * `activation.reshape(activation.shape)`, which shares its memory: the model never writes into an activation again, and
 * neither may a hook. A returned tensor belongs to the model from then on.
 */
export type Hook = (
  activation: Tensor,
  name: string,
  // biome-ignore lint/suspicious/noConfusingVoidType: a hook that only reads has no return statement
) => Tensor | void | Promise<Tensor | void>;

/** A hook and the name of the hook point at which it runs. */
export interface NamedHook {
  readonly name: string;
  readonly hook: Hook;
}

/** @throws MonosemError ERR_INVALID_ARGUMENT for what is no list of hooks */
export function checkHooks(hooks: readonly NamedHook[]): void {
  const expected = "must be { name, hook }: the name of a hook point, and a function";
  if (!Array.isArray(hooks)) {
    throw new MonosemError(
      "ERR_INVALID_ARGUMENT",
      `hooks must be a list, of which each ${expected}; found ${kindOf(hooks)}`,
    );
  }
  for (const [index, entry] of (hooks as readonly (Partial<NamedHook> | null | undefined)[]).entries()) {
    if (typeof entry?.name === "string" && typeof entry.hook === "function") continue;
    const isObject = typeof entry === "object" && entry !== null && !Array.isArray(entry);
    const found = isObject ? `name is ${kindOf(entry.name)}, hook is ${kindOf(entry.hook)}` : `found ${kindOf(entry)}`;
    throw new MonosemError("ERR_INVALID_ARGUMENT", `hooks[${index}] ${expected}; ${found}`);
  }
}

/** A forward pass stops here for hooks; it continues with a replacement, or with undefined. */
export interface HookCall {
  readonly name: string;
  /** In the shape that TransformerLens gives it. */
  readonly activation: Tensor;
}

/** A forward pass under way; its result belongs to the one who runs it. */
export type ForwardPass = Generator<HookCall, Tensor, Tensor | undefined>;

/**
 * A hook point: shows `value` to the hooks in the shape `shape`. Takes `value` over; the result, `value` itself or the
 * replacement in `value`'s shape, belongs to the caller.
 */
export function* hookPoint(name: string, value: Tensor, shape: readonly number[]): ForwardPass {
  let result: Tensor | undefined;
  try {
    using activation = value.reshape(shape);
    const replacement = yield { name, activation };
    if (replacement === undefined) {
      result = value;
    } else {
      using owned = replacement;
      result = owned.reshape(value.shape);
    }
    return result;
  } finally {
    if (result !== value) value.dispose();
  }
}

/**
 * Runs a forward pass to its end, with hooks.
 *
 * @param hooks - several at one hook point run in their order, each on the result of the one before
 * @throws MonosemError ERR_ABORTED when `signal` fires; ERR_INVALID_ARGUMENT for what a hook returns that is no tensor; ERR_SHAPE_MISMATCH, ERR_DTYPE_MISMATCH and ERR_DEVICE_MISMATCH
 *   for a replacement that does not fit; whatever a hook throws
 */
export async function runPass(pass: ForwardPass, hooks: readonly NamedHook[], signal?: AbortSignal): Promise<Tensor> {
  throwIfAborted(signal, what);
  let step = pass.next();
  while (!step.done) {
    let replacement: Tensor | undefined;
    try {
      throwIfAborted(signal, what);
      replacement = await answer(step.value, hooks, signal);
    } catch (error) {
      pass.return(undefined as never); // frees what the pass holds
      throw error;
    }
    step = pass.next(replacement);
  }
  return step.value;
}

/**
 * What the hooks of this hook point make of its activation: the caller's to dispose, undefined where none replaces it.
 *
 * @throws MonosemError as `runPass`
 */
export async function answer(
  call: HookCall,
  hooks: readonly NamedHook[],
  signal: AbortSignal | undefined,
): Promise<Tensor | undefined> {
  let replacement: Tensor | undefined;
  try {
    for (const { name, hook } of hooks) {
      if (name !== call.name) continue;
      const current: Tensor = replacement ?? call.activation;
      const returned = await resultOf(hook, current, name, signal);
      if (returned === undefined || returned === current) continue;
      checkReturned(name, returned);
      replacement?.dispose();
      replacement = returned;
      checkReplacement(name, replacement, call.activation);
    }
  } catch (error) {
    replacement?.dispose();
    throw error;
  }
  return replacement;
}

/**
 * What a hook returns. A run that is aborted does not wait for it: what the hook returns after that nobody uses, so it is
 * freed, and what it throws nobody hears.
 */
async function resultOf(
  hook: Hook,
  activation: Tensor,
  name: string,
  signal: AbortSignal | undefined,
): Promise<Awaited<ReturnType<Hook>>> {
  const work = Promise.resolve(hook(activation, name));
  try {
    return await untilAborted(work, signal, what);
  } catch (error) {
    const free = (late: unknown): void => {
      if (late instanceof Tensor && late !== activation) late.dispose();
    };
    work.then(free, () => undefined);
    throw error;
  }
}

function checkReturned(name: string, returned: Tensor): void {
  if (returned instanceof Tensor) return;
  throw new MonosemError(
    "ERR_INVALID_ARGUMENT",
    `the hook at ${name} returned ${kindOf(returned)}; expected a Tensor that replaces the activation ` +
      "(device.tensor(values, activation.shape)), or nothing",
  );
}

function checkReplacement(name: string, replacement: Tensor, activation: Tensor): void {
  const refuse = (
    code: "ERR_SHAPE_MISMATCH" | "ERR_DTYPE_MISMATCH" | "ERR_DEVICE_MISMATCH",
    problem: string,
  ): never => {
    throw new MonosemError(code, `the replacement that a hook returned at ${name} ${problem}`);
  };
  if (replacement.device !== activation.device) {
    refuse("ERR_DEVICE_MISMATCH", `lies on ${replacement.device.name}, the model on another device`);
  }
  if (replacement.dtype !== activation.dtype) {
    refuse("ERR_DTYPE_MISMATCH", `is ${replacement.dtype}, expected ${activation.dtype}`);
  }
  const { shape } = activation;
  if (replacement.shape.length !== shape.length || replacement.shape.some((length, i) => length !== shape[i])) {
    refuse("ERR_SHAPE_MISMATCH", `has shape [${replacement.shape.join(", ")}], expected [${shape.join(", ")}]`);
  }
}
