import assert from 'node:assert/strict';
import { utimes } from 'node:fs/promises';
import { readFile } from 'node:fs/promises';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { NEVER } from '../../../src/async/abort.ts';
import { hasErrorCode, LoaderError } from '../../../src/errors.ts';
import { resourceKey } from '../../../src/resource-name.ts';
import type { Prefetch } from '../../../src/resources/prefetch.ts';
import { HookedFs, systemError } from '../../../lab/faults/hooked-fs.ts';
import { BIG, DownloadLab, LOAD_PATIENCE_MS, RECORD, EARLIER, RESOURCE } from '../../support/download-lab.ts';
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

/** Runs it to its end, and returns what it told. */
async function store(prefetch: Prefetch, signal = NEVER): Promise<number[]> {
  return await Array.fromAsync(prefetch.run(signal), ({ bytes }) => bytes);
}

async function prefetch(): Promise<number[]> {
  return await store(await lab.downloads.prefetch(RESOURCE, NEVER));
}

describe('a prefetch', () => {
  it('tells what is to be fetched, and fetches nothing yet', async () => {
    const { length, isCached } = await lab.downloads.prefetch(RESOURCE, NEVER);
    assert.deepEqual({ length, isCached }, { length: BIG.length, isCached: false });
    assert.deepEqual(lab.server.ranges, []);
    assert.deepEqual(await lab.folder.entries(), []);
  });

  it('asks the API and the CDN once, and then for nothing but the ranges', async () => {
    const wanted = await lab.downloads.prefetch(RESOURCE, NEVER);
    await store(wanted);
    assert.deepEqual([lab.api.fetches, lab.server.ends, lab.server.ranges.length], [1, 1, 3]);
  });

  it('fetches nothing when a load has brought it meanwhile', async () => {
    const wanted = await lab.downloads.prefetch(RESOURCE, NEVER);
    assert.ok(await lab.load());
    assert.deepEqual(await store(wanted), []);
    assert.equal(lab.server.ranges.length, 3);
  });

  it('brings it into the cache, from which the next load comes', async () => {
    const told = await prefetch();
    assert.equal(told.at(-1), BIG.length);
    assert.equal(lab.server.ranges.length, 3);
    assert.equal((await lab.folder.entry('m.big')).length, BIG.length);
    assert.deepEqual(await lab.folder.names('.parts'), []);
    lab.server.object = undefined;
    assert.ok(await lab.load());
  });

  it('tells that it is in the cache: it counts as loaded, is not open, and there is nothing to do', async () => {
    await lab.folder.publish(RESOURCE, BIG, RECORD);
    await utimes(lab.folder.path('m.big'), 1000, 1000);
    lab.server.object = undefined;
    const wanted = await lab.downloads.prefetch(RESOURCE, NEVER);
    assert.deepEqual([wanted.length, wanted.isCached], [BIG.length, true]);
    assert.ok((await lab.folder.entry('m.big')).loadedAtMs > Date.now() - 10_000);
    await lab.folder.closed();
    assert.deepEqual(await store(wanted), []);
    assert.ok(await lab.isRemovable());
  });

  it('does not take the copy of an earlier version for it', async () => {
    await lab.folder.publish(RESOURCE, BIG, { ...RECORD, smallSha256: EARLIER });
    const wanted = await lab.downloads.prefetch(RESOURCE, NEVER);
    assert.ok(!wanted.isCached);
    await lab.folder.closed();
    await store(wanted);
    assert.ok((await lab.downloads.prefetch(RESOURCE, NEVER)).isCached);
  });

  it('mends the end of a copy, alone', async () => {
    await lab.folder.publish(RESOURCE, BIG, RECORD);
    await lab.folder.flip('m.big', BIG.length - 17);
    const wanted = await lab.downloads.prefetch(RESOURCE, NEVER);
    assert.ok(wanted.isCached);
    assert.equal(lab.server.ranges.length, 1);
    assert.ok((await readFile(lab.folder.path('m.big'))).equals(BIG));
    assert.ok(await lab.load());
  });

  it('sets a bad copy aside whose digests are not known', async () => {
    await lab.folder.publishOnly(RESOURCE, BIG, RECORD);
    await lab.folder.flip('m.big', BIG.length - 17);
    const wanted = await lab.downloads.prefetch(RESOURCE, NEVER);
    assert.ok(!wanted.isCached);
    assert.deepEqual(await lab.folder.names(), ['m.big.bad']);
    await lab.folder.closed();
    await store(wanted);
    assert.ok(await lab.load());
  });

  it('tells a wrong key before anything is fetched', async () => {
    // One in 256 gives a valid padding by chance.
    const plans = [1, 2, 3, 4].map((byte) => {
      lab.key = Buffer.alloc(32, byte);
      return lab.downloads.prefetch(RESOURCE, NEVER);
    });
    const outcomes = await Promise.allSettled(plans);
    const failures = outcomes.filter((outcome) => outcome.status === 'rejected');
    assert.ok(failures.length > 0);
    for (const { reason } of failures) assert.ok(hasErrorCode(reason, 'envelope_invalid'));
    assert.deepEqual(lab.server.ranges, []);
  });

  it('tells what is missing', async () => {
    lab.server.object = undefined;
    await assert.rejects(lab.downloads.prefetch(RESOURCE, NEVER), { code: 'resource_not_in_cdn' });
    lab.api.fetchResource = () => Promise.reject(new LoaderError('resource_not_in_api', 'no'));
    await assert.rejects(lab.downloads.prefetch(RESOURCE, NEVER), { code: 'resource_not_in_api' });
  });

  it('tells at once that it waits, and keeps no upload of the resource waiting meanwhile', async () => {
    lab.server.isDown = true;
    const waits: (string | undefined)[] = [];
    const onWait = (failure?: LoaderError) => waits.push(failure?.code);
    const patience = { limitMs: 60_000, setting: 'PREFETCH_OUTAGE_MS', onWait };
    const wanted = lab.downloads.prefetch(RESOURCE, NEVER, patience);
    const startedAt = performance.now();
    await eventually(() => waits.length > 0);
    assert.ok(performance.now() - startedAt < LOAD_PATIENCE_MS, 'it told of its wait as late as a load gives up');
    (await lab.publicationLocks.exclusive(resourceKey(RESOURCE)))[Symbol.dispose]();
    assert.ok(performance.now() - startedAt < LOAD_PATIENCE_MS, 'an upload had to wait');
    lab.server.isDown = false;
    await wanted;
    assert.deepEqual(new Set(waits), new Set(['cdn_error', undefined]));
  });

  it('fails when the object was replaced since, and leaves nothing', async () => {
    const wanted = await lab.downloads.prefetch(RESOURCE, NEVER);
    lab.server.smallSha256 = 'ef'.repeat(32);
    await assert.rejects(store(wanted), { code: 'cdn_object_changed' });
    assert.deepEqual(await lab.folder.entries(), []);
    assert.deepEqual(await lab.folder.names('.parts'), []);
  });

  it('fails with cache_unusable when the disk does', async () => {
    const wanted = await lab.downloads.prefetch(RESOURCE, NEVER);
    hookedFs.before('rename', /\.part$/, () => {
      throw systemError('ENOSPC');
    });
    await assert.rejects(store(wanted), { code: 'cache_unusable' });
    hookedFs.restore();
    assert.deepEqual(await lab.folder.entries(), []);
    assert.deepEqual(await lab.folder.names('.parts'), []);
    assert.ok(await lab.load());
  });

  it('that is aborted leaves no file and no connection', async () => {
    lab.server.beforeRest = () => new Promise(() => undefined);
    const wanted = await lab.downloads.prefetch(RESOURCE, NEVER);
    const abort = new AbortController();
    const reason = new Error('no longer wanted');
    let aborted = Infinity;
    const running = async () => {
      for await (const { bytes } of wanted.run(abort.signal)) {
        if (bytes === 0) continue;
        aborted = performance.now();
        abort.abort(reason);
      }
    };
    await assert.rejects(running, reason);
    assert.ok(performance.now() - aborted < 500);
    assert.deepEqual(await lab.folder.names('.parts'), []);
    assert.deepEqual(await lab.folder.entries(), []);
    await lab.folder.closed();
    // The connection on which the end was asked for is idle.
    await eventually(async () => (await lab.server.connections()) <= 1, { timeoutMs: 500 });
    await assert.rejects(store(wanted, abort.signal), reason);
    assert.equal(lab.server.ranges.length, 3);
  });

  it('shares the transfer with the loads of the same', async () => {
    const [told, ...loads] = await Promise.all([prefetch(), lab.load(), lab.load()]);
    assert.equal(told.at(-1), BIG.length);
    assert.deepEqual(loads, [true, true]);
    assert.equal(lab.server.ranges.length, 3);
  });

  it('leaves a load alone with which it shared the transfer', async () => {
    const gate = Promise.withResolvers<undefined>();
    lab.server.beforeRest = () => gate.promise;
    const abort = new AbortController();
    const wanted = await lab.downloads.prefetch(RESOURCE, NEVER);
    const loading = lab.load();
    await eventually(() => lab.server.ranges.length === 3);
    const running = wanted.run(abort.signal);
    await running.next();
    abort.abort(new Error('no longer wanted'));
    await assert.rejects(Array.fromAsync(running), /no longer wanted/);
    gate.resolve(undefined);
    assert.ok(await loading);
    assert.equal(lab.server.ranges.length, 3);
  });

  it('goes on without the load with which it shared the transfer', async () => {
    const gate = Promise.withResolvers<undefined>();
    lab.server.beforeRest = () => gate.promise;
    const abort = new AbortController();
    const running = (await lab.downloads.prefetch(RESOURCE, NEVER)).run(NEVER);
    {
      await using opened = await lab.downloads.open(RESOURCE, abort.signal);
      const chunks = opened.read()[Symbol.asyncIterator]();
      // The small part, and the first bytes of the big one.
      for (let count = 0; count < 2; count++) assert.ok((await chunks.next()).done !== true);
      await running.next();
      abort.abort(new Error('the client has left'));
      await chunks.return?.();
    }
    gate.resolve(undefined);
    assert.equal((await Array.fromAsync(running)).at(-1)?.bytes, BIG.length);
    assert.equal(lab.server.ranges.length, 3);
  });
});
