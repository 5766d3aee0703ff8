import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { S3ServiceException } from '@aws-sdk/client-s3';
import { CdnErrors, isTransientCdnError } from '../../../src/cdn/cdn-errors.ts';
import { LoaderError } from '../../../src/errors.ts';

const { signal } = new AbortController();
const errors = new CdnErrors('https://cdn.example.com/path');

function serviceError(name: string, status: number): S3ServiceException {
  return new S3ServiceException({ name, $fault: 'server', $metadata: { httpStatusCode: status } });
}

function systemError(code: string): Error {
  return Object.assign(new Error(`connect ${code}`), { code });
}

describe('an error of the CDN', () => {
  for (const [name, status, code, isTransient] of [
    ['NoSuchKey', 404, 'resource_not_in_cdn', false],
    ['NoSuchBucket', 404, 'resource_not_in_cdn', false],
    ['NotFound', 404, 'resource_not_in_cdn', false],
    ['NoSuchUpload', 404, 'cdn_error', false],
    ['PreconditionFailed', 412, 'cdn_object_changed', false],
    ['AccessDenied', 403, 'cdn_access_denied', false],
    ['RequestTimeTooSkewed', 403, 'clock_wrong', false],
    ['InvalidAccessKeyId', 403, 'cdn_access_denied', false],
    ['Unauthorized', 401, 'cdn_access_denied', false],
    ['SlowDown', 503, 'cdn_error', true],
    ['InternalError', 500, 'cdn_error', true],
    ['InvalidRange', 416, 'cdn_error', false],
    ['PermanentRedirect', 301, 'cdn_error', false],
  ] as const) {
    it(`${status} ${name} is ${code}, ${isTransient ? 'to be tried again' : 'for good'}`, () => {
      const cause = serviceError(name, status);
      const error = errors.of(cause, signal);
      assert.ok(error instanceof LoaderError);
      assert.equal(error.code, code);
      assert.equal(error.cause, cause);
      assert.equal(isTransientCdnError(error), isTransient);
      if (code !== 'cdn_object_changed') assert.match(error.message, /^The CDN at cdn\.example\.com:443 /);
    });
  }

  it('of the connection is cdn_unreachable, names the system code, and is to be tried again', () => {
    const error = errors.of(systemError('ECONNREFUSED'), signal);
    assert.ok(error instanceof LoaderError && error.code === 'cdn_unreachable');
    assert.match(error.message, /cdn\.example\.com:443 .*ECONNREFUSED/);
    assert.ok(isTransientCdnError(error));
  });

  it('of time is cdn_timeout, to be tried again', () => {
    const timeout = new Error('socket idle');
    timeout.name = 'TimeoutError';
    const error = errors.of(timeout, signal);
    assert.ok(error instanceof LoaderError && error.code === 'cdn_timeout');
    assert.ok(isTransientCdnError(error));
  });

  it('that has a code of ours stays what it is', () => {
    const error = new LoaderError('cdn_invalid_response', 'x');
    assert.equal(errors.of(error, signal), error);
    assert.equal(isTransientCdnError(error), false);
  });

  it('after an abort is the reason of the abort, not the echo of it', () => {
    const abort = new AbortController();
    const reason = new LoaderError('client_closed', 'x');
    abort.abort(reason);
    assert.equal(errors.of(systemError('ECONNRESET'), abort.signal), reason);
  });

  it('that is no error at all is cdn_unreachable', () => {
    const error = errors.of('text', signal);
    assert.ok(error instanceof LoaderError && error.code === 'cdn_unreachable');
    assert.equal(isTransientCdnError('text'), false);
  });
});
