/** The names nearest to a mistyped one, by edit distance, for error messages: at most three, the nearest first. */
export function closestNames(wanted: string, names: readonly string[]): string[] {
  return names
    .map((name) => ({ name, distance: editDistance(wanted, name) }))
    .sort((a, b) => a.distance - b.distance)
    .slice(0, 3)
    .map(({ name }) => name);
}

/** What a mistyped name was probably meant to be: one that shares most of its characters; undefined where none does. */
export function probableName(wanted: string, names: readonly string[]): string | undefined {
  const [nearest] = closestNames(wanted, names);
  if (nearest === undefined) return undefined;
  const distance = editDistance(wanted, nearest);
  return distance < wanted.length && distance <= Math.ceil(wanted.length / 3) ? nearest : undefined;
}

/** Levenshtein distance: insertions, deletions and substitutions of one character. */
function editDistance(a: string, b: string): number {
  let previous = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const current = [i];
    for (let j = 1; j <= b.length; j++) {
      const substitution = previous[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1);
      current.push(Math.min(substitution, previous[j]! + 1, current[j - 1]! + 1));
    }
    previous = current;
  }
  return previous[b.length]!;
}
