import { fileURLToPath } from "node:url";
import { defineConfig } from "vitest/config";

const library = fileURLToPath(new URL("../../build/native-tests/libmonosem_cuda_emulated.so", import.meta.url));

/**
 * `npm run test:cuda-node`: the suites that compute, on a GPU. By default an emulated one (`npm run build:cuda-emulated`);
 * `MONOSEM_TEST_DEVICE=cuda:0 MONOSEM_CUDA_LIBRARY=FILE` for a real one.
 */
export default defineConfig({
  test: {
    include: [
      "test/cuda/**/*.test.ts",
      "test/engine/{codes,decoderKernels,denseKernels,drawFeatures,entryKernels,kernels,random,tensor}.test.ts",
      "test/models/{families,generation,hookedTransformer,processing}.test.ts",
      "test/sae/**/*.test.ts",
      "test/training/{deadLatents,goldens,nonFinite,resampling,severalSaes,trainer}.test.ts",
    ],
    env: {
      MONOSEM_TEST_DEVICE: process.env.MONOSEM_TEST_DEVICE ?? "cuda:0",
      MONOSEM_CUDA_LIBRARY: process.env.MONOSEM_CUDA_LIBRARY ?? library,
    },
    pool: "forks",
    maxWorkers: 2,
    testTimeout: 1_800_000, // against hanging, not for speed: the emulation is slow
  },
});
