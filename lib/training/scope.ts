/** Handles that live for one step. Disposing them while their work is queued is fine: the queue holds the memory. */
export class Scope {
  readonly #handles: Disposable[] = [];

  keep<T extends Disposable>(handle: T): T {
    this.#handles.push(handle);
    return handle;
  }

  [Symbol.dispose](): void {
    for (const handle of this.#handles) handle[Symbol.dispose]();
  }
}
