import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { writeSafetensors } from "../../lib/formats/safetensors.js";
import { HubConnection } from "../../lib/hub/connection.js";
import { RemoteSafetensors } from "../../lib/hub/remoteSafetensors.js";
import { HubRepository } from "../../lib/hub/repository.js";
import { readHubSettings } from "../../lib/hub/settings.js";
import { startTestHub } from "./hubEnvironment.js";
import type { HubServer } from "./hubServer.js";

const values = Float32Array.from({ length: 1000 }, (_, i) => i / 7);

async function serveTensors(): Promise<{ server: HubServer; open: () => Promise<RemoteSafetensors> }> {
  const folder = await mkdtemp(join(tmpdir(), "monosem-remote-"));
  onTestFinished(() => rm(folder, { recursive: true }));
  const path = join(folder, "x.safetensors");
  await writeSafetensors(path, {
    large: { shape: [10, 100], data: values },
    small: { shape: [3], data: Int32Array.of(4, 5, 6) },
  });
  const { server } = await startTestHub({ name: "a/b", files: new Map([["x.safetensors", await readFile(path)]]) });
  const connection = new HubConnection(await readHubSettings());
  const open = async (): Promise<RemoteSafetensors> => {
    const [file] = await (await HubRepository.open("a/b", "main", connection)).files();
    return await RemoteSafetensors.open(file!, connection);
  };
  return { server, open };
}

test("header and single tensors of a remote file are read by ranges, nothing else is", async () => {
  const { server, open } = await serveTensors();
  const remote = await open();
  expect([...remote.entries.keys()].sort()).toEqual(["large", "small"]);
  expect(remote.entries.get("large")).toMatchObject({ dtype: "F32", shape: [10, 100] });
  expect(await remote.read("small")).toEqual({ dtype: "I32", shape: [3], data: Int32Array.of(4, 5, 6) });
  expect((await remote.read("large")).data).toEqual(values);
  await expect(remote.read("none")).rejects.toMatchObject({ code: "ERR_NOT_FOUND", message: /no tensor none: / });
  const ranges = server.requests.filter(({ url }) => url.startsWith("/lfs/")).map(({ range }) => range);
  expect(ranges).toHaveLength(4);
  expect(ranges).not.toContain(undefined);
});

test("a server that does not send the range asked for is refused", async () => {
  const { server, open } = await serveTensors();
  server.misbehave = (request, response) => {
    if (!request.url!.startsWith("/lfs/")) return false;
    response.writeHead(200).end("the whole");
    return true;
  };
  await expect(open()).rejects.toMatchObject({
    code: "ERR_NETWORK",
    message: /asked for bytes=0-7, the server sent 9 bytes/,
  });
});

test("a server that does not know ranges may send a small file whole", async () => {
  const { server, open } = await serveTensors();
  server.misbehave = (request) => {
    delete request.headers.range;
    return false;
  };
  const remote = await open();
  expect(await remote.read("small")).toEqual({ dtype: "I32", shape: [3], data: Int32Array.of(4, 5, 6) });
});

test("a large file that is sent whole is cut off", async () => {
  const { server, open } = await serveTensors();
  let sent = 0;
  server.misbehave = (request, response) => {
    if (!request.url!.startsWith("/lfs/")) return false;
    response.writeHead(200);
    const more = (): void => {
      sent += 1;
      if (!response.destroyed) response.write(Buffer.alloc(2 ** 16), more);
    };
    more();
    return true;
  };
  await expect(open()).rejects.toMatchObject({
    code: "ERR_NETWORK",
    message: /the answer is longer than 1048576 bytes/,
  });
  expect(sent).toBeGreaterThan(16);
});
