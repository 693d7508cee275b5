/** As Promise.all, but a failure waits for the others to end: what they were paid for is kept. */
export async function allSettled<Value>(promises: readonly Promise<Value>[]): Promise<Value[]> {
  await Promise.allSettled(promises);
  return await Promise.all(promises);
}
