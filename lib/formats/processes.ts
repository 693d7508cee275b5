/** Whether a process that left something behind is still there. */
import { readFileSync } from "node:fs";

/**
 * Whether a process of that number runs on this machine (in a container: in it). One that has ended and waits for its
 * parent to ask how, as a killed one below a careless parent does for ever, does not run.
 */
export function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0);
  } catch (error) {
    // EPERM: there is one, of another user
    if ((error as NodeJS.ErrnoException).code !== "EPERM") return false;
  }
  return !/^[ZX]/.test(statusOf(pid)?.[0] ?? "");
}

/**
 * When a process started, in a unit that only compares with its own: with it, a number that the system has given away again
 * is told from the old one. Undefined where the system does not say.
 */
export function startOf(pid: number): string | undefined {
  return statusOf(pid)?.[19];
}

/** What Linux says of a process, from its state on (proc(5)); the name before may hold anything, but ends in the last ")". */
function statusOf(pid: number): readonly string[] | undefined {
  if (process.platform !== "linux") return undefined;
  try {
    return readFileSync(`/proc/${pid}/stat`, "utf8").split(") ").at(-1)!.split(" ");
  } catch {
    return undefined; // gone, or /proc is not there
  }
}
