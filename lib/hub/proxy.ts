import type { Dispatcher } from "undici";
import { MonosemError } from "../errors.js";

/** The proxies in the environment and what goes through them. */
let current: { readonly key: string; readonly agent: Dispatcher } | undefined;

/**
 * `fetch` by way of the proxies that the environment names, as other programs read it: `HTTPS_PROXY` and `HTTP_PROXY`, and
 * in `NO_PROXY` hosts that are asked directly (lower-case names count first). Servers on this machine always are.
 *
 * Node 20's own `fetch` knows none of them.
 *
 * @throws as `fetch`; MonosemError ERR_CONFIG for a proxy that is no address
 */
export async function fetchThroughProxy(url: URL, options: RequestInit): Promise<Response> {
  const { env } = process;
  const [httpProxy, httpsProxy] = [env.http_proxy ?? env.HTTP_PROXY, env.https_proxy ?? env.HTTPS_PROXY];
  if ((!httpProxy && !httpsProxy) || isThisMachine(url.hostname)) return await fetch(url, options);
  const undici = await import("undici");
  const key = JSON.stringify([httpProxy, httpsProxy]);
  if (current?.key !== key) {
    try {
      current = { key, agent: new undici.EnvHttpProxyAgent() };
    } catch (cause) {
      // without the value, which may hold a password
      throw new MonosemError("ERR_CONFIG", "HTTPS_PROXY or HTTP_PROXY is no address such as http://host:port", {
        cause,
      });
    }
  }
  const { agent: dispatcher } = current;
  try {
    // undici's types and Node's, of the same standard, differ in details
    return (await undici.fetch(url, { ...options, dispatcher } as never)) as unknown as Response;
  } catch (error) {
    const { cause } = error as { readonly cause?: unknown };
    // undici's word for a tunnel that the proxy does not open
    if (!(cause instanceof DOMException) || options.signal?.aborted) throw error;
    const reason = new Error("the proxy that HTTPS_PROXY or HTTP_PROXY names does not lead there", { cause });
    throw new TypeError("fetch failed", { cause: reason });
  }
}

export function isThisMachine(hostname: string): boolean {
  return hostname === "localhost" || hostname === "[::1]" || /^127\.\d+\.\d+\.\d+$/.test(hostname);
}
