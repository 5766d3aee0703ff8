import { median } from './measure.ts';
import type { Row } from './table.ts';

export interface TimeComparison {
  readonly what: string;
  /** Bytes of plaintext that each run moves; left out where they do not all move the same. */
  readonly bytes?: number;
  readonly loaderMs: readonly number[];
  readonly peerMs: readonly number[];
  /** `rate`: at least so many times the peer's rate. `time`: at most so many times the peer's time. */
  readonly target: { readonly kind: 'rate' | 'time'; readonly value: number };
}

/** A row that compares medians. */
export function timeRow({ what, bytes, loaderMs, peerMs, target }: TimeComparison): Row {
  const timeRatio = median(loaderMs) / median(peerMs);
  const ratio = target.kind === 'rate' ? 1 / timeRatio : timeRatio;
  return {
    what,
    loader: formatTimes(loaderMs, bytes),
    peer: formatTimes(peerMs, bytes),
    ratio: ratio.toFixed(2),
    target: `${target.kind === 'rate' ? '>=' : '<='} ${target.value}`,
    isMet: target.kind === 'rate' ? ratio >= target.value : ratio <= target.value,
  };
}

/** Median, smallest and largest time, and the median's rate; MB are 10^6 bytes. */
export function formatTimes(timesMs: readonly number[], bytes?: number): string {
  const seconds = (ms: number) => (ms / 1000).toFixed(3);
  const middle = median(timesMs);
  const spread = `${seconds(Math.min(...timesMs))}-${seconds(Math.max(...timesMs))}`;
  const rate = bytes === undefined ? '' : ` ${(bytes / 1e3 / middle).toFixed(0)} MB/s`;
  return `${seconds(middle)} s (${spread})${rate}`;
}
