import type { Manner } from './fault-proxy.ts';

/** Manners of S3 servers and of proxies before them, for `FaultProxy.manner`. */
export const S3_MANNERS = {
  'never says 100 Continue': { saysContinue: false },
  'closes after three answers': { answersPerConnection: 3 },
  /** Its upstream must check no signatures. */
  'an hour ahead': { clockAheadMs: 3600_000 },
  'takes Range away': { requestHeaders: { range: undefined } },
  'no ETags': { answerHeaders: () => ({ etag: undefined }) },
  'weak ETags': { answerHeaders: ({ etag }) => (etag === undefined ? {} : { etag: `W/${etag}` }) },
  /** The same. */
  'ETags that differ between edges': ofTwoEdges(),
} as const satisfies Readonly<Record<string, Manner>>;

/** Two edges answer in turn, and each has an ETag of its own for the same object. */
function ofTwoEdges(): Manner {
  let answers = 0;
  return {
    // The upstream knows neither of the ETags.
    requestHeaders: { 'if-match': undefined },
    answerHeaders: ({ etag }) => (etag === undefined ? {} : { etag: `"edge-${answers++ % 2}-${etag.slice(1)}` }),
  };
}
