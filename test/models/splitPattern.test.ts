import { expect, test } from "vitest";
import { problemOfPattern } from "../../lib/models/splitPattern.js";

test.each([
  ["GPT-2", String.raw`'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`],
  [
    "Llama 3, Qwen 2 and 3",
    String.raw`(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`,
  ],
  [
    "GPT-4o, Mistral Nemo",
    String.raw`[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+`,
  ],
  [
    "DeepSeek V3",
    String.raw`[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_\`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`,
  ],
  ["BLOOM", String.raw` ?[^(\s|[.,!?…。，、।۔،])]+`],
  ["groups of three digits", String.raw`\d{1,3}(?=(?:\d{3})*\b)`],
  ["signs that stand for themselves", String.raw`[]a[:alpha:]+*?()|{}]+\(\)\*\p{L}+\x{1F600}?[^]|]*{}`],
])("the pattern of %s is matched", (_, pattern) => {
  expect(problemOfPattern(pattern)).toBeUndefined();
});

test.each([
  ["(?:a+)+$", 'repeats what can itself match in several ways: "(?:a+)+"'],
  ["(a|a)*b", "repeats what can itself match in several ways"],
  ["x(?:a?){30}", "repeats what can itself match in several ways"],
  ["((?<n>[a-z]*))+", "repeats what can itself match in several ways"],
  ["a{1,5}+b", 'repeats what can itself match in several ways: "a{1,5}+"'],
  ["(a+){1,999999999999999999999999}", "repeats what can itself match in several ways"],
  ["(?=(a*)*b)", "repeats what can itself match in several ways"],
  [`${"a?".repeat(30)}${"a".repeat(30)}`, "has 30 optional or repeated parts in a row, over 12"],
  ["(a|a)".repeat(30), "has 30 optional or repeated parts in a row, over 12"],
  [`${"(".repeat(1000)}a${")".repeat(1000)}`, "nests more than 30 groups"],
  ["a".repeat(10_001), "must have at most 10000 characters, not 10001"],
  ["", "must not be empty"],
])("a pattern that could take forever is refused: case %#", (pattern, problem) => {
  expect(problemOfPattern(pattern)).toContain(problem);
});

test("what is no pattern ends as well", () => {
  for (const pattern of ["(", ")", "[", "[^", "\\", "a{", "(?", "[[[]", "|||", "\\p{", "*", "(a))+b"])
    problemOfPattern(pattern);
});
