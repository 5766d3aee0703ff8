import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { utimes, type FileHandle } from 'node:fs/promises';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, describe, it } from 'node:test';
import type { Session } from '../../../src/upstream/session.ts';
import { S3CdnManager } from '../../../src/cdn/s3-cdn-manager.ts';
import { hasErrorCode, LoaderError } from '../../../src/errors.ts';
import { DownloadService } from '../../../src/resources/download-service.ts';
import { KeyedReadWriteLock } from '../../../src/async/keyed-read-write-lock.ts';
import { SharedTransfers } from '../../../src/resources/shared-transfers.ts';
import { smallPartLength } from '../../../src/resources/envelope-parts.ts';
import { PREFLIGHT_LENGTH } from '../../../src/security/envelope.ts';
import { encryptBuffer } from '../../../src/security/envelope-cipher.ts';
import { CacheFolder, until } from '../../support/cache-folder.ts';
import { HookedFs, systemError } from '../../../lab/faults/hooked-fs.ts';
import { NEVER } from '../../../src/async/abort.ts';

const MIB = 1024 * 1024;
const RESOURCE = { folder: 'models', name: 'm' };
const KEY = randomBytes(32);
/** Three ranges. */
const PLAINTEXT = randomBytes(17 * MIB + 123);
const ENVELOPE = encryptBuffer(PLAINTEXT, KEY);
const SMALL = ENVELOPE.subarray(0, smallPartLength(ENVELOPE.length));
const BIG = ENVELOPE.subarray(SMALL.length);
const RECORD = { bigLength: BIG.length, smallSha256: createHash('sha256').update(SMALL).digest('hex') };

/** An S3 server of one object. */
class OneObjectServer {
  readonly ranges: string[] = [];
  etag = '"1"';
  /** Undefined for none. */
  object: Buffer | undefined = BIG;
  /** Called with the bytes of a body that are sent already, of those that have more than 1 MiB. */
  beforeRest: (sent: number) => Promise<void> = () => Promise.resolve();
  readonly #server: Server = createServer((request, response) => {
    void this.#answer(request, response);
  });

  async start(): Promise<string> {
    this.#server.listen(0, '127.0.0.1');
    await once(this.#server, 'listening');
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  async connections(): Promise<number> {
    return await new Promise((resolve, reject) => {
      this.#server.getConnections((error, count) => {
        if (error === null) resolve(count);
        else reject(error);
      });
    });
  }

  async stop(): Promise<void> {
    this.#server.closeAllConnections();
    this.#server.close();
    await once(this.#server, 'close');
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { range = '', 'if-match': wanted = this.etag } = request.headers;
    const [, first = '', last = ''] = /^bytes=(\d*)-(\d+)$/.exec(range) ?? [];
    if (first !== '') this.ranges.push(`${first}-${last}`);
    if (this.object === undefined) return void response.writeHead(404).end();
    if (wanted !== this.etag) return void response.writeHead(412).end();
    const total = this.object.length;
    const [start, end] = first === '' ? [Math.max(0, total - Number(last)), total] : [Number(first), Number(last) + 1];
    response.writeHead(206, {
      etag: this.etag,
      'content-range': `bytes ${start}-${end - 1}/${total}`,
      'content-length': end - start,
    });
    const sent = Math.min(end - start, MIB);
    response.write(this.object.subarray(start, start + sent));
    if (sent < end - start) await this.beforeRest(sent);
    response.end(this.object.subarray(start + sent, end));
  }
}

/** Has one small part for everybody. */
class OneSmallPart {
  small = SMALL;

  fetchResource(): Promise<Buffer> {
    return Promise.resolve(this.small);
  }

  fetchKeyFragment(): Promise<never> {
    return Promise.reject(new Error('a load needs no key fragment'));
  }

  storeResource(): Promise<never> {
    return Promise.reject(new Error('a load stores nothing'));
  }
}

const hookedFs = new HookedFs();
let folder: CacheFolder;
let server: OneObjectServer;
let cdn: S3CdnManager;
let api: OneSmallPart;
let key: Buffer;
let downloads: DownloadService;

beforeEach(async () => {
  folder = await CacheFolder.create();
  server = new OneObjectServer();
  api = new OneSmallPart();
  key = KEY;
  const keys = { accessKeyId: 'none', secretAccessKey: 'none' };
  const host = await server.start();
  cdn = new S3CdnManager(
    { host, region: 'none', bucket: 'b', downloader: keys, uploader: keys, resourceKey: undefined },
    { stallTimeoutMs: 2000 },
  );
  const user = { roleName: 'none' } as unknown as Session['user'];
  downloads = new DownloadService({
    upstream: { currentSession: () => ({ user, api, cdn, resourceAesKey: () => key }) },
    cache: folder.cache,
    transfers: new SharedTransfers(),
    publicationLocks: new KeyedReadWriteLock(),
    logger: folder.logger,
  });
});

afterEach(async () => {
  hookedFs.restore();
  cdn.close();
  await server.stop();
  await folder.remove();
});

/** Loads it whole, and closes. */
async function load(): Promise<boolean> {
  const opened = await downloads.open(RESOURCE, NEVER);
  try {
    return Buffer.concat(await Array.fromAsync(opened.chunks, (chunk) => Buffer.from(chunk))).equals(PLAINTEXT);
  } finally {
    await opened[Symbol.asyncDispose]();
  }
}

/** Lets `before` run, or fail, before each read of a copy that is opened from now on. */
function beforeReads(before: (position: number) => void): void {
  hookedFs.onOpen((handle, filePath) => {
    if (filePath !== folder.path('m.big')) return;
    const read = handle.read.bind(handle) as (...parameters: unknown[]) => ReturnType<FileHandle['read']>;
    const readOrFail = async (...parameters: unknown[]) => {
      before(Number(parameters[3]));
      return await read(...parameters);
    };
    Object.assign(handle, { read: readOrFail });
  });
}

async function prefetch(): Promise<number[]> {
  const told: number[] = [];
  const plan = await downloads.planPrefetch(RESOURCE, NEVER);
  await plan.run(NEVER, (bytes) => told.push(bytes));
  return told;
}

const isRemovable = async () => (await folder.cache.removeUnlessHeld(await folder.entry('m.big'))) === 'removed';

describe('the plan of a prefetch', () => {
  it('tells what is to be fetched, and fetches nothing yet', async () => {
    const { length, isCached } = await downloads.planPrefetch(RESOURCE, NEVER);
    assert.deepEqual({ length, isCached }, { length: BIG.length, isCached: false });
    assert.deepEqual(server.ranges, []);
    assert.deepEqual(await folder.entries(), []);
  });

  it('brings it into the cache, from which the next load comes', async () => {
    const told = await prefetch();
    assert.equal(told.at(-1), BIG.length);
    assert.equal(server.ranges.length, 3);
    assert.equal((await folder.entry('m.big')).length, BIG.length);
    assert.deepEqual(await folder.names('.parts'), []);
    server.object = undefined;
    assert.ok(await load());
  });

  it('tells that it is in the cache: it counts as loaded, is not open, and there is nothing to do', async () => {
    await folder.publish(RESOURCE, BIG, RECORD);
    await utimes(folder.path('m.big'), 1000, 1000);
    server.object = undefined;
    const plan = await downloads.planPrefetch(RESOURCE, NEVER);
    assert.deepEqual([plan.length, plan.isCached], [BIG.length, true]);
    assert.ok((await folder.entry('m.big')).loadedAtMs > Date.now() - 10_000);
    await folder.closed();
    await plan.run(NEVER, () => assert.fail('nothing is fetched'));
    assert.ok(await isRemovable());
  });

  it('does not take the copy of an earlier version for it', async () => {
    await folder.publish(RESOURCE, BIG, { ...RECORD, smallSha256: 'earlier' });
    const plan = await downloads.planPrefetch(RESOURCE, NEVER);
    assert.ok(!plan.isCached);
    await folder.closed();
    await plan.run(NEVER, () => undefined);
    assert.ok((await downloads.planPrefetch(RESOURCE, NEVER)).isCached);
  });

  it('sets a bad copy aside', async () => {
    await folder.publish(RESOURCE, BIG, RECORD);
    await folder.flip('m.big', BIG.length - 17);
    const plan = await downloads.planPrefetch(RESOURCE, NEVER);
    assert.ok(!plan.isCached);
    assert.deepEqual(await folder.names(), ['m.big.bad']);
    await folder.closed();
    await plan.run(NEVER, () => undefined);
    assert.ok(await load());
  });

  it('tells a wrong key before anything is fetched', async () => {
    // One in 256 gives a valid padding by chance.
    const plans = [1, 2, 3, 4].map((byte) => {
      key = Buffer.alloc(32, byte);
      return downloads.planPrefetch(RESOURCE, NEVER);
    });
    const outcomes = await Promise.allSettled(plans);
    const failures = outcomes.filter((outcome) => outcome.status === 'rejected');
    assert.ok(failures.length > 0);
    for (const { reason } of failures) assert.ok(hasErrorCode(reason, 'envelope_invalid'));
    assert.deepEqual(server.ranges, []);
  });

  it('tells what is missing', async () => {
    server.object = undefined;
    await assert.rejects(downloads.planPrefetch(RESOURCE, NEVER), { code: 'resource_not_in_cdn' });
    api.fetchResource = () => Promise.reject(new LoaderError('resource_not_in_api', 'no'));
    await assert.rejects(downloads.planPrefetch(RESOURCE, NEVER), { code: 'resource_not_in_api' });
  });

  it('fails when the object was replaced since, and leaves nothing', async () => {
    const plan = await downloads.planPrefetch(RESOURCE, NEVER);
    server.etag = '"2"';
    await assert.rejects(
      plan.run(NEVER, () => undefined),
      { code: 'cdn_object_changed' },
    );
    assert.deepEqual(await folder.entries(), []);
    assert.deepEqual(await folder.names('.parts'), []);
  });

  it('fails with cache_unusable when the disk does', async () => {
    const plan = await downloads.planPrefetch(RESOURCE, NEVER);
    hookedFs.before('rename', () => {
      throw systemError('ENOSPC');
    });
    await assert.rejects(
      plan.run(NEVER, () => undefined),
      { code: 'cache_unusable' },
    );
    hookedFs.restore();
    assert.deepEqual(await folder.entries(), []);
    assert.deepEqual(await folder.names('.parts'), []);
    assert.ok(await load());
  });

  it('that is aborted leaves no file and no connection', async () => {
    server.beforeRest = () => new Promise(() => undefined);
    const plan = await downloads.planPrefetch(RESOURCE, NEVER);
    const abort = new AbortController();
    const reason = new Error('no longer wanted');
    const running = plan.run(abort.signal, () => undefined);
    await until(() => server.ranges.length === 3);
    await sleep(50);
    const aborted = performance.now();
    abort.abort(reason);
    await assert.rejects(running, reason);
    assert.ok(performance.now() - aborted < 500);
    assert.deepEqual(await folder.names('.parts'), []);
    assert.deepEqual(await folder.entries(), []);
    await folder.closed();
    // That of the plan is idle.
    await until(async () => (await server.connections()) <= 1, 500);
    await assert.rejects(
      plan.run(abort.signal, () => undefined),
      reason,
    );
    assert.equal(server.ranges.length, 3);
  });

  it('shares the transfer with the loads of the same', async () => {
    const [told, ...loads] = await Promise.all([prefetch(), load(), load()]);
    assert.equal(told.at(-1), BIG.length);
    assert.deepEqual(loads, [true, true]);
    assert.equal(server.ranges.length, 3);
  });

  it('goes on without the load that it shared the transfer with, and the other way', async () => {
    const gate = Promise.withResolvers<undefined>();
    server.beforeRest = () => gate.promise;
    const abort = new AbortController();
    const plan = await downloads.planPrefetch(RESOURCE, NEVER);
    const loading = load();
    await until(() => server.ranges.length === 3);
    const running = plan.run(abort.signal, () => undefined); // It joins at once.
    abort.abort(new Error('no longer wanted'));
    gate.resolve(undefined);
    await assert.rejects(running, /no longer wanted/);
    assert.ok(await loading);
    assert.equal(server.ranges.length, 3);
  });
});

describe('a copy in the cache', () => {
  it('counts as loaded when a load accepts it', async () => {
    await folder.publish(RESOURCE, BIG, RECORD);
    await utimes(folder.path('m.big'), 1000, 1000);
    assert.ok(await load());
    assert.ok((await folder.entry('m.big')).loadedAtMs > Date.now() - 10_000);
    assert.equal(server.ranges.length, 0);
  });

  it('does not count as loaded when it is of an earlier version', async () => {
    await folder.publish(RESOURCE, BIG, { ...RECORD, smallSha256: 'earlier' });
    await utimes(folder.path('m.big'), 1000, 1000);
    await downloads.planPrefetch(RESOURCE, NEVER);
    assert.equal((await folder.entry('m.big')).loadedAtMs, 1_000_000);
  });

  it('is held from the opening of a load to its end', async () => {
    await folder.publish(RESOURCE, BIG, RECORD);
    const opened = await downloads.open(RESOURCE, NEVER);
    assert.ok(!(await isRemovable()));
    for await (const chunk of opened.chunks) assert.ok(chunk.length > 0);
    assert.ok(!(await isRemovable()));
    await opened[Symbol.asyncDispose]();
    assert.ok(await isRemovable());
  });

  it('is held while a load comes from the CDN, or a prefetch', async () => {
    const gate = Promise.withResolvers<undefined>();
    await folder.publish(RESOURCE, BIG, { ...RECORD, smallSha256: 'earlier' });
    server.beforeRest = () => gate.promise;
    const plan = await downloads.planPrefetch(RESOURCE, NEVER);
    const abort = new AbortController();
    const running = plan.run(abort.signal, () => undefined);
    assert.ok(!(await isRemovable()));
    abort.abort(new Error('no longer wanted'));
    await assert.rejects(running);
    const loading = load();
    await until(() => server.ranges.length >= 3);
    assert.ok(!(await isRemovable()));
    gate.resolve(undefined);
    assert.ok(await loading);
    assert.ok(await isRemovable());
  });

  it('is held no longer when it could not be opened, or was only looked at', async () => {
    await folder.publish(RESOURCE, BIG, { ...RECORD, smallSha256: 'earlier' });
    server.object = undefined;
    await assert.rejects(downloads.open(RESOURCE, NEVER), { code: 'resource_not_in_cdn' });
    await assert.rejects(downloads.planPrefetch(RESOURCE, NEVER), { code: 'resource_not_in_cdn' });
    server.object = BIG;
    await downloads.planPrefetch(RESOURCE, NEVER);
    assert.ok(await isRemovable());
  });

  it('is not set aside for its predecessor, which turns out to be bad while it is read', async () => {
    await folder.publish(RESOURCE, BIG, RECORD);
    let isBroken = false;
    beforeReads(() => {
      if (isBroken) throw systemError('EIO');
    });
    const opened = await downloads.open(RESOURCE, NEVER);
    hookedFs.restore();
    await folder.publish(RESOURCE, BIG, RECORD);
    isBroken = true;
    await assert.rejects(async () => {
      for await (const chunk of opened.chunks) assert.ok(chunk.length > 0);
    });
    await opened[Symbol.asyncDispose]();
    assert.deepEqual(await folder.names(), ['m.big', 'm.big.json', 'm.big.sums']);
  });

  it('is set aside when it turns out to be bad while it is read', async () => {
    await folder.publish(RESOURCE, BIG, RECORD);
    beforeReads((position) => {
      if (position < BIG.length - PREFLIGHT_LENGTH) throw systemError('EIO');
    });
    await assert.rejects(load());
    hookedFs.restore();
    assert.deepEqual(await folder.names(), ['m.big.bad']);
    assert.ok(await load());
  });
});
