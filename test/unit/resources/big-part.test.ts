import assert from 'node:assert/strict';
import { truncate, utimes } from 'node:fs/promises';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { NEVER } from '../../../src/async/abort.ts';
import { PREFLIGHT_LENGTH } from '../../../src/security/envelope.ts';
import { HookedFs, systemError } from '../../../lab/faults/hooked-fs.ts';
import { BIG, DownloadLab, PLAINTEXT, RECORD, RESOURCE } from '../../support/download-lab.ts';
import { eventually } from '../../../lab/waiting.ts';

const hookedFs = new HookedFs();
let lab: DownloadLab;

beforeEach(async () => {
  lab = await DownloadLab.create();
});

afterEach(async () => {
  hookedFs.restore();
  await lab[Symbol.asyncDispose]();
});

/** Lets `before` run, or fail, before each read of a copy that is opened from now on. */
function beforeReads(before: (position: number) => void): void {
  hookedFs.beforeHandle('read', lab.folder.path('m.big'), before);
}

describe('a copy in the cache', () => {
  it('counts as loaded when a load accepts it', async () => {
    await lab.folder.publish(RESOURCE, BIG, RECORD);
    await utimes(lab.folder.path('m.big'), 1000, 1000);
    assert.ok(await lab.load());
    assert.ok((await lab.folder.entry('m.big')).loadedAtMs > Date.now() - 10_000);
    assert.equal(lab.server.ranges.length, 0);
  });

  it('does not count as loaded when it is of an earlier version', async () => {
    await lab.folder.publish(RESOURCE, BIG, { ...RECORD, smallSha256: 'earlier' });
    await utimes(lab.folder.path('m.big'), 1000, 1000);
    await lab.downloads.prefetch(RESOURCE, NEVER);
    assert.equal((await lab.folder.entry('m.big')).loadedAtMs, 1_000_000);
  });

  it('is held from the opening of a load to its end', async () => {
    await lab.folder.publish(RESOURCE, BIG, RECORD);
    const opened = await lab.downloads.open(RESOURCE, NEVER);
    assert.ok(!(await lab.isRemovable()));
    for await (const chunk of opened.chunks) assert.ok(chunk.length > 0);
    assert.ok(!(await lab.isRemovable()));
    await opened[Symbol.asyncDispose]();
    assert.ok(await lab.isRemovable());
  });

  it('is held while a load comes from the CDN, or a prefetch', async () => {
    const gate = Promise.withResolvers<undefined>();
    await lab.folder.publish(RESOURCE, BIG, { ...RECORD, smallSha256: 'earlier' });
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
    await lab.folder.publish(RESOURCE, BIG, { ...RECORD, smallSha256: 'earlier' });
    lab.server.object = undefined;
    await assert.rejects(lab.downloads.open(RESOURCE, NEVER), { code: 'resource_not_in_cdn' });
    await assert.rejects(lab.downloads.prefetch(RESOURCE, NEVER), { code: 'resource_not_in_cdn' });
    lab.server.object = BIG;
    await lab.downloads.prefetch(RESOURCE, NEVER);
    assert.ok(await lab.isRemovable());
  });

  it('is not set aside for its predecessor, which turns out to be bad while it is read', async () => {
    await lab.folder.publish(RESOURCE, BIG, RECORD);
    let isBroken = false;
    beforeReads(() => {
      if (isBroken) throw systemError('EIO');
    });
    const opened = await lab.downloads.open(RESOURCE, NEVER);
    hookedFs.restore();
    await lab.folder.publish(RESOURCE, BIG, RECORD);
    isBroken = true;
    await assert.rejects(async () => {
      for await (const chunk of opened.chunks) assert.ok(chunk.length > 0);
    });
    await opened[Symbol.asyncDispose]();
    assert.deepEqual(await lab.folder.names(), ['m.big', 'm.big.json', 'm.big.sums']);
  });

  it('is set aside when it turns out to be bad while it is read', async () => {
    await lab.folder.publish(RESOURCE, BIG, RECORD);
    beforeReads((position) => {
      if (position < BIG.length - PREFLIGHT_LENGTH) throw systemError('EIO');
    });
    await assert.rejects(lab.load());
    hookedFs.restore();
    assert.deepEqual(await lab.folder.names(), ['m.big.bad']);
    assert.ok(await lab.load());
  });

  it('that is cut while it is read is told as cache_unusable, and is set aside', async () => {
    await lab.folder.publish(RESOURCE, BIG, RECORD);
    await using opened = await lab.downloads.open(RESOURCE, NEVER);
    await truncate(lab.folder.path('m.big'), BIG.length - 1);
    await assert.rejects(
      Array.fromAsync(opened.chunks, (chunk) => chunk.length),
      { code: 'cache_unusable' },
    );
    assert.deepEqual(await lab.folder.names(), ['m.big.bad']);
  });

  it('that is cut between its opening and its preflight is set aside, and the load comes from the CDN', async () => {
    await lab.folder.publish(RESOURCE, BIG, RECORD);
    let cuts = 0;
    hookedFs.beforeHandle('read', lab.folder.path('m.big'), async () => {
      cuts++;
      await truncate(lab.folder.path('m.big'));
    });
    await using opened = await lab.downloads.open(RESOURCE, NEVER);
    hookedFs.restore();
    assert.equal(cuts, 1);
    assert.deepEqual(await lab.folder.names(), ['m.big.bad']);
    assert.equal(opened.length, PLAINTEXT.length);
  });
});
