import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { homedir, tmpdir, userInfo } from "node:os";
import { join } from "node:path";
import { expect, onTestFinished, test, vi } from "vitest";
import { readHubSettings } from "../../lib/hub/settings.js";

test("the environment says where the cache is, as it does for Python", async () => {
  const cache = async (environment: NodeJS.ProcessEnv): Promise<string> =>
    (await readHubSettings({ HF_TOKEN: "t", ...environment })).cacheDirectory;
  expect(await cache({})).toBe(join(homedir(), ".cache/huggingface/hub"));
  expect(await cache({ XDG_CACHE_HOME: "/x" })).toBe("/x/huggingface/hub");
  expect(await cache({ HF_HOME: "/h", XDG_CACHE_HOME: "/x" })).toBe("/h/hub");
  expect(await cache({ HF_HOME: "/h", HUGGINGFACE_HUB_CACHE: "/old" })).toBe("/old");
  expect(await cache({ HF_HOME: "/h", HF_HUB_CACHE: "~/c", HUGGINGFACE_HUB_CACHE: "/old" })).toBe(join(homedir(), "c"));
});

test("an empty variable names no place", async () => {
  const cache = async (environment: NodeJS.ProcessEnv): Promise<string> =>
    (await readHubSettings({ HF_TOKEN: "t", ...environment })).cacheDirectory;
  expect(await cache({ HF_HUB_CACHE: "", HUGGINGFACE_HUB_CACHE: "", HF_HOME: "/h" })).toBe("/h/hub");
  expect(await cache({ HF_HOME: "", XDG_CACHE_HOME: "" })).toBe(join(homedir(), ".cache/huggingface/hub"));
  expect((await readHubSettings({ HF_TOKEN: "t", HF_ENDPOINT: "" })).endpoint).toBe("https://huggingface.co");
  vi.stubEnv("HOME", "");
  onTestFinished(() => void vi.unstubAllEnvs());
  expect(await cache({})).toBe(join(userInfo().homedir, ".cache/huggingface/hub"));
});

test("the token is that of HF_TOKEN, else the one that a login left", async () => {
  const home = await mkdtemp(join(tmpdir(), "monosem-token-"));
  onTestFinished(() => rm(home, { recursive: true }));
  const token = async (environment: NodeJS.ProcessEnv): Promise<string | undefined> =>
    (await readHubSettings({ HF_HOME: home, ...environment })).token;
  expect(await token({})).toBeUndefined();
  await writeFile(join(home, "token"), "hf_saved\n");
  expect(await token({})).toBe("hf_saved");
  expect(await token({ HF_TOKEN: "hf_given" })).toBe("hf_given");
  expect(await token({ HF_HUB_DISABLE_IMPLICIT_TOKEN: "1" })).toBeUndefined();
  await mkdir(join(home, "elsewhere"));
  await writeFile(join(home, "elsewhere/token"), "hf_elsewhere");
  expect(await token({ HF_TOKEN_PATH: join(home, "elsewhere/token") })).toBe("hf_elsewhere");
  await expect(token({ HF_TOKEN: "a\nb: c" })).rejects.toMatchObject({ code: "ERR_CONFIG" });
});

test("endpoint and offline mode", async () => {
  const settings = (environment: NodeJS.ProcessEnv): ReturnType<typeof readHubSettings> =>
    readHubSettings({ HF_TOKEN: "t", ...environment });
  expect(await settings({})).toMatchObject({ endpoint: "https://huggingface.co", offline: false });
  expect(await settings({ HF_ENDPOINT: "http://mirror/", HF_HUB_OFFLINE: "yes" })).toMatchObject({
    endpoint: "http://mirror",
    offline: true,
  });
  await expect(settings({ HF_ENDPOINT: "mirror" })).rejects.toMatchObject({ code: "ERR_CONFIG" });
});
