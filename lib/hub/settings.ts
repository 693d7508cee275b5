import { readFile } from "node:fs/promises";
import { homedir, userInfo } from "node:os";
import { join } from "node:path";
import { MonosemError } from "../errors.js";

/**
 * Where the hub is and where its files are kept, by the environment variables that Python's `huggingface_hub` reads. A place
 * that is named by an empty variable is not named.
 */
export interface HubSettings {
  /** `HF_ENDPOINT`, without a slash at its end. */
  readonly endpoint: string;
  /** `HF_HUB_CACHE`, or `hub` in `HF_HOME`. */
  readonly cacheDirectory: string;
  /** `HF_HUB_OFFLINE`: no request is made. */
  readonly offline: boolean;
  /** `HF_TOKEN`, or what a login left in `HF_HOME`. Sent to the endpoint and nowhere else. */
  readonly token: string | undefined;
}

/** @throws MonosemError ERR_CONFIG for an HF_ENDPOINT that is no URL or a token that no header can carry. */
export async function readHubSettings(environment: NodeJS.ProcessEnv = process.env): Promise<HubSettings> {
  const { HF_ENDPOINT, HF_HOME, HF_HUB_CACHE, HUGGINGFACE_HUB_CACHE, XDG_CACHE_HOME } = environment;
  const home = expanded(HF_HOME || join(XDG_CACHE_HOME || "~/.cache", "huggingface"));
  return {
    endpoint: endpointOf(HF_ENDPOINT || "https://huggingface.co"),
    cacheDirectory: expanded(HF_HUB_CACHE || HUGGINGFACE_HUB_CACHE || join(home, "hub")),
    offline: isTrue(environment.HF_HUB_OFFLINE) || isTrue(environment.TRANSFORMERS_OFFLINE),
    token: await tokenOf(environment, home),
  };
}

function endpointOf(text: string): string {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url === undefined || !["http:", "https:"].includes(url.protocol)) {
    throw new MonosemError("ERR_CONFIG", `HF_ENDPOINT is ${JSON.stringify(text)}, which is no http or https URL`);
  }
  return text.replace(/\/+$/, "");
}

async function tokenOf(environment: NodeJS.ProcessEnv, home: string): Promise<string | undefined> {
  const { HF_TOKEN, HUGGING_FACE_HUB_TOKEN, HF_TOKEN_PATH, HF_HUB_DISABLE_IMPLICIT_TOKEN } = environment;
  if (isTrue(HF_HUB_DISABLE_IMPLICIT_TOKEN)) return undefined;
  const path = HF_TOKEN_PATH ? expanded(HF_TOKEN_PATH) : join(home, "token");
  const text = HF_TOKEN ?? HUGGING_FACE_HUB_TOKEN ?? (await readFile(path, "utf8").catch(() => ""));
  const token = text.trim();
  if (token === "") return undefined;
  if (/^[\x21-\x7e]+$/.test(token)) return token;
  throw new MonosemError("ERR_CONFIG", `the token in HF_TOKEN or ${path} holds characters that no token has`);
}

/** As Python's: ~ is the user's folder, $NAME and ${NAME} are variables. */
function expanded(path: string): string {
  return path
    .replace(/^~(?=\/|\\|$)/, () => homedir() || userInfo().homedir)
    .replace(/\$(?:(\w+)|\{(\w+)\})/g, (whole, plain, braced) => process.env[plain ?? braced] ?? whole);
}

function isTrue(value: string | undefined): boolean {
  return value !== undefined && ["1", "ON", "YES", "TRUE"].includes(value.toUpperCase());
}
