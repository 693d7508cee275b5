/** How long to wait before asking a server again. */

/** The wait that a Retry-After header asks for, in milliseconds: it holds seconds or a date (RFC 9110, 10.2.3). */
export function retryAfterMilliseconds(header: string | null, now: number = Date.now()): number | undefined {
  if (header === null) return undefined;
  const text = header.trim();
  if (/^\d+(\.\d+)?$/.test(text)) return Number(text) * 1000;
  const date = Date.parse(text);
  return Number.isNaN(date) ? undefined : Math.max(0, date - now);
}

/** Doubles from `first` with every failure, up to `most`, less a random part, so that several clients spread out. */
export function backoffMilliseconds(failures: number, first: number, most: number): number {
  return Math.min(most, first * 2 ** (failures - 1)) * (0.5 + Math.random() / 2);
}
