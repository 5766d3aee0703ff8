import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { retryAfterOf } from '../../../src/net/retry-after.ts';

describe('the pause that an answer asks for', () => {
  const date = 'Fri, 27 Nov 2026 09:00:00 GMT';
  for (const [headers, ms] of [
    [{ 'retry-after': '0' }, 0],
    [{ 'retry-after': '120' }, 120_000],
    [{ 'retry-after': ' 2 ' }, 2_000],
    // By the clock of the server, which may be years from ours.
    [{ 'retry-after': 'Fri, 27 Nov 2026 09:00:30 GMT', date }, 30_000],
    [{ 'retry-after': 'Fri, 27 Nov 2026 08:00:00 GMT', date }, 0],
    [{ 'retry-after': 'soon', date }, undefined],
    [{ 'retry-after': '-1 s' }, undefined],
    [{ 'retry-after': '9'.repeat(20) }, undefined],
    [{ 'retry-after': ['1', '2'] }, undefined],
    [{}, undefined],
  ] as const) {
    it(`is ${ms} ms for ${JSON.stringify(headers)}`, () => assert.equal(retryAfterOf(headers), ms));
  }
});
