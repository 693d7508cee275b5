import { afterAll, beforeAll, expect, test } from "vitest";
import { Device } from "../../lib/engine/device.js";
import { DeadLatents } from "../../lib/training/deadLatents.js";
import { testDevice } from "../testDevice.js";

let device: Device;
beforeAll(async () => {
  device = await Device.open(testDevice, { threads: 1 });
});
afterAll(() => device.close());

/** Codes of `tokens` rows in which exactly the latents `firing` (of 4) fire. */
function codes(firing: readonly number[], tokens: number) {
  const identity = device.tensor(
    Float32Array.from({ length: 16 }, (_, i) => (i % 5 === 0 ? 1 : 0)),
    [4, 4],
  );
  const x = device.zeros([tokens, 4]);
  x.write(Float32Array.from({ length: tokens * 4 }, (_, i) => (i < 4 && firing.includes(i) ? 1 : -1)));
  return device.kernels.encode(x, identity, device.zeros([4]), { select: "positive" });
}

const dead = async (latents: DeadLatents) => [...((await latents.current()?.read()) ?? [])];

test("a latent is dead when it has not fired for deadAfterTokens tokens, counted in tokens and not in steps", async () => {
  const latents = new DeadLatents(device, 4, 10);
  latents.record(codes([0, 1], 9));
  expect(latents.current()).toBeUndefined(); // none can be, and nothing is asked of the device
  latents.record(codes([1], 1));
  expect(await latents.tokensSinceFired.read()).toEqual(Float64Array.of(1, 0, 10, 10));
  expect(await dead(latents)).toEqual([2, 3]);
});

test("firing on one token of a batch revives a latent in that batch", async () => {
  const latents = new DeadLatents(device, 4, 10);
  latents.record(codes([], 20));
  expect(await dead(latents)).toEqual([0, 1, 2, 3]);
  latents.record(codes([3], 20));
  expect(await dead(latents)).toEqual([0, 1, 2]);
});

test("a latent that is selected without being positive has not fired", async () => {
  const latents = new DeadLatents(device, 4, 5);
  const x = device.tensor(new Float32Array(5 * 4).fill(-1), [5, 4]);
  const identity = device.tensor(
    Float32Array.from({ length: 16 }, (_, i) => (i % 5 === 0 ? 1 : 0)),
    [4, 4],
  );
  latents.record(device.kernels.encode(x, identity, device.zeros([4]), { select: "topk", k: 4 }));
  expect(await dead(latents)).toEqual([0, 1, 2, 3]);
});

test("counters continue from a checkpoint", async () => {
  const latents = new DeadLatents(device, 4, 10, { data: Float64Array.of(9, 0, 3, 2 ** 40), tokensSeen: 50 });
  expect(await dead(latents)).toEqual([3]);
  latents.record(codes([], 1));
  expect(await dead(latents)).toEqual([0, 3]);
});
