import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { mkdtemp, readdir, readFile, readlink, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { DraftFile } from '../../../src/files/draft-file.ts';
import { S3CdnManager, type CdnObject } from '../../../src/cdn/s3-cdn-manager.ts';
import { LoaderError } from '../../../src/errors.ts';
import { createLogger } from '../../../src/logger.ts';
import { SharedTransfer, type Follower, type SharedTransferOptions } from '../../../src/resources/shared-transfer.ts';
import { SharedTransfers } from '../../../src/resources/shared-transfers.ts';
import { NEVER } from '../../../src/async/abort.ts';

const MIB = 1024 * 1024;
/** Three ranges: two of 8 MiB, and one of 1 MiB and a bit. */
const CONTENT = randomBytes(17 * MIB + 123);
const OBJECT: CdnObject = { bucket: 'b', key: 'k', etag: '"1"', length: CONTENT.length, tail: Buffer.alloc(0) };
/** A CDN without a network: it serves `CONTENT`, as far as the test lets it. */
class FakeCdn extends S3CdnManager {
  readonly ranges: [start: number, end: number][] = [];
  readonly aborted: unknown[] = [];
  /** Called before each chunk; the bytes from this position on wait for it. */
  beforeChunk: (position: number, signal: AbortSignal) => Promise<void> = () => Promise.resolve();

  constructor() {
    const keys = { accessKeyId: 'none', secretAccessKey: 'none' };
    super(
      {
        host: 'http://127.0.0.1:9',
        region: 'none',
        bucket: 'b',
        downloader: keys,
        uploader: keys,
        resourceKey: undefined,
      },
      { stallTimeoutMs: 1000 },
    );
  }

  override async *readRange(
    object: CdnObject,
    start: number,
    end: number,
    signal: AbortSignal,
  ): AsyncGenerator<Buffer, void, undefined> {
    assert.equal(object, OBJECT);
    this.ranges.push([start, end]);
    for (let position = start; position < end; position += 300_000) {
      const aborted = Promise.withResolvers<never>();
      const onAbort = () => {
        this.aborted.push(signal.reason);
        aborted.reject(signal.reason as Error);
      };
      signal.addEventListener('abort', onAbort, { once: true });
      try {
        signal.throwIfAborted();
        await Promise.race([this.beforeChunk(position, signal), aborted.promise]);
      } finally {
        signal.removeEventListener('abort', onAbort);
      }
      yield CONTENT.subarray(position, Math.min(end, position + 300_000));
    }
  }
}

let folder = '';
let cdn = new FakeCdn();
let published: Buffer[] = [];

beforeEach(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'loader-transfer-'));
  cdn = new FakeCdn();
  published = [];
});

afterEach(async () => {
  cdn.close();
  // Whatever a test did: no unfinished file, and no open one.
  assert.deepEqual(
    (await readdir(folder)).filter((name) => name.endsWith('.part')),
    [],
  );
  assert.deepEqual(await openFiles(), []);
  await rm(folder, { recursive: true, force: true });
});

async function openFiles(): Promise<string[]> {
  const descriptors = await readdir('/proc/self/fd');
  const targets = await Promise.all(descriptors.map((fd) => readlink(`/proc/self/fd/${fd}`).catch(() => '')));
  return targets.filter((target) => target.startsWith(folder));
}

let parts = 0;
function makeOptions(changes: Partial<SharedTransferOptions> = {}): SharedTransferOptions {
  return {
    cdn,
    object: OBJECT,
    createDraft: () => DraftFile.create(path.join(folder, `${parts++}.part`)),
    publish: async (file) => {
      const target = path.join(folder, 'model.big');
      await file.publish(target);
      published.push(await readFile(target));
    },
    logger: createLogger({ level: 'silent' }),
    ...changes,
  };
}

interface Reading {
  readonly digest: string;
  readonly length: number;
}

const WHOLE: Reading = { digest: sha256(CONTENT), length: CONTENT.length };

/** Reads all as a caller would, and leaves. */
async function readAll(follower: Follower, signal = NEVER): Promise<Reading> {
  const hash = createHash('sha256');
  let length = 0;
  try {
    for await (const chunk of follower.chunks(signal)) {
      hash.update(chunk);
      length += chunk.length;
    }
  } finally {
    await follower.leave();
  }
  return { digest: hash.digest('hex'), length };
}

function sha256(bytes: Buffer): string {
  return createHash('sha256').update(bytes).digest('hex');
}

/** Holds back all chunks from `position` on, until `open`. */
function holdFrom(position: number) {
  const gate = Promise.withResolvers<undefined>();
  cdn.beforeChunk = async (chunkPosition) => {
    if (chunkPosition >= position) await gate.promise;
  };
  return {
    open: () => gate.resolve(undefined),
  };
}

async function eventually(condition: () => boolean): Promise<void> {
  const deadline = performance.now() + 5000;
  while (!condition()) {
    assert.ok(performance.now() < deadline, 'it did not come true in time');
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

describe('a transfer', () => {
  it('gives one follower all bytes, and publishes them once', async () => {
    const transfer = new SharedTransfer(makeOptions());
    assert.deepEqual(await readAll(transfer.join()), WHOLE);
    assert.equal(published.length, 1);
    assert.ok(published[0]?.equals(CONTENT));
  });

  it('asks for each range once, side by side, however many follow', async () => {
    const transfer = new SharedTransfer(makeOptions());
    const followers = Array.from({ length: 8 }, () => transfer.join());
    for (const reading of await Promise.all(followers.map((follower) => readAll(follower)))) {
      assert.deepEqual(reading, WHOLE);
    }
    assert.deepEqual(
      cdn.ranges.toSorted(([a], [b]) => a - b),
      [
        [0, 8 * MIB],
        [8 * MIB, 16 * MIB],
        [16 * MIB, CONTENT.length],
      ],
    );
  });

  it('gives a follower the first bytes while the last are not there yet', async () => {
    const gate = holdFrom(4 * MIB);
    const transfer = new SharedTransfer(makeOptions());
    const follower = transfer.join();
    const chunks = follower.chunks(NEVER);
    const first = await chunks.next();
    assert.ok(first.done !== true && first.value.equals(CONTENT.subarray(0, first.value.length)));
    assert.equal(published.length, 0);
    gate.open();
    for await (const chunk of chunks) assert.ok(chunk.length > 0);
    await follower.leave();
  });

  it('gives no byte of a later range before those of an earlier one', async () => {
    const gate = Promise.withResolvers<undefined>();
    cdn.beforeChunk = async (position) => {
      if (position < 8 * MIB) await gate.promise;
    };
    const transfer = new SharedTransfer(makeOptions());
    const reading = readAll(transfer.join());
    await eventually(() => cdn.ranges.length === 3);
    await new Promise((resolve) => setTimeout(resolve, 50));
    gate.resolve(undefined);
    assert.deepEqual(await reading, WHOLE);
  });

  it('gives a late follower all bytes from the first on, without asking again', async () => {
    const gate = holdFrom(12 * MIB);
    const transfer = new SharedTransfer(makeOptions());
    const early = readAll(transfer.join());
    await eventually(() => cdn.ranges.length === 3);
    await new Promise((resolve) => setTimeout(resolve, 50));
    const late = readAll(transfer.join());
    gate.open();
    assert.deepEqual(await Promise.all([early, late]), [WHOLE, WHOLE]);
    assert.equal(cdn.ranges.length, 3);
  });

  it('waits for no slow follower, who still gets all', async () => {
    const transfer = new SharedTransfer(makeOptions());
    const slow = transfer.join();
    const slowChunks = slow.chunks(NEVER);
    const first = await slowChunks.next();
    assert.ok(first.done !== true);
    const hash = createHash('sha256').update(first.value);
    assert.deepEqual(await readAll(transfer.join()), WHOLE);
    await transfer.ended;
    for await (const chunk of slowChunks) hash.update(chunk);
    await slow.leave();
    assert.equal(hash.digest('hex'), WHOLE.digest);
  });

  it('goes on for the others when one follower leaves', async () => {
    const gate = holdFrom(2 * MIB);
    const transfer = new SharedTransfer(makeOptions());
    const [leaver, stayer] = [transfer.join(), transfer.join()];
    const reading = readAll(stayer);
    const leaverSignal = new AbortController();
    const leaving = readAll(leaver, leaverSignal.signal);
    await eventually(() => cdn.ranges.length === 3);
    leaverSignal.abort(new Error('the client has left'));
    // Leaving waits for the end of the transfer, so that the file can be closed.
    gate.open();
    await assert.rejects(leaving, /the client has left/);
    assert.deepEqual(await reading, WHOLE);
    assert.equal(published.length, 1);
    assert.deepEqual(cdn.aborted, []);
  });

  it('is aborted when the last follower leaves before its end: nothing is published, no file stays', async () => {
    holdFrom(2 * MIB);
    const transfer = new SharedTransfer(makeOptions());
    const [first, last] = [transfer.join(), transfer.join()];
    await eventually(() => cdn.ranges.length === 3);
    const firstLeft = first.leave();
    assert.ok(transfer.isJoinable);
    await Promise.all([firstLeft, last.leave()]);
    assert.ok(!transfer.isJoinable);
    assert.ok(cdn.aborted.length > 0);
    assert.ok(cdn.aborted.every((reason) => reason instanceof LoaderError && reason.code === 'client_closed'));
    assert.equal(published.length, 0);
    assert.deepEqual(await readdir(folder), []);
  });

  it('counts a follower who leaves twice once', async () => {
    const gate = holdFrom(2 * MIB);
    const transfer = new SharedTransfer(makeOptions());
    const [leaver, stayer] = [transfer.join(), transfer.join()];
    const left = Promise.all([leaver.leave(), leaver.leave()]);
    await new Promise((resolve) => setTimeout(resolve, 20));
    assert.ok(transfer.isJoinable);
    gate.open();
    assert.deepEqual(await readAll(stayer), WHOLE);
    await left;
  });

  it('is published although all have left, when its last byte was there', async () => {
    const gate = Promise.withResolvers<undefined>();
    const options = makeOptions();
    const transfer = new SharedTransfer({
      ...options,
      publish: async (file) => {
        await gate.promise;
        await options.publish(file);
      },
    });
    const reading = readAll(transfer.join());
    setTimeout(() => gate.resolve(undefined), 50);
    assert.deepEqual(await reading, WHOLE);
    await transfer.ended;
    assert.equal(published.length, 1);
  });
});

describe('a failure', () => {
  it('of the CDN reaches all followers, as the CDN’s, and nothing is published', async () => {
    cdn.beforeChunk = (position) =>
      position >= 10 * MIB ? Promise.reject(new LoaderError('cdn_access_denied', 'no')) : Promise.resolve();
    const transfer = new SharedTransfer(makeOptions());
    const readings = await Promise.allSettled([1, 2, 3].map(() => readAll(transfer.join())));
    for (const reading of readings) {
      assert.equal(reading.status, 'rejected');
      const error: unknown = reading.reason;
      assert.ok(error instanceof LoaderError && error.code === 'cdn_access_denied', String(error));
    }
    assert.ok(!transfer.isJoinable);
    assert.equal(published.length, 0);
    assert.deepEqual(await readdir(folder), []);
  });

  it('of one range aborts the others', async () => {
    cdn.beforeChunk = async (position) => {
      if (position === 8 * MIB) throw new LoaderError('cdn_error', 'no');
      if (position < 8 * MIB) await new Promise(() => undefined);
    };
    const transfer = new SharedTransfer(makeOptions());
    await assert.rejects(readAll(transfer.join()), { code: 'cdn_error' });
    assert.ok(cdn.aborted.some((reason) => reason instanceof LoaderError && reason.code === 'cdn_error'));
  });

  it('reaches a follower who joins after it', async () => {
    cdn.beforeChunk = () => Promise.reject(new LoaderError('cdn_error', 'no'));
    const transfer = new SharedTransfer(makeOptions());
    const present = transfer.join();
    await transfer.ended;
    const late = transfer.join();
    await assert.rejects(readAll(late), { code: 'cdn_error' });
    await present.leave();
  });

  it('to write the file is cache_unusable for all, so that they turn to the CDN', async () => {
    const options = makeOptions();
    const transfer = new SharedTransfer({
      ...options,
      createDraft: async () => {
        const file = await options.createDraft();
        await file.close(); // Each write fails then.
        return file;
      },
    });
    const readings = await Promise.allSettled([1, 2].map(() => readAll(transfer.join())));
    for (const reading of readings) {
      assert.equal(reading.status, 'rejected');
      const error: unknown = reading.reason;
      assert.ok(error instanceof LoaderError && error.code === 'cache_unusable', String(error));
    }
    assert.equal(published.length, 0);
  });

  it('to create the file is cache_unusable too, and nothing is asked of the CDN', async () => {
    const createDraft = () => Promise.reject(new LoaderError('cache_unusable', 'the disk is full'));
    const transfer = new SharedTransfer(makeOptions({ createDraft }));
    await assert.rejects(readAll(transfer.join()), { code: 'cache_unusable' });
    assert.deepEqual(cdn.ranges, []);
  });

  it('to publish costs the copy only: the followers get all', async () => {
    const publish = () => Promise.reject(new LoaderError('cache_unusable', 'the disk is full'));
    const transfer = new SharedTransfer(makeOptions({ publish }));
    assert.deepEqual(await readAll(transfer.join()), WHOLE);
    assert.deepEqual(await readdir(folder), []);
  });

  it('of the follower’s own signal ends its wait with the reason', async () => {
    const gate = holdFrom(0);
    const transfer = new SharedTransfer(makeOptions());
    const stayer = readAll(transfer.join());
    const abort = new AbortController();
    const follower = transfer.join();
    const next = follower.chunks(abort.signal).next();
    await eventually(() => cdn.ranges.length === 3);
    abort.abort(new LoaderError('client_closed', 'gone'));
    await assert.rejects(next, { code: 'client_closed' });
    gate.open();
    await follower.leave();
    assert.deepEqual(await stayer, WHOLE);
  });
});

describe('a follower who waits until all is stored', () => {
  it('is told when it is published, and not before', async () => {
    const gate = Promise.withResolvers<undefined>();
    const options = makeOptions();
    const publish: SharedTransferOptions['publish'] = async (file) => {
      await gate.promise;
      await options.publish(file);
    };
    const follower = new SharedTransfer({ ...options, publish }).join();
    const told: number[] = [];
    let isStored = false;
    const stored = follower.stored(NEVER, (bytes) => told.push(bytes)).then(() => (isStored = true));
    await eventually(() => told.at(-1) === CONTENT.length);
    await new Promise((resolve) => setTimeout(resolve, 20));
    assert.ok(!isStored);
    gate.resolve(undefined);
    await stored;
    assert.ok(published[0]?.equals(CONTENT));
    await follower.leave();
  });

  it('is told how many bytes are written, of all ranges, which never goes back', async () => {
    const gate = Promise.withResolvers<undefined>();
    cdn.beforeChunk = async (position) => {
      if (position < 8 * MIB) await gate.promise;
    };
    const follower = new SharedTransfer(makeOptions()).join();
    const told: number[] = [];
    const stored = follower.stored(NEVER, (bytes) => told.push(bytes));
    // All but the first range, of which nothing is there.
    await eventually(() => told.at(-1) === CONTENT.length - 8 * MIB);
    gate.resolve(undefined);
    await stored;
    await follower.leave();
    assert.equal(told[0], 0);
    assert.equal(told.at(-1), CONTENT.length);
    assert.deepEqual(
      told,
      told.toSorted((a, b) => a - b),
    );
    // Once for each block that is written, and at the beginning.
    assert.ok(told.length <= Math.ceil(CONTENT.length / (512 * 1024)) + 3, `told ${told.length} times`);
  });

  it('is told at once what is there when it comes late', async () => {
    const gate = holdFrom(12 * MIB);
    const transfer = new SharedTransfer(makeOptions());
    const early = readAll(transfer.join());
    const watcher = transfer.join();
    let before = 0;
    const watching = watcher.stored(NEVER, (bytes) => (before = bytes));
    await eventually(() => before > 11 * MIB);
    const late = transfer.join();
    const told: number[] = [];
    const stored = late.stored(NEVER, (bytes) => told.push(bytes));
    assert.deepEqual(told, [before]);
    gate.open();
    await Promise.all([stored, watching]);
    await Promise.all([late.leave(), watcher.leave()]);
    assert.deepEqual(await early, WHOLE);
    assert.equal(cdn.ranges.length, 3);
  });

  for (const [what, changes, code] of [
    [
      'the CDN fails',
      () => {
        cdn.beforeChunk = (position) =>
          position >= 10 * MIB ? Promise.reject(new LoaderError('cdn_access_denied', 'no')) : Promise.resolve();
        return {};
      },
      'cdn_access_denied',
    ],
    [
      'the file can not be created',
      () => ({ createDraft: () => Promise.reject(new LoaderError('cache_unusable', 'full')) }),
      'cache_unusable',
    ],
    [
      'the file can not be written',
      () => ({
        createDraft: async () => {
          const file = await makeOptions().createDraft();
          await file.close();
          return file;
        },
      }),
      'cache_unusable',
    ],
    [
      'the file can not be published',
      () => ({ publish: () => Promise.reject(new LoaderError('cache_unusable', 'full')) }),
      'cache_unusable',
    ],
  ] as const satisfies [string, () => Partial<SharedTransferOptions>, string][]) {
    it(`is told when ${what}, and nothing is left of it`, async () => {
      const follower = new SharedTransfer(makeOptions(changes())).join();
      await assert.rejects(
        follower.stored(NEVER, () => undefined),
        { code },
      );
      await follower.leave();
      assert.deepEqual(await readdir(folder), []);
    });
  }

  it('is told of a failed publication also when it comes after it', async () => {
    const publish = () => Promise.reject(new LoaderError('cache_unusable', 'the disk is full'));
    const transfer = new SharedTransfer(makeOptions({ publish }));
    const reader = transfer.join();
    await transfer.ended;
    const late = transfer.join();
    await assert.rejects(
      late.stored(NEVER, () => undefined),
      { code: 'cache_unusable' },
    );
    await late.leave();
    // It costs the copy only.
    assert.deepEqual(await readAll(reader), WHOLE);
  });

  it('need not wait any longer than it wants; when it leaves, all is aborted and gone', async () => {
    holdFrom(2 * MIB);
    const transfer = new SharedTransfer(makeOptions());
    const follower = transfer.join();
    const abort = new AbortController();
    const stored = follower.stored(abort.signal, () => undefined);
    await eventually(() => cdn.ranges.length === 3);
    const reason = new Error('no longer wanted');
    abort.abort(reason);
    await assert.rejects(stored, reason);
    assert.ok(transfer.isJoinable);
    assert.equal((await readdir(folder)).length, 1);
    await follower.leave();
    assert.ok(!transfer.isJoinable);
    assert.deepEqual(await readdir(folder), []);
    assert.ok(cdn.aborted.length > 0);
    let told = 0;
    await assert.rejects(
      transfer.join().stored(abort.signal, () => told++),
      reason,
    );
    assert.equal(told, 0);
  });

  it('leaves the transfer to those who stay', async () => {
    const gate = holdFrom(2 * MIB);
    const transfer = new SharedTransfer(makeOptions());
    const [leaver, stayer] = [transfer.join(), transfer.join()];
    const abort = new AbortController();
    let told = 0;
    const stored = leaver.stored(abort.signal, () => told++);
    abort.abort(new Error('no longer wanted'));
    await assert.rejects(stored, /no longer wanted/);
    const toldUntilThen = told;
    const left = leaver.leave();
    const storing = stayer.stored(NEVER, () => undefined);
    gate.open();
    await storing;
    await Promise.all([left, stayer.leave()]);
    assert.equal(told, toldUntilThen);
    assert.equal(published.length, 1);
    assert.deepEqual(cdn.aborted, []);
  });

  it('hurts nobody else when its own listener fails', async () => {
    const transfer = new SharedTransfer(makeOptions());
    const [careless, reader] = [transfer.join(), transfer.join()];
    const stored = careless.stored(NEVER, (bytes) => {
      if (bytes > 0) throw new Error('the listener failed');
    });
    const reading = readAll(reader);
    await assert.rejects(stored, /the listener failed/);
    await careless.leave();
    assert.deepEqual(await reading, WHOLE);
  });
});

describe('the transfers under way', () => {
  it('are shared by those who want the same version', async () => {
    const transfers = new SharedTransfers();
    const gate = holdFrom(2 * MIB);
    const followers = [1, 2, 3].map(() => transfers.join('a', makeOptions()));
    assert.equal(transfers.size, 1);
    gate.open();
    const readings = await Promise.all(followers.map((follower) => readAll(follower)));
    assert.deepEqual(readings, [WHOLE, WHOLE, WHOLE]);
    assert.equal(cdn.ranges.length, 3);
    assert.equal(transfers.size, 0);
  });

  it('may be joined while all is there and is being published, even after the others have left', async () => {
    const transfers = new SharedTransfers();
    const gate = Promise.withResolvers<undefined>();
    const options = makeOptions();
    const publish: SharedTransferOptions['publish'] = async (file) => {
      await gate.promise;
      await options.publish(file);
    };
    const first = transfers.join('a', { ...options, publish });
    let length = 0;
    for await (const chunk of first.chunks(NEVER)) length += chunk.length;
    assert.equal(length, CONTENT.length);
    const left = first.leave();
    const late = readAll(transfers.join('a', makeOptions()));
    gate.resolve(undefined);
    assert.deepEqual(await late, WHOLE);
    await left;
    assert.equal(cdn.ranges.length, 3);
    assert.equal(published.length, 1);
  });

  it('are kept apart for those who want another', async () => {
    const transfers = new SharedTransfers();
    const followers = [transfers.join('a', makeOptions()), transfers.join('b', makeOptions())];
    assert.equal(transfers.size, 2);
    await Promise.all(followers.map((follower) => readAll(follower)));
    assert.equal(cdn.ranges.length, 6);
    assert.equal(transfers.size, 0);
  });

  it('do not let anybody join one that has failed', async () => {
    const transfers = new SharedTransfers();
    cdn.beforeChunk = () => Promise.reject(new LoaderError('cdn_error', 'no'));
    const failed = transfers.join('a', makeOptions());
    await assert.rejects(readAll(failed), { code: 'cdn_error' });
    cdn.beforeChunk = () => Promise.resolve();
    assert.deepEqual(await readAll(transfers.join('a', makeOptions())), WHOLE);
  });

  it('start anew for one who comes when all have just left, and do not forget the new one', async () => {
    const transfers = new SharedTransfers();
    const gate = holdFrom(2 * MIB);
    const left = transfers.join('a', makeOptions()).leave();
    const fresh = transfers.join('a', makeOptions());
    await left;
    assert.equal(transfers.size, 1);
    gate.open();
    assert.deepEqual(await readAll(fresh), WHOLE);
    assert.equal(transfers.size, 0);
    assert.equal(published.length, 1);
  });
});
