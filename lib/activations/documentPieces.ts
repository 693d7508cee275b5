/** Aims at this many UTF-16 units per piece: some milliseconds of tokenising. */
const usualLength = 2048;
const greatestLength = 16384;

/**
 * Cuts a document into pieces that can be tokenised one after the other, so that neither a large document nor the time
 * that its tokenising takes is ever held in one go.
 *
 * Cuts are made before a single space or line break between two words, where the pre-tokenisers of GPT-2 and its
 * relatives cut too: the tokens are those of the whole document. Only text without any such place for 16384 characters
 * is cut elsewhere (never inside a character). Where the cuts fall depends on the text alone, not on how `chunks` come.
 */
export async function* documentPieces(
  chunks: AsyncIterable<string> | Iterable<string>,
): AsyncGenerator<string, void, undefined> {
  let text = "";
  for await (const chunk of chunks) {
    text += chunk;
    let begin = 0;
    // One more unit than the longest piece: a boundary is recognised by the character behind it.
    while (text.length - begin > greatestLength + 1) {
      const end = begin + pieceLength(text, begin);
      yield text.slice(begin, end);
      begin = end;
    }
    text = text.slice(begin);
  }
  if (text !== "") yield text;
}

function pieceLength(text: string, begin: number): number {
  for (let length = usualLength; length > 0; length--) {
    if (isWordBoundary(text, begin + length)) return length;
  }
  for (let length = usualLength + 1; length <= greatestLength; length++) {
    if (isWordBoundary(text, begin + length)) return length;
  }
  const splitsCharacter = /[\uDC00-\uDFFF]/.test(text[begin + greatestLength]!);
  return splitsCharacter ? greatestLength - 1 : greatestLength;
}

function isWordBoundary(text: string, position: number): boolean {
  const character = text[position];
  return (
    (character === " " || character === "\n") && !/\s/.test(text[position - 1]!) && !/\s/.test(text[position + 1]!)
  );
}
