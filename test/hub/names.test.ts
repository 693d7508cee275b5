import { posix, win32 } from "node:path";
import fc from "fast-check";
import { expect, test } from "vitest";
import { isRepositoryName, partsOfFileName } from "../../lib/hub/names.js";

const suspicious = fc.string({
  unit: fc.constantFrom("a", "B", "..", ".", "/", "\\", ":", "C:", "~", " ", "\u0000", "\u007f", "é", "%2e", "-", "_"),
  maxLength: 12,
});

test("no name that is accepted leads out of a folder, by the rules of any system", () => {
  fc.assert(
    fc.property(fc.oneof(suspicious, fc.string()), (name) => {
      let parts: readonly string[];
      try {
        parts = partsOfFileName(name, "a/b");
      } catch (error) {
        expect(error).toMatchObject({ code: "ERR_FORMAT" });
        return;
      }
      expect(posix.join("/cache/x", ...parts)).toBe(`/cache/x/${name}`);
      expect(win32.join("D:\\cache\\x", ...parts).startsWith("D:\\cache\\x\\")).toBe(true);
      expect(win32.resolve("D:\\cache\\x", ...parts).startsWith("D:\\cache\\x\\")).toBe(true);
    }),
    { numRuns: 20_000 },
  );
});

test("repositories are owner/name or name, and one folder each in the cache", () => {
  for (const name of [
    "gpt2",
    "openai-community/gpt2",
    "fnlp/Llama3_1-8B-Base-LXR-8x",
    "ctigges/pythia-70m-deduped__att-sm_processed",
  ]) {
    expect(isRepositoryName(name), name).toBe(true);
  }
  for (const name of [
    "",
    "a/b/c",
    "../a",
    "a/..",
    "a--b/c",
    "/a",
    "a/",
    ".a/b",
    "a b",
    "a/b\n",
    "a\\b",
    "x".repeat(97),
  ]) {
    expect(isRepositoryName(name), name).toBe(false);
  }
});
