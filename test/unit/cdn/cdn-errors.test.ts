import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { S3ServiceException } from '@aws-sdk/client-s3';
import { CdnErrors } from '../../../src/cdn/cdn-errors.ts';
import { ForeignAnswerError } from '../../../src/cdn/undici-http-handler.ts';
import { LoaderError, PassingError } from '../../../src/errors.ts';

const { signal } = new AbortController();
const LOCATION = { bucket: 'models', key: 'detectors/model.onnx.big' };
const errors = new CdnErrors('https://cdn.example.com/path');

function serviceError(name: string, status: number): S3ServiceException {
  return new S3ServiceException({ name, $fault: 'server', $metadata: { httpStatusCode: status } });
}

function systemError(code: string): Error {
  return Object.assign(new Error(`connect ${code}`), { code });
}

/** How an error is told: for good, to be tried again for a while, or as long as the patience lasts. */
function lastingOf(error: unknown): 'final' | 'doubtful' | 'passing' {
  if (!(error instanceof PassingError)) return 'final';
  return error.isDoubtful ? 'doubtful' : 'passing';
}

describe('an error of the CDN', () => {
  for (const [name, status, code, lasting] of [
    ['NoSuchKey', 404, 'resource_not_in_cdn', 'final'],
    ['NoSuchUpload', 404, 'resource_not_in_cdn', 'final'],
    ['NotFound', 404, 'resource_not_in_cdn', 'final'],
    ['NoSuchBucket', 404, 'cdn_bucket_missing', 'final'],
    ['PreconditionFailed', 412, 'cdn_object_changed', 'final'],
    ['AccessDenied', 403, 'cdn_access_denied', 'final'],
    ['InvalidAccessKeyId', 403, 'cdn_access_denied', 'final'],
    ['Unauthorized', 401, 'cdn_access_denied', 'final'],
    ['SignatureDoesNotMatch', 403, 'cdn_signature_refused', 'final'],
    ['RequestTimeTooSkewed', 403, 'clock_wrong', 'doubtful'],
    ['PermanentRedirect', 301, 'cdn_error', 'final'],
    ['MalformedXML', 400, 'cdn_error', 'final'],
    ['RequestTimeout', 400, 'cdn_error', 'passing'],
    ['InvalidRange', 416, 'cdn_error', 'doubtful'],
    ['RequestTimeout', 408, 'cdn_error', 'passing'],
    ['TooManyRequests', 429, 'cdn_error', 'passing'],
    ['InternalError', 500, 'cdn_error', 'passing'],
    ['SlowDown', 503, 'cdn_error', 'passing'],
  ] as const) {
    it(`${status} ${name} is ${code} and ${lasting}`, () => {
      const cause = serviceError(name, status);
      const error = errors.of(cause, signal, LOCATION);
      assert.ok(error instanceof LoaderError);
      assert.deepEqual([error.code, lastingOf(error)], [code, lasting]);
      assert.equal(error.cause, cause);
      if (code !== 'cdn_object_changed') assert.match(error.message, /^The CDN at cdn\.example\.com:443 /);
    });
  }

  it('names what is not there: cdn.yaml is encrypted, so that nobody can look it up', () => {
    const missing = errors.of(serviceError('NoSuchKey', 404), signal, LOCATION).message;
    assert.equal(missing, 'The CDN at cdn.example.com:443 has no detectors/model.onnx.big in the bucket models.');
    const bucket = errors.of(serviceError('NoSuchBucket', 404), signal, LOCATION).message;
    assert.match(bucket, /has no bucket models: check bucket in cdn\.yaml/);
  });

  it('has the pause that the CDN asks for', () => {
    const cause = Object.assign(serviceError('SlowDown', 503), { $response: { headers: { 'retry-after': '7' } } });
    const error = errors.of(cause, signal, LOCATION);
    assert.ok(error instanceof PassingError && error.retryAfterMs === 7000);
  });

  for (const [status, code, lasting] of [
    [403, 'cdn_foreign_answer', 'doubtful'],
    [404, 'cdn_foreign_answer', 'doubtful'],
    [503, 'cdn_error', 'passing'],
  ] as const) {
    it(`that is a page of status ${status}, which no S3 server sends, is ${code} and ${lasting}`, () => {
      const headers = { 'content-type': 'text/html; charset=utf-8', 'retry-after': '3' };
      const error = errors.of(new ForeignAnswerError(status, headers), signal, LOCATION);
      assert.ok(error instanceof PassingError);
      assert.deepEqual([error.code, lastingOf(error), error.retryAfterMs], [code, lasting, 3000]);
      if (status < 500) assert.match(error.message, /\(404, text\/html\)|\(403, text\/html\)/);
    });
  }

  it('of the connection is cdn_unreachable, names the system code, and passes', () => {
    const error = errors.of(systemError('ECONNREFUSED'), signal, LOCATION);
    assert.ok(error instanceof PassingError && error.code === 'cdn_unreachable');
    assert.match(error.message, /cdn\.example\.com:443 .*ECONNREFUSED/);
    assert.equal(lastingOf(error), 'passing');
  });

  it('of time is cdn_timeout, and passes', () => {
    const timeout = new Error('socket idle');
    timeout.name = 'TimeoutError';
    const error = errors.of(timeout, signal, LOCATION);
    assert.ok(error instanceof PassingError && error.code === 'cdn_timeout');
    assert.equal(lastingOf(error), 'passing');
  });

  it('that has a code of ours stays what it is', () => {
    const error = new LoaderError('cdn_invalid_response', 'x');
    assert.equal(errors.of(error, signal, LOCATION), error);
  });

  it('after an abort is the reason of the abort, not the echo of it', () => {
    const abort = new AbortController();
    const reason = new LoaderError('client_closed', 'x');
    abort.abort(reason);
    assert.equal(errors.of(systemError('ECONNRESET'), abort.signal, LOCATION), reason);
  });

  it('that is no error at all is cdn_unreachable', () => {
    const error = errors.of('text', signal, LOCATION);
    assert.ok(error instanceof LoaderError && error.code === 'cdn_unreachable');
  });
});
