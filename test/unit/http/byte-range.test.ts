import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { parseByteRange } from '../../../src/http/bodies/byte-range.ts';
import { isNotModified, wantedRange } from '../../../src/http/bodies/representation.ts';

describe('a Range header for 100 bytes', () => {
  for (const [header, expected] of [
    [undefined, 'whole'],
    ['bytes=0-', [0, 100]],
    ['bytes=0-0', [0, 1]],
    ['bytes=10-19', [10, 20]],
    ['bytes=99-99', [99, 100]],
    ['bytes=90-1000', [90, 100]],
    ['bytes=-1', [99, 100]],
    ['bytes=-1000', [0, 100]],
    ['Bytes= 5-6 ', [5, 7]],
    ['bytes=100-', 'unsatisfiable'],
    ['bytes=1000-2000', 'unsatisfiable'],
    ['bytes=20-10', 'unsatisfiable'],
    ['bytes=-0', 'unsatisfiable'],
    ['bytes=-', 'unsatisfiable'],
    ['bytes=', 'unsatisfiable'],
    ['bytes=a-b', 'unsatisfiable'],
    ['bytes=0-1,5-6', 'whole'],
    ['lines=0-1', 'whole'],
    ['x', 'whole'],
  ] as const) {
    it(`that says ${header ?? 'nothing'} means ${String(expected)}`, () => {
      const range = parseByteRange(header, 100);
      assert.deepEqual(typeof range === 'string' ? range : [range.start, range.end], expected);
    });
  }

  it('of an empty resource is never satisfiable', () => {
    for (const header of ['bytes=0-', 'bytes=-5', 'bytes=0-0']) {
      assert.equal(parseByteRange(header, 0), 'unsatisfiable');
    }
  });
});

describe('a condition', () => {
  const headers = { etag: '"v1"', 'last-modified': 'Sat, 28 Nov 2026 10:00:00 GMT' };

  for (const [request, expected] of [
    [{}, false],
    [{ 'if-none-match': '"v1"' }, true],
    [{ 'if-none-match': 'W/"v1"' }, true],
    [{ 'if-none-match': '"v0", "v1"' }, true],
    [{ 'if-none-match': '*' }, true],
    [{ 'if-none-match': '"v2"' }, false],
    [{ 'if-modified-since': 'Sat, 28 Nov 2026 10:00:00 GMT' }, true],
    [{ 'if-modified-since': 'Sat, 28 Nov 2026 09:59:59 GMT' }, false],
    [{ 'if-modified-since': 'yesterday' }, false],
    [{ 'if-none-match': '"v2"', 'if-modified-since': 'Sat, 28 Nov 2026 10:00:00 GMT' }, false],
  ] as const) {
    it(`${JSON.stringify(request)} is ${expected ? '' : 'not '}met`, () => {
      assert.equal(isNotModified(request, headers), expected);
    });
  }

  it('If-Range lets a range of this version pass, and no other', () => {
    const range = { start: 0, end: 2 };
    for (const condition of [undefined, '"v1"', headers['last-modified']]) {
      assert.deepEqual(
        wantedRange({ range: 'bytes=0-1', ...(condition && { 'if-range': condition }) }, headers, 5),
        range,
      );
    }
    for (const condition of ['"v0"', 'W/"v1"', 'Sat, 28 Nov 2026 09:00:00 GMT']) {
      assert.equal(wantedRange({ range: 'bytes=0-1', 'if-range': condition }, headers, 5), 'whole');
    }
  });
});
