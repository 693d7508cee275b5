import type { DeviceName } from "../lib/engine/device.js";

/**
 * The device of the tests that say nothing about one: MONOSEM_TEST_DEVICE, by default "cpu". `npm run test:cuda` runs them
 * on an emulated GPU, `scripts/gpu-verify` on a real one.
 */
export const testDevice = (process.env.MONOSEM_TEST_DEVICE ?? "cpu") as DeviceName;
