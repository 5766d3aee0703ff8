import assert from 'node:assert/strict';
import { utimes } from 'node:fs/promises';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { BigPartCache } from '../../../src/cache/big-part-cache.ts';
import { CacheFolder } from '../../support/cache-folder.ts';

let folder: CacheFolder;

beforeEach(async () => {
  folder = await CacheFolder.create();
  // Each of 1,000 bytes; `m1` was loaded longest ago.
  for (const [index, name] of ['m1', 'm2', 'm3'].entries()) {
    await folder.publish({ folder: 'models', name }, Buffer.alloc(1000));
    await utimes(folder.path(`${name}.big`), 1000 + index, 1000 + index);
  }
});

afterEach(() => folder.remove());

const cacheOf = (maxBytes?: number) => new BigPartCache(folder.root, folder.base, folder.logger, maxBytes);
const copies = async () => (await folder.names()).filter((name) => name.endsWith('.big'));

/** Makes room, and gives it back. */
async function make(cache: BigPartCache, bytes: number): Promise<void> {
  await using _draft = await cache.createDraft(bytes);
}

describe('room in the cache', () => {
  it('is there without a limit, and nothing is removed', async () => {
    await make(cacheOf(), 1_000_000);
    assert.equal((await copies()).length, 3);
  });

  it('is made by removing what was loaded longest ago, and no more than it takes', async () => {
    await make(cacheOf(3000), 500);
    assert.deepEqual(await copies(), ['m2.big', 'm3.big']);
    await make(cacheOf(3000), 1000);
    assert.deepEqual(await copies(), ['m2.big', 'm3.big']);
    await make(cacheOf(3000), 3000);
    assert.deepEqual(await copies(), []);
  });

  it('is made of what was set aside first', async () => {
    await folder.cache.setAside({ folder: 'models', name: 'm3' }, new Error('x'));
    await make(cacheOf(3000), 1000);
    assert.deepEqual(await folder.names(), ['m1.big', 'm1.big.dsse', 'm2.big', 'm2.big.dsse']);
  });

  it('is never made of what is read, and then there is none', async () => {
    const cache = cacheOf(3000);
    using _first = cache.hold({ folder: 'models', name: 'm1' });
    await make(cache, 1000);
    assert.deepEqual(await copies(), ['m1.big', 'm3.big']);
    using _third = cache.hold({ folder: 'models', name: 'm3' });
    await assert.rejects(make(cache, 1500), {
      code: 'disk_full_ahead',
      message: /CACHE_MAX_BYTES allows 1 MiB, 1 MiB are being read, and 1 MiB are needed/,
    });
    assert.deepEqual(await copies(), ['m1.big', 'm3.big']);
  });

  it('is refused for more than the limit, and nothing is removed for that', async () => {
    await assert.rejects(make(cacheOf(3000), 3001), { code: 'disk_full_ahead', message: /raise it/ });
    assert.equal((await copies()).length, 3);
  });

  it('is refused for more than the disk has, with the numbers', async () => {
    await assert.rejects(make(cacheOf(), 2 ** 60), {
      code: 'disk_full_ahead',
      message: /its disk has \d+ MiB free, and 1099511627776 MiB are needed/,
    });
  });
});
