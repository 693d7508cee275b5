/** Names of SAEs that are trained together. Each becomes a folder in the run's output. */

/** What else lies in that folder. */
const reserved: ReadonlySet<string> = new Set(["checkpoints", "config.json"]);

/** What is wrong with a name, or undefined. */
export function nameProblem(name: string): string | undefined {
  if (reserved.has(name)) return "is reserved: the run's output holds something of this name besides the SAEs' folders";
  if (/^\w[\w.=-]*$/.test(name)) return undefined;
  return "becomes a folder: it must begin with a letter, a digit or _ and have nothing but those and . = - in it";
}
