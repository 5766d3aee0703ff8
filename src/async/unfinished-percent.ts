const MAX_UNFINISHED_PERCENT = 99;

/** Returns the percentage to show for unfinished work: a whole number, never less than what was `shown`, at most 99. */
export function unfinishedPercent(shown: number, percent: number): number {
  return Math.max(shown, Math.min(MAX_UNFINISHED_PERCENT, Math.floor(percent)));
}
