/** Models with SAEs in them against SAELens' HookedSAETransformer: fixtures/sae/hooked/make_hooked.py. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type AttachOptions, type HookedSaeTransformer, withSae } from "../../lib/analysis/hookedSaeTransformer.js";
import { Device } from "../../lib/engine/device.js";
import type { Tensor } from "../../lib/engine/tensor.js";
import { SafetensorsFile } from "../../lib/formats/safetensors.js";
import { HookedTransformer } from "../../lib/models/hookedTransformer.js";
import { Sae } from "../../lib/sae/sae.js";
import { copyModel } from "../models/families.js";
import { relativeError } from "../models/tinyGpt2.js";
import { testDevice } from "../testDevice.js";

const fixtures = fileURLToPath(new URL("../fixtures/sae/hooked/", import.meta.url));
const names = ["topk", "standard", "jumprelu", "gated", "transcoder"];
const own = ["input", "acts_pre", "acts_post", "recons", "error", "output"];
/** The tokens that make_hooked.py left clean. */
const clean = { errorTerm: true, cleanTokens: [3, 7] };

let device: Device;
let folder: string;
let model: HookedTransformer;
let reference: SafetensorsFile;
let tokens: number[][];
const saes = new Map<string, Sae>();

beforeAll(async () => {
  device = await Device.open(testDevice, { threads: 1 });
  folder = await mkdtemp(join(tmpdir(), "monosem-hooked-"));
  await copyModel("gpt2", folder);
  model = await HookedTransformer.load(folder, device);
  reference = await SafetensorsFile.open(join(fixtures, "reference.safetensors"));
  const { shape, data } = await reference.read("tokens");
  const ids = Array.from(data as Int32Array);
  tokens = [ids.slice(0, shape[1]), ids.slice(shape[1])];
  for (const name of names) saes.set(name, await Sae.load(join(fixtures, name), device));
});
afterAll(async () => {
  await reference[Symbol.asyncDispose]();
  await device.close();
  await rm(folder, { recursive: true });
});

const attached = (name: string, options?: AttachOptions): HookedSaeTransformer =>
  withSae(model, saes.get(name)!, { ...options, allowMismatch: true });

/** Runs `spliced`, with hooks before what is kept, and compares everything that SAELens has of `name`. */
async function compare(
  spliced: HookedSaeTransformer,
  name: string,
  hook?: Parameters<typeof spliced.runWithHooks>[1][0],
) {
  const prefix = `${name}.hook.`;
  const theirs = [...reference.entries.keys()].filter((key) => key.startsWith(prefix));
  expect(theirs.length).toBeGreaterThan(0);
  const seen = new Map<string, { shape: readonly number[]; values: Float32Array }>();
  const read = theirs.map((key) => ({
    name: key.slice(prefix.length),
    hook: async (x: Tensor, at: string) => void seen.set(at, { shape: x.shape, values: await x.readFloat32() }),
  }));
  using logits = await spliced.runWithHooks(tokens, [...(hook === undefined ? [] : [hook]), ...read]);
  for (const key of theirs) {
    const at = key.slice(prefix.length);
    const { shape, values } = seen.get(at)!;
    expect([at, ...shape]).toEqual([at, ...reference.entries.get(key)!.shape]);
    expect(relativeError(values, await reference.readFloat32(key)), key).toBeLessThan(1e-5);
  }
  expect(relativeError(await logits.readFloat32(), await reference.readFloat32(`${name}.logits`))).toBeLessThan(1e-5);
  return theirs;
}

describe.each(names)("%s", (name) => {
  test.each([
    ["", undefined],
    ["+error", { errorTerm: true }],
    ["+clean", clean],
  ])("%s: logits and every hook point", async (suffix, options) => {
    const spliced = attached(name, options);
    const theirs = await compare(spliced, name + suffix);
    const ours = spliced.hookNames.filter((at) => at.includes("hook_sae_"));
    expect(theirs.map((key) => key.split(".hook.")[1]).sort()).toEqual([...ours].sort());
  });

  test.each(own)("what replaces hook_sae_%s goes the same ways", async (point) => {
    const spliced = attached(name, { errorTerm: true });
    const change = {
      name: spliced.hookNames.find((at) => at.endsWith(`hook_sae_${point}`))!,
      hook: async (x: Tensor) => {
        const values = await x.readFloat32();
        return device.tensor(
          values.map((value, i) => value * (1 + 0.7 * Math.sin(i)) + 0.1),
          x.shape,
        );
      },
    };
    await compare(spliced, `${name}+error+${point}`, change);
  });
});

test.each([false, true])("several at once, with errorTerm %s", async (errorTerm) => {
  const all = ["standard", "jumprelu", "gated"].reduce(
    (spliced, name) => spliced.withSae(saes.get(name)!, { errorTerm, allowMismatch: true }),
    attached("topk", { errorTerm }),
  );
  await compare(all, errorTerm ? "all+error" : "all");
});
