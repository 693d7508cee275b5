/** Proxies of the environment, with one on this machine that leads every name to a server of the test. */
import { createServer, type Server } from "node:http";
import { type AddressInfo, connect } from "node:net";
import { beforeEach, expect, onTestFinished, test, vi } from "vitest";
import { downloadFiles } from "../../lib/hub/download.js";
import { ChatClient } from "../../lib/interpretation/chatClient.js";
import { says, startServer } from "../interpretation/mockServer.js";
import { startTestHub } from "./hubEnvironment.js";

interface Proxy {
  readonly address: string;
  /** Host and port of every tunnel. */
  readonly tunnels: readonly string[];
  /** The header of every request for one. */
  readonly credentials: readonly (string | undefined)[];
}

beforeEach(() => {
  for (const name of ["HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"]) {
    vi.stubEnv(name, undefined);
    vi.stubEnv(name.toLowerCase(), undefined);
  }
});

/** Tunnels end at the port of `target` on this machine, whatever they are asked for. */
async function startProxy(target: string, status = 200): Promise<Proxy> {
  const [tunnels, credentials]: [string[], (string | undefined)[]] = [[], []];
  const server: Server = createServer((_, response) => response.writeHead(500).end());
  const sockets = new Set<{ destroy(): void }>();
  server.on("connect", (request, socket) => {
    sockets.add(socket);
    tunnels.push(request.url!);
    credentials.push(request.headers["proxy-authorization"]);
    socket.on("error", () => undefined);
    if (status !== 200) return socket.end(`HTTP/1.1 ${status} No\r\n\r\n`);
    const upstream = connect(Number(new URL(target).port), "127.0.0.1", () => {
      socket.write("HTTP/1.1 200 OK\r\n\r\n");
      upstream.pipe(socket).pipe(upstream);
    });
    upstream.on("error", () => socket.destroy());
    sockets.add(upstream);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  onTestFinished(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  return { address: `127.0.0.1:${(server.address() as AddressInfo).port}`, tunnels, credentials };
}

const files = new Map([["config.json", Buffer.from("{}")]]);
const download = () => downloadFiles("owner/model", undefined, (names) => names);

test("downloads go through the proxy, with its name and password", async () => {
  const { server } = await startTestHub({ name: "owner/model", files });
  const proxy = await startProxy(server.endpoint);
  vi.stubEnv("HF_ENDPOINT", "http://hub.invalid");
  vi.stubEnv("HTTP_PROXY", `http://me:secret@${proxy.address}`);
  expect((await download()).files).toEqual(["config.json"]);
  expect(new Set(proxy.tunnels)).toEqual(new Set(["hub.invalid:80"]));
  expect(proxy.credentials[0]).toBe(`Basic ${Buffer.from("me:secret").toString("base64")}`);
});

test("hosts in NO_PROXY and on this machine are asked directly", async () => {
  const { server } = await startTestHub({ name: "owner/model", files });
  const proxy = await startProxy(server.endpoint);
  vi.stubEnv("http_proxy", `http://${proxy.address}`);
  expect((await download()).files).toEqual(["config.json"]);
  vi.stubEnv("HF_ENDPOINT", "http://hub.invalid");
  vi.stubEnv("HF_HOME", `${process.env.HF_HOME}/other`);
  vi.stubEnv("no_proxy", "example.com,.invalid");
  await expect(download()).rejects.toMatchObject({
    code: "ERR_NETWORK",
    message: expect.stringMatching(/cannot reach http:\/\/hub\.invalid: .*(ENOTFOUND|EAI_AGAIN)/),
  });
  expect(proxy.tunnels).toEqual([]);
});

test("the judge's server is asked through the proxy", async () => {
  const judge = await startServer(() => says({ ok: true }));
  const proxy = await startProxy(judge.baseUrl);
  vi.stubEnv("HTTP_PROXY", `http://${proxy.address}`);
  const client = new ChatClient({ baseUrl: "http://judge.invalid/v1", keyVariable: "MONOSEM_TEST_NO_KEY" });
  const answer = { name: "answer", schema: { type: "object" } };
  const reply = await client.complete({
    model: "judge",
    messages: [{ role: "user", content: "hello" }],
    answer,
    maxTokens: 5,
  });
  expect(reply).toMatchObject({ text: '{"ok":true}' });
  expect(proxy.tunnels).toEqual(["judge.invalid:80"]);
});

test("a proxy that refuses, or is none, is an error that does not tell its password", async () => {
  const { server } = await startTestHub({ name: "owner/model", files });
  const proxy = await startProxy(server.endpoint, 407);
  vi.stubEnv("HF_ENDPOINT", "http://hub.invalid");
  vi.stubEnv("HTTP_PROXY", `http://me:secret@${proxy.address}`);
  const refused = await download().catch((error: Error) => error);
  expect(refused).toMatchObject({
    code: "ERR_NETWORK",
    message: expect.stringContaining("the proxy that HTTPS_PROXY or HTTP_PROXY names does not lead there"),
  });
  vi.stubEnv("HTTP_PROXY", "me:secret at the proxy");
  const none = await download().catch((error: Error) => error);
  expect(none).toMatchObject({ code: "ERR_CONFIG", message: expect.stringContaining("HTTP_PROXY") });
  for (const error of [refused, none]) expect((error as Error).message).not.toContain("secret");
});
