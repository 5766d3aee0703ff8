import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { CacheEntry } from '../../../src/cache/cache-entry.ts';
import { CacheUsage } from '../../../src/cache/cache-usage.ts';

const ENTRY: CacheEntry = { kind: 'copy', folder: 'models', file: 'a.big', name: 'a', length: 10, loadedAtMs: 0 };

describe('the usage of the cache', () => {
  it('is the bytes of all files and the number of copies, of one walk for callers at once and soon after', async () => {
    let walks = 0;
    const usage = new CacheUsage({
      async *list() {
        walks++;
        await Promise.resolve();
        yield ENTRY;
        yield { ...ENTRY, kind: 'set_aside', length: 5 };
      },
    });
    const expected = { bytes: 15, copies: 1 };
    assert.deepEqual(await Promise.all([usage.latest(), usage.latest()]), [expected, expected]);
    assert.deepEqual(await usage.latest(), expected);
    assert.equal(walks, 1);
  });
});
