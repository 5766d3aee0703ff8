/**
 * Runs each contender once to warm up, which does not count, and then `rounds` times: round by round, so that a noisy
 * minute of the machine falls on all of them. `isWarm` leaves the first out. `alternates` turns the order round in every
 * other round, so that no contender always has what the one before it left behind.
 */
export async function interleave<Name extends string, Sample>(
  contenders: Readonly<Record<Name, () => Promise<Sample>>>,
  rounds: number,
  { isWarm = false, alternates = false }: { readonly isWarm?: boolean; readonly alternates?: boolean } = {},
): Promise<Record<Name, Sample[]>> {
  const names = Object.keys(contenders) as Name[];
  const samples = Object.fromEntries(names.map((name) => [name, [] as Sample[]])) as Record<Name, Sample[]>;
  for (let round = isWarm ? 1 : 0; round <= rounds; round++) {
    for (const name of alternates && round % 2 === 0 ? names.toReversed() : names) {
      const sample = await contenders[name]();
      if (round > 0) samples[name].push(sample);
    }
  }
  return samples;
}

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  const upper = sorted[middle] ?? NaN;
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? NaN) + upper) / 2;
}

/** The smallest value that at least `fraction` of the values do not exceed. */
export function percentile(values: readonly number[], fraction: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.max(0, Math.ceil(fraction * sorted.length) - 1)] ?? NaN;
}
