/**
 * What tells folders apart: each path without the leading and trailing parts that all have in common. A single path, and
 * paths of which nothing would be left, stay as they are.
 */
export function distinctNames(paths: readonly string[]): readonly string[] {
  if (new Set(paths).size < 2) return paths;
  const split = paths.map((path) => path.split("/").filter((part) => part !== "" && part !== "."));
  const leading = commonParts(split);
  const rest = split.map((parts) => parts.slice(leading).reverse());
  const trailing = commonParts(rest);
  const names = rest.map((parts) => parts.slice(trailing).reverse().join("/"));
  return names.includes("") ? paths : names;
}

/** How many parts all lists begin with. */
function commonParts(lists: readonly (readonly string[])[]): number {
  const [first] = lists;
  const different = first!.findIndex((part, index) => lists.some((parts) => parts[index] !== part));
  return different === -1 ? first!.length : different;
}
