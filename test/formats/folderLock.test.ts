import { type ChildProcess, spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { once } from "node:events";
import { mkdir, mkdtemp, readdir, readFile, rm, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from "vitest";
import { FolderLock, folderLockFile } from "../../lib/formats/folderLock.js";
import { isRunning, startOf } from "../../lib/formats/processes.js";
import { runInChild } from "../training/childProcess.js";

let directory: string;
let folders = 0;
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "monosem-lock-"));
});
afterAll(() => rm(directory, { recursive: true }));

async function newFolder(lock?: object | string): Promise<string> {
  const folder = join(directory, String(folders++));
  await mkdir(folder);
  const text = typeof lock === "string" ? lock : JSON.stringify(lock);
  if (lock !== undefined) await writeFile(join(folder, folderLockFile), text);
  return folder;
}

const acquire = (folder: string, signal?: AbortSignal): Promise<FolderLock> =>
  FolderLock.acquire(folder, { what: "the folder", signal });

/** What this process writes into a lock. */
async function ownHolder(): Promise<Record<string, unknown>> {
  const folder = await newFolder();
  using _lock = await acquire(folder);
  return JSON.parse(await readFile(join(folder, folderLockFile), "utf8"));
}

function ended(child: ChildProcess): Promise<unknown> {
  onTestFinished(() => void child.kill("SIGKILL"));
  return once(child, "close");
}

test("one at a time has it, and it leaves nothing behind", async () => {
  const folder = await newFolder();
  const lock = await acquire(folder);
  await expect(acquire(folder)).rejects.toMatchObject({
    code: "ERR_CONFIG",
    message: expect.stringContaining(`the folder ${folder} is in use by this process itself since `),
  });
  await lock.requireHeld();
  lock.release();
  lock.release();
  expect(await readdir(folder)).toEqual([]);
  (await acquire(folder)).release();
  expect(await readdir(folder)).toEqual([]);
});

test("another process's is named, and free as soon as that process is killed", async () => {
  const folder = await newFolder();
  const child = runInChild("../formats/lockHolder.ts", "holdFolder", [folder]);
  const closed = ended(child);
  await once(child.stdout, "data");
  await expect(acquire(folder)).rejects.toMatchObject({
    code: "ERR_CONFIG",
    message: expect.stringMatching(new RegExp(`is in use by process ${child.pid} on .*remove ${folder}/\\.monosem`)),
  });
  child.kill("SIGKILL");
  await closed;
  expect(await readdir(folder)).toEqual([folderLockFile]);
  using lock = await acquire(folder);
  await lock.requireHeld();
});

test.runIf(process.platform === "linux")(
  "a process that ended and was not asked how, and one with its number but another start, hold nothing",
  async () => {
    // sh becomes a sleep, which asks nothing
    const parent = spawn("sh", ["-c", "sleep 1000 > /dev/null & echo $!; exec sleep 1000"]);
    const closed = ended(parent);
    const pid = Number(String((await once(parent.stdout!, "data"))[0]));
    while ((await readFile(`/proc/${parent.pid}/comm`, "utf8")) !== "sleep\n") await delay(5);
    process.kill(pid, "SIGKILL");
    while (isRunning(pid)) await delay(5);
    expect(startOf(pid)).toBeDefined();
    const own = await ownHolder();
    for (const left of [
      { ...own, pid, start: startOf(pid) },
      { ...own, pid: process.pid, start: "1" },
    ]) {
      const folder = await newFolder(left);
      (await acquire(folder)).release();
      expect(await readdir(folder)).toEqual([]);
    }
    parent.kill("SIGKILL");
    await closed;
  },
);

test("of many that find the lock of a dead process, one gets it", async () => {
  const child = spawn(process.execPath, ["--version"], { stdio: "ignore" });
  await once(child, "close");
  const dead = { ...(await ownHolder()), pid: child.pid, start: "1" };
  for (let round = 0; round < 30; round++) {
    const folder = await newFolder(dead);
    // as of one that was killed while it took the lock over
    if (round % 2 === 1) await writeFile(join(folder, claimOf(JSON.stringify(dead))), JSON.stringify(dead));
    const all = await Promise.allSettled(Array.from({ length: 12 }, () => acquire(folder)));
    const locks = all.flatMap((one) => (one.status === "fulfilled" ? [one.value] : []));
    expect(locks).toHaveLength(1);
    for (const one of all) {
      if (one.status === "rejected") expect(one.reason).toMatchObject({ code: "ERR_CONFIG" });
    }
    await locks[0]!.requireHeld();
    locks[0]!.release();
    expect(await readdir(folder)).toEqual([]);
  }
});

/** What a process makes that is about to replace a lock with this content. */
function claimOf(content: string): string {
  return `${folderLockFile}.0.${createHash("sha256").update(`${folderLockFile}\0${content}`).digest("hex").slice(0, 12)}.tmp`;
}

describe.concurrent("a lock whose holder cannot be asked", () => {
  const elsewhere = { pid: 1, start: "1", host: "another machine", since: "2026-01-01T00:00:00.000Z" };

  test("counts while it gives signs of life", async () => {
    const folder = await newFolder(elsewhere);
    const beat = setInterval(() => void utimes(join(folder, folderLockFile), new Date(), new Date()), 500);
    onTestFinished(() => clearInterval(beat));
    await expect(acquire(folder)).rejects.toMatchObject({
      code: "ERR_CONFIG",
      message: expect.stringContaining("process 1 on another machine since 2026"),
    });
  });

  test.each([
    ["of another machine", elsewhere],
    ["of a process that died before it had written its name", ""],
  ])("and gives none is free: %s, with a time in the future, too", async (_, content) => {
    const folder = await newFolder(content);
    const tomorrow = new Date(Date.now() + 86_400_000);
    await utimes(join(folder, folderLockFile), tomorrow, tomorrow);
    (await acquire(folder)).release();
    expect(await readdir(folder)).toEqual([]);
  });

  test("can be waited for no longer", async () => {
    const stop = new AbortController();
    const waiting = acquire(await newFolder(elsewhere), stop.signal);
    stop.abort();
    await expect(waiting).rejects.toMatchObject({ code: "ERR_ABORTED" });
  });
});

test("who lost it is told, and leaves the other's alone", async () => {
  const folder = await newFolder();
  const lock = await acquire(folder);
  await rm(join(folder, folderLockFile));
  await expect(lock.requireHeld()).rejects.toMatchObject({ code: "ERR_IO", message: /it was removed/ });
  using other = await acquire(folder);
  await expect(lock.requireHeld()).rejects.toMatchObject({
    code: "ERR_IO",
    message: /it is of this process itself now/,
  });
  lock.release();
  await other.requireHeld();
});

test("a folder that takes no file is named", async () => {
  const missing = join(directory, "missing");
  await expect(acquire(missing)).rejects.toMatchObject({
    code: "ERR_IO",
    message: `cannot lock the folder ${missing} against other processes: ENOENT: no such file or directory; the folder must be one that files can be made in`,
  });
});
