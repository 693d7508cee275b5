/** What SAEs that are trained together are called: by their names, each a folder in the run's output, and in messages. */

/** What else lies in that folder. */
const reserved: ReadonlySet<string> = new Set(["checkpoints", "config.json"]);

/** What is wrong with a name, or undefined. */
export function nameProblem(name: string): string | undefined {
  if (reserved.has(name)) return "is reserved: the run's output holds something of this name besides the SAEs' folders";
  if (/^\w[\w.=-]*$/.test(name)) return undefined;
  return "becomes a folder: it must begin with a letter, a digit or _ and have nothing but those and . = - in it";
}

/** Where an SAE stands in the configuration: `sae`, or `sae.0`, `sae.1`, ... in a list, as `--set` has it. */
export function saePath(sae: object | readonly object[], index: number): string {
  return Array.isArray(sae) ? `sae.${index}` : "sae";
}
