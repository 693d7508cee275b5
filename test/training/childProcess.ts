import { type ChildProcessByStdio, spawn } from "node:child_process";
import type { Readable } from "node:stream";

/**
 * Runs an exported function of a TypeScript module of this folder in a process of its own, to be killed or starved. The
 * module is loaded through the same transformer that runs the tests; `fileSizeLimit` (in 512-byte blocks) makes the
 * process's writes fail beyond it, as a full disk would; `environment` is added to this process's own.
 */
export function runInChild(
  module: string,
  exported: string,
  args: readonly unknown[],
  options: { fileSizeLimit?: number; environment?: Readonly<Record<string, string>> } = {},
): ChildProcessByStdio<null, Readable, null> {
  const path = new URL(module, import.meta.url).pathname;
  const program = `
    import { createServer } from "vite";
    const server = await createServer({
      configFile: false,
      logLevel: "silent",
      oxc: { target: "es2022" },
      server: { middlewareMode: true, ws: false },
      optimizeDeps: { noDiscovery: true },
    });
    const loaded = await server.ssrLoadModule(${JSON.stringify(path)});
    await loaded.${exported}(...JSON.parse(process.argv[1]));
    process.exit(0);
  `;
  const node = [process.execPath, "--input-type=module", "-e", program, JSON.stringify(args)];
  const limit = options.fileSizeLimit === undefined ? "" : `ulimit -f ${options.fileSizeLimit}; `;
  return spawn("sh", ["-c", `${limit}exec "$@"`, "sh", ...node], {
    stdio: ["ignore", "pipe", "inherit"],
    env: { ...process.env, ...options.environment },
  });
}
