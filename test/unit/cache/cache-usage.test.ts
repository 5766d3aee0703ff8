import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { eventually } from '../../../lab/waiting.ts';
import type { CacheEntry } from '../../../src/cache/cache-entry.ts';
import { CacheUsage } from '../../../src/cache/cache-usage.ts';

const ENTRY: CacheEntry = { kind: 'copy', folder: 'models', file: 'a.big', name: 'a', length: 10, loadedAtMs: 0 };

/** A cache whose copy is one byte longer at each walk. */
class GrowingCache {
  walks = 0;
  isBroken = false;

  async *list(): AsyncGenerator<CacheEntry, void, undefined> {
    this.walks++;
    await Promise.resolve();
    if (this.isBroken) throw new Error('EIO');
    yield { ...ENTRY, length: 9 + this.walks };
    yield { ...ENTRY, kind: 'set_aside', length: 5 };
  }
}

describe('the usage of the cache', () => {
  it('is the bytes of all files and the number of copies, of one walk for callers at once and soon after', async () => {
    const cache = new GrowingCache();
    const usage = new CacheUsage(cache);
    const expected = { bytes: 15, copies: 1 };
    assert.deepEqual(await Promise.all([usage.latest(), usage.latest()]), [expected, expected]);
    assert.deepEqual(await usage.latest(), expected);
    assert.equal(cache.walks, 1);
  });

  it('is measured again when it is old, while callers get what is there', async () => {
    const cache = new GrowingCache();
    const usage = new CacheUsage(cache, { maxAgeMs: 20, delayMs: 5 });
    await usage.latest();
    await sleep(30);
    assert.deepEqual(await usage.latest(), { bytes: 15, copies: 1 });
    assert.equal(cache.walks, 1); // The next walk begins when the answer is out.
    await eventually(async () => (await usage.latest()).bytes > 15);
  });

  it('stands where the cache can not be walked through', async () => {
    const cache = new GrowingCache();
    const usage = new CacheUsage(cache, { maxAgeMs: 1, delayMs: 1 });
    cache.isBroken = true;
    assert.deepEqual(await usage.latest(), { bytes: 0, copies: 0 });
    cache.isBroken = false;
    await sleep(5);
    await usage.latest();
    await eventually(async () => (await usage.latest()).copies === 1);
    cache.isBroken = true;
    const { walks } = cache;
    await eventually(async () => (await usage.latest()).copies === 1 && cache.walks > walks + 1);
  });
});
