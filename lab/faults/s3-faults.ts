import type { Fault } from './fault-proxy.ts';
import type { ScheduledFault } from './fault-schedule.ts';
import { htmlPage } from './html-page.ts';
import type { S3RequestKind } from './s3-request.ts';

/** A fault of S3 servers, and of what stands before them. */
export type S3Fault = ScheduledFault<S3RequestKind>;

/** An answer as S3 servers write it. */
export function s3Error(status: number, code: string, headers: Readonly<Record<string, string>> = {}): Fault {
  const body = `<?xml version="1.0" encoding="UTF-8"?><Error><Code>${code}</Code><Message>${code}</Message></Error>`;
  return { kind: 'answer', status, headers: { 'content-type': 'application/xml', ...headers }, body };
}

const ANY: readonly S3RequestKind[] = ['read', 'look', 'begin', 'part', 'complete', 'abort'];
const NO_RESULT = '<html><body>OK</body></html>';
const ERROR_IN_200 = '<Error><Code>InternalError</Code><Message>We met an error.</Message></Error>';

/** Faults that pass: the same request, sent again, is answered well. A transfer must end well in spite of a few of them. */
export const PASSING_S3_FAULTS: Readonly<Record<string, S3Fault>> = {
  '500 once': { meets: ANY, fault: s3Error(500, 'InternalError') },
  '502 page': { meets: ANY, fault: htmlPage(502) },
  '503 SlowDown': { meets: ANY, fault: s3Error(503, 'SlowDown', { 'retry-after': '1' }) },
  '503 for a second': { meets: ANY, fault: s3Error(503, 'SlowDown', { 'retry-after': '1' }), lastsMs: 1000 },
  '429 with Retry-After': { meets: ANY, fault: s3Error(429, 'TooManyRequests', { 'retry-after': '1' }) },
  '408': { meets: ANY, fault: s3Error(408, 'RequestTimeout') },
  '400 RequestTimeout': { meets: ANY, fault: s3Error(400, 'RequestTimeout') },
  '403 RequestTimeTooSkewed': { meets: ANY, fault: s3Error(403, 'RequestTimeTooSkewed') },
  '416 within the object': { meets: ['read'], fault: s3Error(416, 'InvalidRange') },
  '206 without Content-Range': { meets: ['read'], fault: { kind: 'rewrite', headers: { 'content-range': undefined } } },
  'closed without an answer': { meets: ANY, fault: { kind: 'refuse' } },
  'answer lost': { meets: ANY, fault: { kind: 'lose-answer' } },
  'closed early': { meets: ['read'], fault: { kind: 'cut', afterBytes: 100_000 } },
  'reset after some bytes': { meets: ['read'], fault: { kind: 'reset', afterBytes: 1000 } },
  'silent from the middle on': { meets: ['read'], fault: { kind: 'silence', afterBytes: 50_000 } },
  'never answered': { meets: ANY, fault: { kind: 'never-answer' } },
  'completed, and answered as a page': { meets: ['complete'], fault: { kind: 'rewrite', body: NO_RESULT } },
};

/** Faults that stay: no upload that they meet may be called a success, and no load may hand out what is not the model. */
export const LASTING_S3_FAULTS: Readonly<Record<string, S3Fault>> = {
  'upload lost': {
    meets: ['complete', 'abort', 'part'],
    fault: s3Error(404, 'NoSuchUpload'),
    isOfUpload: true,
  },
  '200 that is no result': {
    meets: ['complete'],
    fault: { kind: 'answer', status: 200, headers: { 'content-type': 'text/html' }, body: NO_RESULT },
    isOfUpload: true,
  },
  '200 with an error inside': {
    meets: ['complete'],
    fault: { kind: 'answer', status: 200, headers: { 'content-type': 'application/xml' }, body: ERROR_IN_200 },
    isOfUpload: true,
  },
};
