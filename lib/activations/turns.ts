import { untilAborted } from "../errors.js";

/** Work that takes turns: each piece begins when those before it have ended, in the order of the calls. */
export class Turns {
  #last: Promise<unknown> = Promise.resolve();

  /**
   * The result of `work`. While it waits for its turn, the signal ends it at once, and the others keep their places; from
   * then on, the signal is the business of `work`.
   *
   * @param what - in the message: see {@link untilAborted}
   * @throws MonosemError ERR_ABORTED; what `work` throws
   */
  take<Result>(work: () => Promise<Result>, signal?: AbortSignal, what = ""): Promise<Result> {
    const before = this.#last;
    const turn = untilAborted(before, signal, what).then(work);
    this.#last = Promise.allSettled([before, turn]);
    return turn;
  }
}
