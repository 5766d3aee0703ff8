import type { ApiRequestKind } from '../../lab/faults/api-faults.ts';
import { redirect } from '../../lab/faults/api-faults.ts';
import type { Fault, SeenRequest } from '../../lab/faults/fault-proxy.ts';
import { htmlPage } from '../../lab/faults/html-page.ts';
import { LASTING_S3_FAULTS, s3Error } from '../../lab/faults/s3-faults.ts';
import type { S3RequestKind } from '../../lab/faults/s3-request.ts';
import type { ErrorCode } from '../../src/errors.ts';

/** A fault that meets all requests of some kinds from one of them on, and the code of what fails by it. */
export interface LastingFault<Kind extends string = string> {
  readonly meets: readonly Kind[];
  readonly fault: Fault;
  readonly code: ErrorCode;
  /** Of the requests of these kinds, those that it meets; all unless given. */
  readonly only?: (request: SeenRequest) => boolean;
  /** The server has lost the upload: the abort is met too. */
  readonly losesUpload?: boolean;
  /** An upload does not fail by it. */
  readonly isOfLoads?: boolean;
}

const S3: readonly S3RequestKind[] = ['read', 'begin', 'part', 'complete'];
const UNDER_WAY: readonly S3RequestKind[] = ['part', 'complete'];
const LATE = { 'retry-after': '3600' };
const OTHER_SHA256 = 'ab'.repeat(32);
const isOfRange = ({ headers }: SeenRequest) => headers.range?.startsWith('bytes=-') === false;
const {
  'upload lost': LOST,
  '200 that is no result': NO_RESULT,
  '200 with an error inside': ERROR,
} = LASTING_S3_FAULTS;

export const LASTING_FAULTS_OF_S3: Readonly<Record<string, LastingFault<S3RequestKind>>> = {
  '500': { meets: S3, fault: s3Error(500, 'InternalError'), code: 'cdn_error' },
  '502 page': { meets: S3, fault: htmlPage(502), code: 'cdn_error' },
  '503': { meets: S3, fault: s3Error(503, 'SlowDown'), code: 'cdn_error' },
  '503 for an hour': { meets: S3, fault: s3Error(503, 'SlowDown', LATE), code: 'cdn_error' },
  '429 for an hour': { meets: S3, fault: s3Error(429, 'TooManyRequests', LATE), code: 'cdn_error' },
  '400': { meets: S3, fault: s3Error(400, 'InvalidRequest'), code: 'cdn_error' },
  'access denied': { meets: S3, fault: s3Error(403, 'AccessDenied'), code: 'cdn_access_denied' },
  'unknown key': { meets: S3, fault: s3Error(403, 'InvalidAccessKeyId'), code: 'cdn_access_denied' },
  'wrong signature': { meets: S3, fault: s3Error(403, 'SignatureDoesNotMatch'), code: 'cdn_signature_refused' },
  'wrong time': { meets: S3, fault: s3Error(403, 'RequestTimeTooSkewed'), code: 'clock_wrong' },
  'no bucket': { meets: S3, fault: s3Error(404, 'NoSuchBucket'), code: 'cdn_bucket_missing' },
  'no object': { meets: ['read'], fault: s3Error(404, 'NoSuchKey'), code: 'resource_not_in_cdn' },
  '403 page': { meets: S3, fault: htmlPage(403), code: 'cdn_foreign_answer' },
  '404 page': { meets: S3, fault: htmlPage(404), code: 'cdn_foreign_answer' },
  '200 page': { meets: S3, fault: htmlPage(200), code: 'cdn_foreign_answer' },
  redirect: { meets: S3, fault: redirect('http://127.0.0.1:9/login', 302), code: 'cdn_foreign_answer' },
  'redirect of S3': { meets: S3, fault: s3Error(307, 'TemporaryRedirect'), code: 'cdn_error' },
  'closed without an answer': { meets: S3, fault: { kind: 'refuse' }, code: 'cdn_unreachable' },
  'never answered': { meets: S3, fault: { kind: 'never-answer' }, code: 'cdn_timeout' },
  'answer lost': { meets: ['read'], fault: { kind: 'lose-answer' }, code: 'cdn_unreachable' },
  'closed before the body': { meets: ['read'], fault: { kind: 'cut', afterBytes: 0 }, code: 'cdn_unreachable' },
  'reset before the body': { meets: ['read'], fault: { kind: 'reset', afterBytes: 0 }, code: 'cdn_unreachable' },
  'silent before the body': { meets: ['read'], fault: { kind: 'silence', afterBytes: 0 }, code: 'cdn_timeout' },
  '416 within the object': { meets: ['read'], fault: s3Error(416, 'InvalidRange'), code: 'cdn_error' },
  '206 without Content-Range': {
    meets: ['read'],
    fault: { kind: 'rewrite', headers: { 'content-range': undefined } },
    code: 'cdn_invalid_response',
  },
  'wrong Content-Range': {
    meets: ['read'],
    fault: { kind: 'rewrite', headers: { 'content-range': 'bytes 16-47/1000000' } },
    code: 'cdn_invalid_response',
    // To a load that has begun, another length is another object.
    only: (request) => !isOfRange(request),
  },
  '200 for a range': { meets: ['read'], fault: { kind: 'rewrite', status: 200 }, code: 'cdn_invalid_response' },
  'another object': {
    meets: ['read'],
    fault: { kind: 'rewrite', headers: { 'x-amz-meta-small-sha256': OTHER_SHA256 } },
    code: 'cdn_object_changed',
    only: isOfRange,
  },
  '412': { meets: ['read'], fault: s3Error(412, 'PreconditionFailed'), code: 'cdn_object_changed', only: isOfRange },
  'the object of another small part': {
    meets: ['read'],
    fault: { kind: 'rewrite', headers: { 'x-amz-meta-small-sha256': OTHER_SHA256 } },
    code: 'upload_unfinished',
    only: (request) => !isOfRange(request),
  },
  "another upload's object": {
    meets: ['look'],
    fault: { kind: 'rewrite', headers: { 'x-amz-meta-small-sha256': OTHER_SHA256 } },
    code: 'upload_superseded',
  },
  'upload lost': { meets: UNDER_WAY, fault: LOST?.fault ?? missing(), code: 'cdn_upload_lost', losesUpload: true },
  '200 that is no result': { meets: ['complete'], fault: NO_RESULT?.fault ?? missing(), code: 'cdn_foreign_answer' },
  '200 with an error inside': { meets: ['complete'], fault: ERROR?.fault ?? missing(), code: 'cdn_error' },
};

const API: readonly ApiRequestKind[] = ['login', 'get', 'store'];

export const LASTING_FAULTS_OF_API: Readonly<Record<string, LastingFault<ApiRequestKind>>> = {
  '500': { meets: API, fault: { kind: 'answer', status: 500 }, code: 'api_error' },
  '502 page': { meets: API, fault: htmlPage(502), code: 'api_error' },
  '503': { meets: API, fault: { kind: 'answer', status: 503 }, code: 'api_error' },
  '503 for an hour': { meets: API, fault: { kind: 'answer', status: 503, headers: LATE }, code: 'api_error' },
  '429 for an hour': { meets: API, fault: { kind: 'answer', status: 429, headers: LATE }, code: 'api_error' },
  '400': { meets: API, fault: { kind: 'answer', status: 400 }, code: 'api_error' },
  '401': { meets: API, fault: { kind: 'answer', status: 401 }, code: 'wrong_credentials' },
  '401 for each token': { meets: ['get', 'store'], fault: { kind: 'answer', status: 401 }, code: 'token_refused' },
  '403': { meets: ['get', 'store'], fault: { kind: 'answer', status: 403 }, code: 'token_refused' },
  '404': {
    meets: ['login', 'store'],
    fault: { kind: 'answer', status: 404 },
    code: 'api_error',
  },
  'no file': { meets: ['get'], fault: { kind: 'answer', status: 404 }, code: 'resource_not_in_api', isOfLoads: true },
  '200 page': { meets: API, fault: htmlPage(200), code: 'api_invalid_response' },
  '404 page': { meets: API, fault: htmlPage(404), code: 'api_invalid_response' },
  redirect: { meets: API, fault: redirect('http://127.0.0.1:9/'), code: 'api_redirected' },
  'closed without an answer': { meets: API, fault: { kind: 'refuse' }, code: 'api_unreachable' },
  'answer lost': { meets: API, fault: { kind: 'lose-answer' }, code: 'api_unreachable' },
  'closed early': { meets: ['get'], fault: { kind: 'cut', afterBytes: 10 }, code: 'api_unreachable' },
  'never answered': { meets: API, fault: { kind: 'never-answer' }, code: 'api_timeout' },
};

function missing(): never {
  throw new Error('a lasting fault has another name');
}
