const BAR_WIDTH = 24;

/** A bar, and in figures what it shows, as far as that is known. */
export function drawProgressBar(progress: {
  readonly percent: number;
  readonly bytesDone: number;
  /** 0 when it is not known. */
  readonly bytesTotal: number;
}): string {
  const { percent, bytesDone, bytesTotal } = progress;
  const full = Math.round((percent / 100) * BAR_WIDTH);
  const bar = '█'.repeat(full) + '░'.repeat(BAR_WIDTH - full);
  if (bytesTotal === 0) return bar;
  const megabytes = (bytes: number) => (bytes / 1e6).toFixed(0);
  return `${bar} ${percent} %  ${megabytes(bytesDone)} of ${megabytes(bytesTotal)} MB`;
}
