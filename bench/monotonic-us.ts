/** Microseconds since this machine's start: the same in all of its processes. */
export function monotonicUs(): number {
  return Number(process.hrtime.bigint() / 1000n);
}
