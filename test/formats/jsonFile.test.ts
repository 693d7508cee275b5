import { execFile } from "node:child_process";
import { mkdtemp, open, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { readJsonFile } from "../../lib/formats/jsonFile.js";
import { readJsonLines } from "../../lib/formats/jsonLines.js";
import { parseJsonText } from "../../lib/formats/jsonText.js";

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "monosem-json-"));
});
afterAll(() => rm(folder, { recursive: true }));

async function fileWith(text: string): Promise<string> {
  const path = join(folder, "a.json");
  await writeFile(path, text);
  return path;
}

describe("JSON that would exhaust the stack or the memory is refused with the file's name", () => {
  test.each([
    ["lists", "[".repeat(20_000) + "]".repeat(20_000)],
    ["objects", '{"a":'.repeat(20_000) + 1 + "}".repeat(20_000)],
    ["what is no JSON", "[{".repeat(200_000)],
  ])("deeply nested: %s", async (_, text) => {
    const path = await fileWith(`{"x":${text}}`);
    const message = `${path} nests lists and objects more than 100 times`;
    await expect(readJsonFile(path)).rejects.toMatchObject({
      code: "ERR_FORMAT",
      message: expect.stringContaining(message),
    });
  });

  test("100 levels are read, in a list, an object and on each line", async () => {
    const text = `${"[".repeat(100)}${"]".repeat(100)}`;
    expect(parseJsonText(text, "a list")).toEqual(JSON.parse(text));
    const path = await fileWith(`${text}\n[]\n${text.replaceAll("[", '{"a":[').replaceAll("]", "]}")}`);
    await expect(readJsonLines(path)).rejects.toThrow(`${path}:3 nests lists and objects more than 100 times`);
  });

  test("brackets, commas and escaped quotes in strings do not count", () => {
    const strings = ["[".repeat(1000), "{,".repeat(1000), '"[\\"['.repeat(1000), "\\", '\\"', ""];
    for (const string of strings) {
      for (const text of [JSON.stringify([string]), JSON.stringify({ [string]: string })]) {
        expect(parseJsonText(text, "a text")).toEqual(JSON.parse(text));
      }
    }
    expect(() => parseJsonText('["\\', "a text")).toThrow("a text is not JSON");
  });

  test("too many values", () => {
    expect(() => parseJsonText(`[${"[],".repeat(5_100_000)}[]]`, "a text")).toThrow(
      "a text has more than 10000000 values",
    );
  });

  test("with the code that the caller asks for", async () => {
    const path = await fileWith("[".repeat(200));
    await expect(readJsonFile(path, { malformed: "ERR_CONFIG" })).rejects.toMatchObject({ code: "ERR_CONFIG" });
  });
});

describe("what is no file of a sensible size is refused before it is read", () => {
  test("devices, pipes and folders", async () => {
    const [device, pipe] = [join(folder, "device.json"), join(folder, "pipe.json")];
    await symlink("/dev/zero", device);
    await promisify(execFile)("mkfifo", [pipe]);
    for (const path of [device, pipe]) {
      await expect(readJsonFile(path)).rejects.toMatchObject({
        code: "ERR_IO",
        message: `cannot read ${path}: it is not a regular file`,
      });
    }
    await expect(readJsonFile(folder)).rejects.toMatchObject({ code: "ERR_IO" });
  });

  test("a file of more than 128 MiB", async () => {
    const path = join(folder, "large.json");
    const file = await open(path, "w");
    await file.truncate(2 ** 27 + 1);
    await file.close();
    await expect(readJsonFile(path)).rejects.toMatchObject({
      code: "ERR_FORMAT",
      message: expect.stringContaining(`${path} has more than 134217728 bytes`),
    });
  });

  test("links to files are followed", async () => {
    const path = join(folder, "link.json");
    await symlink(await fileWith('{"a":1}'), path);
    expect(await readJsonFile(path)).toEqual({ a: 1 });
  });
});

test("a pipe that a shell has opened is read to its end", async () => {
  const library = new URL("../../dist/formats/jsonFile.js", import.meta.url).href;
  const program = `const { readJsonFile } = await import(${JSON.stringify(library)}); console.log(JSON.stringify(await readJsonFile(process.argv[1])));`;
  const script = `node --input-type=module -e "$0" <(printf '{"a":'; sleep 0.2; printf '[1]}')`;
  const { stdout } = await promisify(execFile)("bash", ["-c", script, program]);
  expect(stdout).toBe('{"a":[1]}\n');
});
