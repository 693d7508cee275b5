import { MonosemError } from "../errors.js";
import { readJsonLines } from "../formats/jsonLines.js";

export interface LabelledText {
  readonly text: string;
  /** A number or truth value as it is written in JSON. */
  readonly label: string;
  /** What the text is an instance of, for control tasks. */
  readonly type: string | undefined;
}

/**
 * Reads texts with labels: a `.jsonl` file with an object in each line, the text under "text", its label (a string, a
 * number, true or false) under "label", and where there is one its type (a string) under "type". Blank lines and other
 * keys are ignored.
 *
 * @throws MonosemError ERR_NOT_FOUND, ERR_IO; ERR_FORMAT, naming the line, also where some lines have a type and others
 *   none
 */
export async function readLabelledTexts(path: string): Promise<readonly LabelledText[]> {
  const texts: LabelledText[] = [];
  for (const { value, where } of await readJsonLines(path)) {
    const found = labelledText(value, where);
    const first = texts[0] ?? found;
    if ((first.type === undefined) !== (found.type === undefined)) {
      const which =
        found.type === undefined ? "no type, but lines before it have one" : "a type, but lines before it have none";
      throw new MonosemError("ERR_FORMAT", `${where} has ${which}`);
    }
    texts.push(found);
  }
  return texts;
}

function labelledText(record: unknown, where: string): LabelledText {
  const { text, label, type } = (typeof record === "object" && record !== null ? record : {}) as Record<
    string,
    unknown
  >;
  if (typeof text !== "string") {
    throw new MonosemError("ERR_FORMAT", `${where} should be a JSON object with a string under "text"`);
  }
  if (typeof label !== "string" && typeof label !== "number" && typeof label !== "boolean") {
    throw new MonosemError("ERR_FORMAT", `${where} should have a string, a number, true or false under "label"`);
  }
  if (type !== undefined && typeof type !== "string") {
    throw new MonosemError("ERR_FORMAT", `${where} should have a string under "type", or nothing`);
  }
  return { text, label: String(label), type };
}

/** Labels as classes for a probe. */
export interface BinaryLabels {
  /** 1 where the label is `positive`. */
  readonly labels: Uint8Array;
  readonly positive: string;
}

/**
 * One label against all others.
 *
 * @param positive - by default, of two labels the one that comes last in the order of their characters: "true", "1",
 *   "positive"
 * @throws MonosemError ERR_CONFIG for a label that does not occur, for one label only, and for more than two where none is
 *   chosen
 */
export function binaryLabels(texts: readonly LabelledText[], positive?: string): BinaryLabels {
  if (texts.length === 0) throw new MonosemError("ERR_CONFIG", "there are no labelled texts");
  const all = [...new Set(texts.map(({ label }) => label))].sort();
  const named = all.slice(0, 8).map((label) => JSON.stringify(label));
  const list = `${named.join(", ")}${all.length > named.length ? ", ..." : ""}`;
  if (all.length < 2) {
    throw new MonosemError("ERR_CONFIG", `a probe tells labels apart, but the only label is ${list}`);
  }
  if (positive === undefined && all.length > 2) {
    throw new MonosemError(
      "ERR_CONFIG",
      `there are ${all.length} labels (${list}): say which to tell from the others (on the command line with --positive)`,
    );
  }
  const chosen = positive ?? all[1]!;
  if (!all.includes(chosen)) {
    throw new MonosemError("ERR_CONFIG", `no text has the label ${JSON.stringify(chosen)}; the labels are ${list}`);
  }
  return { labels: Uint8Array.from(texts, ({ label }) => Number(label === chosen)), positive: chosen };
}
