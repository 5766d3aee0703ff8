import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { ERRORS, hasErrorCode, LoaderError, systemErrorCode, toError } from '../../src/errors.ts';

describe('the table of errors', () => {
  it('has a status of HTTP, or leaves it to the route, and a meaning for each code', () => {
    for (const [code, { status, meaning }] of Object.entries(ERRORS)) {
      assert.ok(status === 'route' || (status >= 400 && status < 600), code);
      assert.match(code, /^[a-z]+(_[a-z]+)*$/);
      assert.match(meaning, /^[A-Za-z].+[^.]$/, code);
    }
  });

  it('gives the statuses of the contract', () => {
    assert.equal(ERRORS.validation_failed.status, 422);
    assert.equal(ERRORS.forbidden.status, 401);
    assert.equal(ERRORS.not_found.status, 404);
    assert.equal(ERRORS.method_not_allowed.status, 405);
    assert.equal(ERRORS.wrong_credentials.status, 'route');
  });
});

describe('LoaderError', () => {
  it('carries code, message and cause', () => {
    const cause = new Error('below');
    const error = new LoaderError('api_timeout', 'too late', { cause });
    assert.ok(error instanceof Error);
    assert.deepEqual(
      [error.name, error.code, error.message, error.cause],
      ['LoaderError', 'api_timeout', 'too late', cause],
    );
    assert.ok(!('cause' in new LoaderError('api_timeout', 'too late')));
  });
});

describe('hasErrorCode', () => {
  it('tells whether a LoaderError has one of the codes', () => {
    const error = new LoaderError('cdn_timeout', 'x');
    assert.ok(hasErrorCode(error, 'cdn_timeout'));
    assert.ok(hasErrorCode(error, 'cdn_error', 'cdn_timeout'));
    assert.ok(!hasErrorCode(error, 'cdn_error'));
    assert.ok(!hasErrorCode(error));
  });

  it('is not fooled by another error with the same code', () => {
    assert.ok(!hasErrorCode(Object.assign(new Error('x'), { code: 'cdn_timeout' }), 'cdn_timeout'));
    assert.ok(!hasErrorCode({ code: 'cdn_timeout' }, 'cdn_timeout'));
    assert.ok(!hasErrorCode(undefined, 'cdn_timeout'));
  });
});

describe('systemErrorCode', () => {
  const refused = Object.assign(new Error('connect'), { code: 'ECONNREFUSED' });

  it('finds the code along the chain of causes', () => {
    assert.equal(systemErrorCode(refused), 'ECONNREFUSED');
    assert.equal(systemErrorCode(new Error('a', { cause: new Error('b', { cause: refused }) })), 'ECONNREFUSED');
  });

  it('finds the code within the attempts of a connection', () => {
    assert.equal(
      systemErrorCode(new Error('a', { cause: new AggregateError([refused, new Error('b')]) })),
      'ECONNREFUSED',
    );
  });

  it('is undefined where there is none', () => {
    assert.equal(systemErrorCode(new Error('a', { cause: 'ECONNREFUSED' })), undefined);
    assert.equal(systemErrorCode(Object.assign(new Error('a'), { code: 7 })), undefined);
    assert.equal(systemErrorCode(new AggregateError([])), undefined);
    assert.equal(systemErrorCode({ code: 'ECONNREFUSED' }), undefined);
    assert.equal(systemErrorCode(undefined), undefined);
  });
});

describe('toError', () => {
  it('keeps an error and makes one of anything else, without quoting it', () => {
    const error = new LoaderError('api_error', 'x');
    assert.equal(toError(error), error);
    assert.ok(toError('hush') instanceof Error);
    assert.doesNotMatch(toError('hush').message, /hush/);
  });
});
