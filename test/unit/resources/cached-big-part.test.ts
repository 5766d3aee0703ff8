import assert from 'node:assert/strict';
import { readFile, truncate, utimes } from 'node:fs/promises';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { NEVER } from '../../../src/async/abort.ts';
import { HookedFs, systemError } from '../../../lab/faults/hooked-fs.ts';
import { BIG, DownloadLab, PLAINTEXT, RECORD, EARLIER, RESOURCE } from '../../support/download-lab.ts';
import { eventually } from '../../../lab/waiting.ts';
import { digestsOf } from '../../support/cache-folder.ts';

const hookedFs = new HookedFs();
let lab: DownloadLab;

beforeEach(async () => {
  lab = await DownloadLab.create();
});

afterEach(async () => {
  hookedFs.restore();
  await lab[Symbol.asyncDispose]();
});

describe('a copy in the cache', () => {
  it('counts as loaded when a load accepts it', async () => {
    await lab.folder.publish(RESOURCE, BIG, RECORD);
    await utimes(lab.folder.path('m.big'), 1000, 1000);
    assert.ok(await lab.load());
    assert.ok((await lab.folder.entry('m.big')).loadedAtMs > Date.now() - 10_000);
    assert.equal(lab.server.ranges.length, 0);
  });

  it('does not count as loaded when it is of an earlier version', async () => {
    await lab.folder.publish(RESOURCE, BIG, { ...RECORD, smallSha256: EARLIER });
    await utimes(lab.folder.path('m.big'), 1000, 1000);
    await lab.downloads.prefetch(RESOURCE, NEVER);
    assert.equal((await lab.folder.entry('m.big')).loadedAtMs, 1_000_000);
  });

  it('is held from the opening of a load to its end', async () => {
    await lab.folder.publish(RESOURCE, BIG, RECORD);
    const opened = await lab.downloads.open(RESOURCE, NEVER);
    assert.ok(!(await lab.isRemovable()));
    for await (const chunk of opened.read()) assert.ok(chunk.length > 0);
    assert.ok(!(await lab.isRemovable()));
    await opened[Symbol.asyncDispose]();
    assert.ok(await lab.isRemovable());
  });

  it('is held while a load comes from the CDN, or a prefetch', async () => {
    const gate = Promise.withResolvers<undefined>();
    await lab.folder.publish(RESOURCE, BIG, { ...RECORD, smallSha256: EARLIER });
    lab.server.beforeRest = () => gate.promise;
    const wanted = await lab.downloads.prefetch(RESOURCE, NEVER);
    const abort = new AbortController();
    const running = wanted.run(abort.signal);
    await running.next();
    assert.ok(!(await lab.isRemovable()));
    abort.abort(new Error('no longer wanted'));
    await assert.rejects(Array.fromAsync(running), /no longer wanted/);
    const loading = lab.load();
    await eventually(() => lab.server.ranges.length >= 3);
    assert.ok(!(await lab.isRemovable()));
    gate.resolve(undefined);
    assert.ok(await loading);
    assert.ok(await lab.isRemovable());
  });

  it('is held no longer when it could not be opened, or was only looked at', async () => {
    await lab.folder.publish(RESOURCE, BIG, { ...RECORD, smallSha256: EARLIER });
    lab.server.object = undefined;
    await assert.rejects(lab.downloads.open(RESOURCE, NEVER), { code: 'resource_not_in_cdn' });
    await assert.rejects(lab.downloads.prefetch(RESOURCE, NEVER), { code: 'resource_not_in_cdn' });
    lab.server.object = BIG;
    await lab.downloads.prefetch(RESOURCE, NEVER);
    assert.ok(await lab.isRemovable());
  });

  it('is not set aside for its predecessor, which turns out to be bad while it is read', async () => {
    await lab.folder.publishOnly(RESOURCE, BIG, RECORD);
    const opened = await lab.downloads.open(RESOURCE, NEVER);
    await truncate(lab.folder.path('m.big'), 1_000_000);
    await lab.folder.publish(RESOURCE, BIG, RECORD);
    await assert.rejects(
      Array.fromAsync(opened.read(), (piece) => piece.length),
      { code: 'cache_unusable' },
    );
    await opened[Symbol.asyncDispose]();
    assert.deepEqual(await lab.folder.names(), ['m.big', 'm.big.dsse']);
  });

  it('without digests that is cut while it is read is told as cache_unusable, and is set aside', async () => {
    await lab.folder.publishOnly(RESOURCE, BIG, RECORD);
    await using opened = await lab.downloads.open(RESOURCE, NEVER);
    await truncate(lab.folder.path('m.big'), 1_000_000);
    await assert.rejects(
      Array.fromAsync(opened.read(), (piece) => piece.length),
      { code: 'cache_unusable' },
    );
    assert.deepEqual(await lab.folder.names(), ['m.big.bad']);
  });

  it('without digests that is cut between its opening and its preflight is set aside, and the load comes from the CDN', async () => {
    await lab.folder.publishOnly(RESOURCE, BIG, RECORD);
    let cuts = 0;
    hookedFs.beforeHandle('read', lab.folder.path('m.big'), async () => {
      cuts++;
      await truncate(lab.folder.path('m.big'));
    });
    await using opened = await lab.downloads.open(RESOURCE, NEVER);
    hookedFs.restore();
    assert.ok(cuts > 0);
    assert.deepEqual(await lab.folder.names(), ['m.big.bad']);
    assert.equal(opened.length, PLAINTEXT.length);
  });
});

describe('a copy with digests', () => {
  const CHUNK = 2 * 1024 * 1024;
  const LAST = Math.floor(BIG.length / CHUNK) * CHUNK;
  const isWhole = async () => (await readFile(lab.folder.path('m.big'))).equals(BIG);

  for (const [what, position] of [
    ['first', 0],
    ['last but one', LAST - 1],
    ['last', LAST],
  ] as const) {
    it(`gets its ${what} chunk again when a bit of it has changed, alone, and the load does not notice`, async () => {
      await lab.folder.publish(RESOURCE, BIG, RECORD);
      await lab.folder.flip('m.big', position);
      assert.ok(await lab.load());
      const start = Math.floor(position / CHUNK) * CHUNK;
      assert.deepEqual(lab.server.ranges, [`${start}-${Math.min(start + CHUNK, BIG.length) - 1}`]);
      assert.ok(await isWhole());
    });
  }

  it('gets what it has lost at its end, and the time of its last load stays', async () => {
    await lab.folder.publish(RESOURCE, BIG, RECORD);
    await truncate(lab.folder.path('m.big'), LAST - 5);
    await utimes(lab.folder.path('m.big'), 1000, 1000);
    assert.ok(await lab.load());
    assert.equal(lab.server.ranges.length, 2);
    assert.ok(await isWhole());
  });

  it('that is cut while it is read is mended in the same load', async () => {
    await lab.folder.publish(RESOURCE, BIG, RECORD);
    await using opened = await lab.downloads.open(RESOURCE, NEVER);
    await truncate(lab.folder.path('m.big'), 1_000_000);
    assert.ok(Buffer.concat(await Array.fromAsync(opened.read())).equals(PLAINTEXT));
    assert.ok(await isWhole());
  });

  it('serves what it has got again where the disk takes nothing', async () => {
    await lab.folder.publish(RESOURCE, BIG, RECORD);
    await lab.folder.flip('m.big', CHUNK + 3);
    hookedFs.beforeHandle('write', lab.folder.path('m.big'), () => {
      throw systemError('ENOSPC');
    });
    assert.ok(await lab.load());
    hookedFs.restore();
    assert.ok(!(await isWhole()));
    assert.ok(await lab.load());
    assert.ok(await isWhole());
  });

  it('that can not be mended ends the load before the first byte of the bad chunk', async () => {
    await lab.folder.publish(RESOURCE, BIG, RECORD);
    await lab.folder.flip('m.big', CHUNK + 3);
    lab.server.object = undefined;
    await using opened = await lab.downloads.open(RESOURCE, NEVER);
    const pieces: Buffer[] = [];
    await assert.rejects(
      async () => {
        for await (const piece of opened.read()) pieces.push(piece);
      },
      { code: 'resource_not_in_cdn' },
    );
    const got = Buffer.concat(pieces);
    assert.equal(got.length, 3072 - 16 + CHUNK);
    assert.ok(got.equals(PLAINTEXT.subarray(0, got.length)));
    assert.ok(await lab.folder.has('m.big'));
  });

  it('that is damaged on the CDN too ends the load, and nothing of the chunk leaves', async () => {
    const bad = Buffer.from(BIG);
    bad[CHUNK] = (bad[CHUNK] ?? 0) ^ 1;
    lab.server.object = bad;
    await lab.folder.publish(RESOURCE, bad, { ...RECORD, chunks: digestsOf(BIG) });
    await using opened = await lab.downloads.open(RESOURCE, NEVER);
    await assert.rejects(Array.fromAsync(opened.read()), { code: 'resource_damaged' });
  });

  it('is not mended from another version', async () => {
    await lab.folder.publish(RESOURCE, BIG, RECORD);
    await lab.folder.flip('m.big', CHUNK);
    lab.server.smallSha256 = EARLIER;
    await using opened = await lab.downloads.open(RESOURCE, NEVER);
    await assert.rejects(Array.fromAsync(opened.read()), { code: 'cdn_object_changed' });
    assert.deepEqual(lab.server.ranges, []);
  });

  it('stays when the key is another one', async () => {
    await lab.folder.publish(RESOURCE, BIG, RECORD);
    lab.key = Buffer.alloc(32, 1);
    await assert.rejects(lab.load(), { code: 'envelope_invalid' });
    assert.ok(await isWhole());
  });
});
