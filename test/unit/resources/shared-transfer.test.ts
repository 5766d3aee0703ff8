import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { digestChunks } from '../../../lab/sha256.ts';
import { NEVER } from '../../../src/async/abort.ts';
import { hasErrorCode, LoaderError, PassingError } from '../../../src/errors.ts';
import { Parallelism } from '../../../src/net/parallelism.ts';
import { SharedTransfer } from '../../../src/resources/shared-transfer.ts';
import { chunksOf, CONTENT, MIB, PATIENCE, readAll, storeAll, TransferLab, WHOLE } from '../../support/transfer-lab.ts';

/** Bytes that are collected before they are written. */
const WRITE_LENGTH = 512 * 1024;

let lab: TransferLab;

beforeEach(async () => {
  lab = await TransferLab.create();
});

afterEach(async () => {
  await lab.cache.remove();
});

function startTransfer(): SharedTransfer {
  const { cache, logger } = lab;
  return new SharedTransfer({
    source: lab.source(),
    cache,
    memory: lab.memory,
    pool: lab.pool,
    parallelism: new Parallelism(),
    logger,
  });
}

/** Waits until so many bytes are written, of all ranges together. */
async function writtenAtLeast(transfer: SharedTransfer, bytes: number): Promise<void> {
  for await (const present of transfer.written.progress({ signal: NEVER, patienceMs: 2000 })) {
    if (present.bytes >= bytes) return;
  }
}

describe('a transfer', () => {
  it('gives one follower all bytes, and publishes them once', async () => {
    const transfer = startTransfer();
    assert.deepEqual(await readAll(transfer.join(NEVER, PATIENCE)), WHOLE);
    assert.equal(lab.cache.published.length, 1);
    assert.ok(lab.cache.published[0]?.equals(CONTENT));
  });

  it('asks for each range once, side by side, however many follow', async () => {
    const transfer = startTransfer();
    const followers = Array.from({ length: 8 }, () => transfer.join(NEVER, PATIENCE));
    for (const reading of await Promise.all(followers.map(readAll))) assert.deepEqual(reading, WHOLE);
    assert.deepEqual(
      lab.cdn.ranges.toSorted(([a], [b]) => a - b),
      [
        [0, 8 * MIB],
        [8 * MIB, 16 * MIB],
        [16 * MIB, CONTENT.length],
      ],
    );
  });

  it('gives a follower the first bytes while the last are not there yet', async () => {
    const open = lab.cdn.holdFrom(4 * MIB);
    await using follower = startTransfer().join(NEVER, PATIENCE);
    const chunks = chunksOf(follower);
    const first = await chunks.next();
    assert.ok(first.done !== true && first.value.equals(CONTENT.subarray(0, first.value.length)));
    assert.equal(lab.cache.published.length, 0);
    open();
    for await (const chunk of chunks) assert.ok(chunk.length > 0);
  });

  it('gives no byte of a later range before those of an earlier one', async () => {
    const open = lab.cdn.holdFirstRange();
    const transfer = startTransfer();
    const reading = readAll(transfer.join(NEVER, PATIENCE));
    // All but the first range is in the file: a reader that did not wait would read its hole.
    await writtenAtLeast(transfer, CONTENT.length - 8 * MIB);
    open();
    assert.deepEqual(await reading, WHOLE);
  });

  it('gives a late follower all bytes from the first on, without asking again', async () => {
    const open = lab.cdn.holdFrom(12 * MIB);
    const transfer = startTransfer();
    const early = readAll(transfer.join(NEVER, PATIENCE));
    await writtenAtLeast(transfer, 11 * MIB);
    const late = readAll(transfer.join(NEVER, PATIENCE));
    open();
    assert.deepEqual(await Promise.all([early, late]), [WHOLE, WHOLE]);
    assert.equal(lab.cdn.ranges.length, 3);
  });

  it('waits for no slow follower, who still gets all', async () => {
    const transfer = startTransfer();
    await using slow = transfer.join(NEVER, PATIENCE);
    const slowChunks = chunksOf(slow);
    const first = await slowChunks.next();
    assert.ok(first.done !== true);
    const hash = createHash('sha256').update(first.value);
    assert.deepEqual(await readAll(transfer.join(NEVER, PATIENCE)), WHOLE);
    await transfer.ended;
    for await (const chunk of slowChunks) hash.update(chunk);
    assert.equal(hash.digest('hex'), WHOLE.sha256);
  });

  it('goes on for the others when one follower leaves', async () => {
    const open = lab.cdn.holdFrom(2 * MIB);
    const transfer = startTransfer();
    const abort = new AbortController();
    const leaving = readAll(transfer.join(abort.signal, PATIENCE));
    const reading = readAll(transfer.join(NEVER, PATIENCE));
    await writtenAtLeast(transfer, MIB);
    abort.abort(new Error('the client has left'));
    await assert.rejects(leaving, /the client has left/);
    open();
    assert.deepEqual(await reading, WHOLE);
    assert.equal(lab.cache.published.length, 1);
    assert.deepEqual(lab.cdn.aborted, []);
  });

  it('is aborted when the last follower leaves before its end: nothing is published, no file stays', async () => {
    lab.cdn.holdFrom(2 * MIB);
    const transfer = startTransfer();
    const [first, last] = [transfer.join(NEVER, PATIENCE), transfer.join(NEVER, PATIENCE)];
    await writtenAtLeast(transfer, MIB);
    await first[Symbol.asyncDispose]();
    assert.ok(transfer.isJoinable);
    await last[Symbol.asyncDispose]();
    assert.ok(!transfer.isJoinable);
    assert.ok(lab.cdn.aborted.length > 0);
    assert.ok(lab.cdn.aborted.every((reason) => hasErrorCode(reason, 'client_closed')));
    assert.equal(lab.cache.published.length, 0);
    assert.deepEqual(await lab.cache.files(), []);
  });

  it('counts a follower who leaves twice once', async () => {
    const open = lab.cdn.holdFrom(2 * MIB);
    const transfer = startTransfer();
    const [leaver, stayer] = [transfer.join(NEVER, PATIENCE), transfer.join(NEVER, PATIENCE)];
    await Promise.all([leaver[Symbol.asyncDispose](), leaver[Symbol.asyncDispose]()]);
    assert.ok(transfer.isJoinable);
    open();
    assert.deepEqual(await readAll(stayer), WHOLE);
  });

  it('is published although all have left, when its last byte was there', async () => {
    const gate = Promise.withResolvers<undefined>();
    lab.cache.beforePublish = () => gate.promise;
    const transfer = startTransfer();
    const follower = transfer.join(NEVER, PATIENCE);
    let length = 0;
    for await (const chunk of chunksOf(follower)) length += chunk.length;
    assert.equal(length, CONTENT.length);
    const left = follower[Symbol.asyncDispose]();
    gate.resolve(undefined);
    await left;
    assert.equal(lab.cache.published.length, 1);
  });
});

describe('a failure', () => {
  const denied = () => new LoaderError('cdn_access_denied', 'no');

  it('of the CDN reaches all followers, as the CDN’s, and nothing is published', async () => {
    lab.cdn.beforeChunk = (position) => (position >= 10 * MIB ? Promise.reject(denied()) : Promise.resolve());
    const transfer = startTransfer();
    const followers = [1, 2, 3].map(() => transfer.join(NEVER, PATIENCE));
    await Promise.all(followers.map((follower) => assert.rejects(readAll(follower), { code: 'cdn_access_denied' })));
    assert.ok(!transfer.isJoinable);
    assert.equal(lab.cache.published.length, 0);
    assert.deepEqual(await lab.cache.files(), []);
  });

  it('of one range aborts the others', async () => {
    lab.cdn.beforeChunk = async (position) => {
      if (position === 8 * MIB) throw new LoaderError('cdn_error', 'no');
      if (position < 8 * MIB) await new Promise(() => undefined);
    };
    await assert.rejects(readAll(startTransfer().join(NEVER, PATIENCE)), { code: 'cdn_error' });
    assert.ok(lab.cdn.aborted.some((reason) => hasErrorCode(reason, 'cdn_error')));
  });

  it('reaches a follower who joins after it', async () => {
    lab.cdn.beforeChunk = () => Promise.reject(new LoaderError('cdn_error', 'no'));
    const transfer = startTransfer();
    await using _present = transfer.join(NEVER, PATIENCE);
    await transfer.ended;
    await assert.rejects(readAll(transfer.join(NEVER, PATIENCE)), { code: 'cdn_error' });
  });

  it('to write the file is cache_unusable for all, so that they turn to the CDN', async () => {
    lab.cache.onDraft = (draft) => draft.close(); // Each write fails then.
    const transfer = startTransfer();
    const followers = [1, 2].map(() => transfer.join(NEVER, PATIENCE));
    await Promise.all(followers.map((follower) => assert.rejects(readAll(follower), { code: 'cache_unusable' })));
    assert.equal(lab.cache.published.length, 0);
  });

  it('to create the file is cache_unusable too, and nothing is asked of the CDN', async () => {
    lab.cache.beforeCreate = () => Promise.reject(new LoaderError('cache_unusable', 'the disk is full'));
    await assert.rejects(readAll(startTransfer().join(NEVER, PATIENCE)), { code: 'cache_unusable' });
    assert.deepEqual(lab.cdn.ranges, []);
  });

  it('to publish costs the copy only: the followers get all', async () => {
    lab.cache.beforePublish = () => Promise.reject(new LoaderError('cache_unusable', 'the disk is full'));
    assert.deepEqual(await readAll(startTransfer().join(NEVER, PATIENCE)), WHOLE);
    assert.deepEqual(await lab.cache.files(), []);
  });

  it('of the follower’s own signal ends its wait with the reason', async () => {
    const open = lab.cdn.holdFrom(0);
    const transfer = startTransfer();
    const stayer = readAll(transfer.join(NEVER, PATIENCE));
    const abort = new AbortController();
    await using follower = transfer.join(abort.signal, PATIENCE);
    const next = chunksOf(follower).next();
    abort.abort(new LoaderError('client_closed', 'gone'));
    await assert.rejects(next, { code: 'client_closed' });
    open();
    assert.deepEqual(await stayer, WHOLE);
  });
});

describe('a follower who waits until all is stored', () => {
  it('is told when it is published, and not before', async () => {
    const order: string[] = [];
    lab.cache.beforePublish = async () => {
      // Longer than the wait of a follower who goes by the bytes alone.
      await new Promise((resolve) => setTimeout(resolve, 20));
      order.push('published');
    };
    await using follower = startTransfer().join(NEVER, PATIENCE);
    const told = await Array.fromAsync(follower.stored());
    order.push('told');
    assert.equal(told.at(-1)?.bytes, CONTENT.length);
    assert.deepEqual(order, ['published', 'told']);
    assert.ok(lab.cache.published[0]?.equals(CONTENT));
  });

  it('is told how many bytes are written, of all ranges, which never goes back', async () => {
    const open = lab.cdn.holdFirstRange();
    await using follower = startTransfer().join(NEVER, PATIENCE);
    const told: number[] = [];
    for await (const { bytes } of follower.stored()) {
      told.push(bytes);
      // All but the first range, of which nothing is there.
      if (bytes === CONTENT.length - 8 * MIB) open();
    }
    assert.ok(told.includes(CONTENT.length - 8 * MIB));
    assert.equal(told[0], 0);
    assert.equal(told.at(-1), CONTENT.length);
    assert.deepEqual(
      told,
      told.toSorted((a, b) => a - b),
    );
    // At the beginning, and at most once for each block that is written.
    assert.ok(told.length <= Math.ceil(CONTENT.length / WRITE_LENGTH) + 3, `told ${told.length} times`);
  });

  it('is told at once what is there when it comes late', async () => {
    const open = lab.cdn.holdFrom(12 * MIB);
    const transfer = startTransfer();
    const early = readAll(transfer.join(NEVER, PATIENCE));
    await writtenAtLeast(transfer, 11 * MIB);
    const before = transfer.written.bytes;
    const late = storeAll(transfer.join(NEVER, PATIENCE));
    open();
    const [first = 0] = await late;
    assert.ok(first >= before);
    assert.deepEqual(await early, WHOLE);
    assert.equal(lab.cdn.ranges.length, 3);
  });

  const failures: { what: string; arrange: () => void; code: string }[] = [
    {
      what: 'the CDN fails',
      arrange: () => {
        lab.cdn.beforeChunk = (position) =>
          position >= 10 * MIB ? Promise.reject(new LoaderError('cdn_access_denied', 'no')) : Promise.resolve();
      },
      code: 'cdn_access_denied',
    },
    {
      what: 'the file can not be created',
      arrange: () => {
        lab.cache.beforeCreate = () => Promise.reject(new LoaderError('cache_unusable', 'full'));
      },
      code: 'cache_unusable',
    },
    {
      what: 'the file can not be written',
      arrange: () => {
        lab.cache.onDraft = (draft) => draft.close();
      },
      code: 'cache_unusable',
    },
    {
      what: 'the file can not be published',
      arrange: () => {
        lab.cache.beforePublish = () => Promise.reject(new LoaderError('cache_unusable', 'full'));
      },
      code: 'cache_unusable',
    },
  ];
  for (const { what, arrange, code } of failures) {
    it(`is told when ${what}, and nothing is left of it`, async () => {
      arrange();
      await assert.rejects(storeAll(startTransfer().join(NEVER, PATIENCE)), { code });
      assert.deepEqual(await lab.cache.files(), []);
    });
  }

  it('is told of a failed publication also when it comes after it', async () => {
    lab.cache.beforePublish = () => Promise.reject(new LoaderError('cache_unusable', 'the disk is full'));
    const transfer = startTransfer();
    const reader = transfer.join(NEVER, PATIENCE);
    await transfer.ended;
    await assert.rejects(storeAll(transfer.join(NEVER, PATIENCE)), { code: 'cache_unusable' });
    // It costs the copy only.
    assert.deepEqual(await readAll(reader), WHOLE);
  });

  it('need not wait any longer than it wants; when it leaves, all is aborted and gone', async () => {
    lab.cdn.holdFrom(2 * MIB);
    const transfer = startTransfer();
    const abort = new AbortController();
    const follower = transfer.join(abort.signal, PATIENCE);
    const stored = Array.fromAsync(follower.stored());
    await writtenAtLeast(transfer, MIB);
    const reason = new Error('no longer wanted');
    abort.abort(reason);
    await assert.rejects(stored, reason);
    assert.ok(transfer.isJoinable);
    assert.equal((await lab.cache.files()).length, 1);
    await follower[Symbol.asyncDispose]();
    assert.ok(!transfer.isJoinable);
    assert.deepEqual(await lab.cache.files(), []);
    assert.ok(lab.cdn.aborted.length > 0);
  });

  it('is told nothing when it wants nothing any more from the beginning', async () => {
    const reason = new Error('no longer wanted');
    await using follower = startTransfer().join(AbortSignal.abort(reason), PATIENCE);
    await assert.rejects(follower.stored().next(), reason);
  });

  it('leaves the transfer to those who stay', async () => {
    const open = lab.cdn.holdFrom(2 * MIB);
    const transfer = startTransfer();
    const abort = new AbortController();
    const leaving = storeAll(transfer.join(abort.signal, PATIENCE));
    const staying = storeAll(transfer.join(NEVER, PATIENCE));
    abort.abort(new Error('no longer wanted'));
    await assert.rejects(leaving, /no longer wanted/);
    open();
    assert.equal((await staying).at(-1), CONTENT.length);
    assert.equal(lab.cache.published.length, 1);
    assert.deepEqual(lab.cdn.aborted, []);
  });

  it('hurts no other follower when it gives up in the middle', async () => {
    const transfer = startTransfer();
    const reading = readAll(transfer.join(NEVER, PATIENCE));
    {
      await using careless = transfer.join(NEVER, PATIENCE);
      for await (const { bytes } of careless.stored()) if (bytes > 0) break;
    }
    assert.deepEqual(await reading, WHOLE);
  });
});

describe('the memory of a transfer', () => {
  it('is waited for before its first range, and given back at its end, whether readers have read or not', async () => {
    const other = await lab.memory.acquire(14 * MIB, NEVER);
    const transfer = startTransfer();
    await using follower = transfer.join(NEVER, PATIENCE);
    await turn();
    assert.deepEqual(lab.cdn.ranges, []);
    other[Symbol.dispose]();
    await transfer.ended;
    assert.equal(lab.memory.held, 0);
    assert.deepEqual(await digestChunks(chunksOf(follower)), WHOLE);
  });

  it('is no longer waited for when all have left', async () => {
    using _other = await lab.memory.acquire(16 * MIB, NEVER);
    const transfer = startTransfer();
    await transfer.join(NEVER, PATIENCE)[Symbol.asyncDispose]();
    await transfer.ended;
    assert.deepEqual([lab.cdn.ranges, lab.memory.held], [[], 16 * MIB]);
  });

  it('is given back when the transfer fails', async () => {
    lab.cdn.beforeChunk = () => Promise.reject(new LoaderError('cdn_error', 'refused'));
    const transfer = startTransfer();
    await using _follower = transfer.join(NEVER, PATIENCE);
    await transfer.ended;
    assert.equal(lab.memory.held, 0);
  });
});

describe('an outage of the CDN', () => {
  /** The CDN fails from the first byte of the second range on, for `failures` tries. */
  function failTimes(failures: number): void {
    let count = 0;
    lab.cdn.beforeChunk = (position) => {
      if (position < 8 * MIB || ++count > failures) return Promise.resolve();
      return Promise.reject(new PassingError('cdn_unreachable', 'The connection failed.'));
    };
  }

  it('is waited out, and fetches nothing twice', async () => {
    failTimes(5);
    assert.deepEqual(await readAll(startTransfer().join(NEVER, PATIENCE)), WHOLE);
    assert.equal(lab.cdn.ranges.length, 3);
  });

  it('ends the follower with less patience, and not the one with more', async () => {
    failTimes(12);
    const transfer = startTransfer();
    const impatient = readAll(transfer.join(NEVER, { ...PATIENCE, limitMs: 150 }));
    await using patient = transfer.join(NEVER, { ...PATIENCE, limitMs: 60_000 });
    const told: unknown[] = [];
    const storing = Array.fromAsync(patient.stored(), ({ waitsFor }) => told.push(waitsFor?.code));
    await assert.rejects(impatient, { code: 'cdn_unreachable' });
    await storing;
    assert.ok(told.includes('cdn_unreachable'));
    assert.equal(told.at(-1), undefined);
    assert.equal(lab.cdn.ranges.length, 3);
    assert.equal(lab.cache.published.length, 1);
  });

  it('ends the transfer when it lasts longer than all have patience, and leaves nothing', async () => {
    failTimes(Infinity);
    const reading = readAll(startTransfer().join(NEVER, { ...PATIENCE, limitMs: 300 }));
    await assert.rejects(reading, { code: 'cdn_unreachable', message: /It was tried \d+ times within/ });
    assert.deepEqual(await lab.cache.files(), []);
  });
});
