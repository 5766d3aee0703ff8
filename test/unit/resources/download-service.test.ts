import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { NEVER } from '../../../src/async/abort.ts';
import { HookedFs, systemError } from '../../../lab/faults/hooked-fs.ts';
import { BIG, DownloadLab, PLAINTEXT, RECORD, RESOURCE } from '../../support/download-lab.ts';

const hookedFs = new HookedFs();
let lab: DownloadLab;

beforeEach(async () => {
  lab = await DownloadLab.create();
});

afterEach(async () => {
  hookedFs.restore();
  await lab[Symbol.asyncDispose]();
});

describe('an open resource', () => {
  it('has a key that the CDN takes; one that is longer is refused before anything is asked for', async () => {
    const resource = { folder: Array<string>(4).fill('x'.repeat(255)).join('/'), name: 'm' };
    await assert.rejects(lab.downloads.open(resource, NEVER), { code: 'validation_failed' });
    await assert.rejects(lab.downloads.prefetch(resource, NEVER), { code: 'validation_failed' });
    assert.equal(lab.api.fetches, 0);
  });

  it('tells the length of its plaintext before a byte of it is read', async () => {
    await using opened = await lab.downloads.open(RESOURCE, NEVER);
    assert.equal(opened.length, PLAINTEXT.length);
    assert.deepEqual(lab.server.ranges, []);
  });

  it('comes from the CDN first, and then from the cache', async () => {
    assert.ok(await lab.load());
    assert.equal(lab.server.ranges.length, 3);
    assert.ok(await lab.load());
    assert.deepEqual([lab.server.ranges.length, lab.server.ends, lab.api.fetches], [3, 1, 2]);
  });

  it('comes whole although the disk of the cache is full in the middle of it', async () => {
    let writes = 0;
    hookedFs.beforeHandle('write', /\.part$/, () => {
      if (++writes > 5) throw systemError('ENOSPC');
    });
    assert.ok(await lab.load());
    assert.ok(writes > 5);
    assert.deepEqual(await lab.folder.entries(), []);
    assert.deepEqual(await lab.folder.names('.parts'), []);
  });

  it('that is not read leaves nothing open, from the cache or from the CDN', async () => {
    {
      await using _remote = await lab.downloads.open(RESOURCE, NEVER);
    }
    assert.deepEqual(await lab.folder.openFiles(), []);
    await lab.folder.publish(RESOURCE, BIG, RECORD);
    {
      await using _cached = await lab.downloads.open(RESOURCE, NEVER);
      assert.deepEqual(await lab.folder.openFiles(), [lab.folder.path('m.big')]);
    }
    assert.deepEqual(await lab.folder.openFiles(), []);
  });

  it('is refused when the parts do not belong together, and nothing stays open or held', async () => {
    await lab.folder.publish(RESOURCE, BIG, RECORD);
    lab.api.small = lab.api.small.subarray(1);
    lab.server.smallSha256 = undefined;
    await assert.rejects(lab.downloads.open(RESOURCE, NEVER), { code: 'envelope_invalid' });
    await lab.folder.closed();
    assert.ok(await lab.isRemovable());
  });
});
