import type { DeviceName } from "../lib/engine/device.js";

/**
 * The device of the tests that say nothing about one: MONOSEM_TEST_DEVICE, by default "cpu". `npm run test:cuda-node`
 * runs them on a GPU, emulated or real.
 */
export const testDevice = (process.env.MONOSEM_TEST_DEVICE ?? "cpu") as DeviceName;
