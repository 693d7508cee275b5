import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { onTestFinished, vi } from "vitest";
import { HubServer, type ServedRepository } from "./hubServer.js";

const otherVariables = [
  "HF_HUB_CACHE",
  "HUGGINGFACE_HUB_CACHE",
  "HF_HUB_OFFLINE",
  "TRANSFORMERS_OFFLINE",
  "HF_TOKEN",
  "HUGGING_FACE_HUB_TOKEN",
  "HF_TOKEN_PATH",
  "HF_HUB_DISABLE_IMPLICIT_TOKEN",
];

export interface TestHub {
  readonly server: HubServer;
  /** HF_HOME; the cache is `hub` in it. */
  readonly home: string;
}

/** A hub of these repositories and an empty cache, named by the environment until the test is over. */
export async function startTestHub(...repositories: readonly ServedRepository[]): Promise<TestHub> {
  const server = await HubServer.start(...repositories);
  const home = await mkdtemp(join(tmpdir(), "monosem-hub-"));
  vi.stubEnv("HF_ENDPOINT", server.endpoint);
  vi.stubEnv("HF_HOME", home);
  for (const name of otherVariables) vi.stubEnv(name, undefined);
  onTestFinished(async () => {
    vi.unstubAllEnvs();
    await server.stop();
    await rm(home, { recursive: true, force: true });
  });
  return { server, home };
}
