import { afterAll, beforeAll, expect, test } from "vitest";
import { Device } from "../../lib/engine/device.js";
import { RandomGenerator } from "../../lib/engine/random.js";
import { testDevice } from "../testDevice.js";

let device: Device;
beforeAll(async () => {
  device = await Device.open(testDevice, { threads: 2 });
});
afterAll(() => device.close());

async function uniform(generator: RandomGenerator, size: number): Promise<Float32Array> {
  using tensor = device.empty([size]);
  generator.uniform(tensor, -1, 3);
  return tensor.readFloat32();
}

test("a generator continues from its seed and offset: two draws of 5 are one of 10", async () => {
  const whole = await uniform(new RandomGenerator(7), 10);
  const generator = new RandomGenerator(7);
  const first = await uniform(generator, 5);
  expect(generator.offset).toBe(5);
  const second = await uniform(new RandomGenerator(generator.seed, generator.offset), 5);
  expect([...first, ...second]).toEqual([...whole]);
});

test("seeds differ, and numbers keep to their range", async () => {
  const a = await uniform(new RandomGenerator(1), 10_000);
  const b = await uniform(new RandomGenerator(2), 10_000);
  expect(a).not.toEqual(b);
  expect(Math.min(...a)).toBeGreaterThanOrEqual(-1);
  expect(Math.max(...a)).toBeLessThan(3);
  const mean = a.reduce((sum, value) => sum + value, 0) / a.length;
  expect(Math.abs(mean - 1)).toBeLessThan(6 * (4 / Math.sqrt(12) / Math.sqrt(a.length)));
});

test("normal numbers have the standard deviation asked for", async () => {
  using tensor = device.empty([100, 100]);
  new RandomGenerator(3).normal(tensor, 2);
  const values = await tensor.readFloat32();
  const variance = values.reduce((sum, value) => sum + value * value, 0) / values.length;
  expect(Math.abs(variance / 4 - 1)).toBeLessThan(6 * Math.sqrt(2 / values.length));
});

test("a permutation has every number once, and the offset moves on", async () => {
  const generator = new RandomGenerator(5);
  using first = generator.permutation(device, 1000);
  expect(generator.offset).toBe(1000);
  using second = generator.permutation(device, 1000);
  const a = await first.read();
  const b = await second.read();
  const all = Array.from({ length: 1000 }, (_, i) => i);
  expect([...a].sort((x, y) => x - y)).toEqual(all);
  expect([...b].sort((x, y) => x - y)).toEqual(all);
  expect(a).not.toEqual(b);
  using none = generator.permutation(device, 0);
  expect(await none.read()).toEqual(new Int32Array(0));
});
