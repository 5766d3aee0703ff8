import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { S3ServiceException } from '@aws-sdk/client-s3';
import { isTransientCdnError, toCdnError } from '../../../src/cdn/cdn-errors.ts';
import { LoaderError } from '../../../src/errors.ts';

const { signal } = new AbortController();

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
    ['InvalidAccessKeyId', 403, 'cdn_access_denied', false],
    ['Unauthorized', 401, 'cdn_access_denied', false],
    ['SlowDown', 503, 'cdn_error', true],
    ['InternalError', 500, 'cdn_error', true],
    ['InvalidRange', 416, 'cdn_error', false],
    ['PermanentRedirect', 301, 'cdn_error', false],
  ] as const) {
    it(`${status} ${name} is ${code}, ${isTransient ? 'to be tried again' : 'for good'}`, () => {
      const cause = serviceError(name, status);
      const error = toCdnError(cause, signal);
      assert.ok(error instanceof LoaderError);
      assert.equal(error.code, code);
      assert.equal(error.cause, cause);
      assert.equal(isTransientCdnError(error), isTransient);
    });
  }

  it('of the connection is cdn_unreachable, names the system code, and is to be tried again', () => {
    const error = toCdnError(systemError('ECONNREFUSED'), signal);
    assert.ok(error instanceof LoaderError && error.code === 'cdn_unreachable');
    assert.match(error.message, /ECONNREFUSED/);
    assert.ok(isTransientCdnError(error));
  });

  it('of time is cdn_timeout, to be tried again', () => {
    const timeout = new Error('socket idle');
    timeout.name = 'TimeoutError';
    const error = toCdnError(timeout, signal);
    assert.ok(error instanceof LoaderError && error.code === 'cdn_timeout');
    assert.ok(isTransientCdnError(error));
  });

  it('that has a code of ours stays what it is', () => {
    const error = new LoaderError('cdn_invalid_response', 'x');
    assert.equal(toCdnError(error, signal), error);
    assert.equal(isTransientCdnError(error), false);
  });

  it('after an abort is the reason of the abort, not the echo of it', () => {
    const abort = new AbortController();
    const reason = new LoaderError('client_closed', 'x');
    abort.abort(reason);
    assert.equal(toCdnError(systemError('ECONNRESET'), abort.signal), reason);
  });

  it('that is no error at all is cdn_unreachable', () => {
    const error = toCdnError('text', signal);
    assert.ok(error instanceof LoaderError && error.code === 'cdn_unreachable');
    assert.equal(isTransientCdnError('text'), false);
  });
});
