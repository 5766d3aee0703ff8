import { median, percentile } from './measure.ts';
import type { Row } from './table.ts';

export interface Latencies {
  readonly what: string;
  readonly latenciesMs: readonly number[];
  /** The latencies of other requests that were sent in the same way. */
  readonly peerMs?: readonly number[];
  /** For the 99th percentile. */
  readonly targetMs?: number;
}

/** A row of latencies; its ratio is that of the 99th percentiles. */
export function latencyRow({ what, latenciesMs, peerMs, targetMs }: Latencies): Row {
  const p99 = percentile(latenciesMs, 0.99);
  return {
    what,
    loader: formatLatencies(latenciesMs),
    ...(peerMs === undefined
      ? {}
      : { peer: formatLatencies(peerMs), ratio: (p99 / percentile(peerMs, 0.99)).toFixed(2) }),
    ...(targetMs === undefined ? {} : { target: `<= ${targetMs} ms`, isMet: p99 <= targetMs }),
  };
}

function formatLatencies(latenciesMs: readonly number[]): string {
  const [p50, p99, max] = [median(latenciesMs), percentile(latenciesMs, 0.99), Math.max(...latenciesMs)];
  return `p50 ${p50.toFixed(1)}, p99 ${p99.toFixed(1)}, max ${max.toFixed(1)} ms (n=${latenciesMs.length})`;
}
