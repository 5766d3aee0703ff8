import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdtemp, open, rm, type FileHandle } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, afterEach, before, beforeEach, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { eventually } from '../../../lab/waiting.ts';
import { NEVER } from '../../../src/async/abort.ts';
import { ByteBudget } from '../../../src/async/byte-budget.ts';
import type { ChunkDigests } from '../../../src/cache/copy-record.ts';
import { ChunkPool } from '../../../src/resources/chunk-pool.ts';
import { SmallPart, smallPartLength } from '../../../src/resources/envelope-parts.ts';
import { PlaintextReader, type ChunkFile } from '../../../src/resources/plaintext-reader.ts';
import { encryptBuffer } from '../../../src/security/envelope-cipher.ts';
import { digestsOf } from '../../support/cache-folder.ts';

const CHUNK = 64 * 1024;
const KEY = randomBytes(32);
const PLAINTEXT = randomBytes(10 * CHUNK + 12_345);
const ENVELOPE = encryptBuffer(PLAINTEXT, KEY);
const CUT = smallPartLength(ENVELOPE.length);
const BIG = ENVELOPE.subarray(CUT);
/** Bytes of plaintext in the small part. */
const HEAD = CUT - 16;
const small = new SmallPart(ENVELOPE.subarray(0, CUT), KEY);

let pool: ChunkPool;
let folder = '';
let handle: FileHandle;
/** The chunks that were mended. */
let mended: number[];
let mend: ChunkFile['mend'];

before(async () => {
  pool = new ChunkPool({ threads: 2 });
  folder = await mkdtemp(path.join(tmpdir(), 'loader-reader-'));
});
after(async () => {
  await pool[Symbol.asyncDispose]();
  await rm(folder, { recursive: true });
});
beforeEach(async () => {
  handle = await open(path.join(folder, 'big'), 'w+');
  await handle.write(BIG, 0, BIG.length, 0);
  mended = [];
  mend = (index) => {
    mended.push(index);
    return Promise.resolve(Buffer.from(BIG.subarray(index * CHUNK, (index + 1) * CHUNK)));
  };
});
afterEach(() => handle.close());

interface ReaderChanges {
  readonly chunks?: ChunkDigests | undefined;
  readonly budget?: ByteBudget;
  readonly readerPatienceMs?: number;
  readonly reach?: NonNullable<ChunkFile['reach']>;
  readonly isThere?: (position: number) => boolean;
}

function reader({
  budget = new ByteBudget(10 * CHUNK),
  readerPatienceMs,
  reach,
  isThere,
  ...rest
}: ReaderChanges = {}) {
  const chunks = 'chunks' in rest ? rest.chunks : digestsOf(BIG, CHUNK);
  const file = { handle, length: BIG.length, chunks, mend: (index: number, reason: Error) => mend(index, reason) };
  return new PlaintextReader({ ...file, ...(reach && { reach }), ...(isThere && { isThere }) }, small, {
    pool,
    budget,
    signal: NEVER,
    ...(readerPatienceMs !== undefined && { readerPatienceMs }),
  });
}

const read = async (range: { start: number; end: number }, changes?: ReaderChanges) =>
  Buffer.concat(await Array.fromAsync(reader(changes).read(range)));
const WHOLE = { start: 0, end: PLAINTEXT.length };

describe('a range of a plaintext', () => {
  const edges = [
    0,
    1,
    HEAD - 1,
    HEAD,
    HEAD + 1,
    HEAD + 15,
    HEAD + 16,
    HEAD + CHUNK - 1,
    HEAD + CHUNK,
    HEAD + CHUNK + 17,
  ];
  const ends = [...edges, HEAD + 5 * CHUNK + 3, PLAINTEXT.length - 1, PLAINTEXT.length];
  for (const start of edges) {
    it(`from ${start} on is right to the byte, with digests and without`, async () => {
      for (const end of ends.filter((position) => position >= start)) {
        const expected = PLAINTEXT.subarray(start, end);
        assert.ok((await read({ start, end })).equals(expected), `up to ${end}`);
        assert.ok((await read({ start, end }, { chunks: undefined })).equals(expected), `up to ${end}, not verified`);
      }
      assert.deepEqual(mended, []);
    });
  }

  it('reads no other chunk than it needs', async () => {
    // All other chunks are damaged.
    const [first, last] = [3 * CHUNK, 5 * CHUNK];
    await handle.write(Buffer.alloc(first), 0, first, 0);
    await handle.write(Buffer.alloc(BIG.length - last), 0, BIG.length - last, last);
    const range = { start: HEAD + first + 16, end: HEAD + last };
    assert.ok((await read(range)).equals(PLAINTEXT.subarray(range.start, range.end)));
    assert.deepEqual(mended, []);
  });

  it('that begins with the first block of a chunk needs the end of the chunk before to be right', async () => {
    await handle.write(Buffer.alloc(16), 0, 16, 3 * CHUNK - 16);
    const range = { start: HEAD + 3 * CHUNK, end: HEAD + 4 * CHUNK };
    assert.ok((await read(range)).equals(PLAINTEXT.subarray(range.start, range.end)));
    assert.deepEqual(mended, [2]);
  });
});

describe('a chunk that is damaged', () => {
  for (const index of [0, 1, 5, 10]) {
    it(`is mended before a byte of it leaves, and the next one is decrypted after its right end: chunk ${index}`, async () => {
      await handle.write(Buffer.alloc(16, 1), 0, 16, Math.min((index + 1) * CHUNK, BIG.length) - 16);
      assert.ok((await read(WHOLE)).equals(PLAINTEXT));
      assert.deepEqual(mended, [index]);
    });
  }

  it('is mended where the file ends before', async () => {
    await handle.truncate(8 * CHUNK + 5);
    assert.ok((await read(WHOLE)).equals(PLAINTEXT));
    assert.deepEqual(mended.toSorted(), [10, 8, 9].toSorted());
  });

  it('that can not be mended ends the read after the last right byte', async () => {
    await handle.write(Buffer.alloc(1, 1), 0, 1, 4 * CHUNK);
    await handle.write(Buffer.alloc(1, 2), 0, 1, 4 * CHUNK);
    mend = () => Promise.reject(new Error('not now'));
    const pieces: Buffer[] = [];
    await assert.rejects(async () => {
      for await (const piece of reader().read(WHOLE)) pieces.push(piece);
    }, /not now/);
    assert.ok(Buffer.concat(pieces).equals(PLAINTEXT.subarray(0, HEAD + 4 * CHUNK)));
  });

  it('at the beginning lets nothing leave, so that the failure can be told', async () => {
    await handle.write(Buffer.alloc(8, 1), 0, 8, 0);
    mend = () => Promise.reject(new Error('not now'));
    await assert.rejects(reader().read(WHOLE).next(), /not now/);
  });

  it('by a change of the file between the reads of two chunks is noticed', async () => {
    const reading = reader({ budget: new ByteBudget(CHUNK) }).read(WHOLE);
    const pieces = [(await reading.next()).value ?? Buffer.alloc(0)];
    // The first chunk was right when it was read. What the second one would be decrypted after is not any more.
    await handle.write(Buffer.alloc(16, 1), 0, 16, CHUNK - 16);
    pieces.push(...(await Array.fromAsync(reading)));
    assert.ok(Buffer.concat(pieces).equals(PLAINTEXT));
  });
});

describe('a reader', () => {
  it('holds no more than its share, and gives all of it back', async () => {
    const budget = new ByteBudget(3 * CHUNK);
    for await (const piece of reader({ budget }).read(WHOLE)) {
      assert.ok(budget.held <= 3 * CHUNK && piece.length > 0);
    }
    assert.equal(budget.held, 0);
  });

  it('that leaves early gives its memory back, and nothing reads the file any more', async () => {
    const budget = new ByteBudget(10 * CHUNK);
    const reading = reader({ budget }).read(WHOLE);
    await reading.next();
    await reading.return();
    assert.equal(budget.held, 0);
  });

  it('that is slow gives its memory to others who wait, and goes on at the same byte', async () => {
    const budget = new ByteBudget(2 * CHUNK);
    const slow = reader({ budget, readerPatienceMs: 20 }).read(WHOLE);
    const pieces = [(await slow.next()).value ?? Buffer.alloc(0), (await slow.next()).value ?? Buffer.alloc(0)];
    assert.ok(budget.held > 0);
    assert.ok((await read(WHOLE, { budget })).equals(PLAINTEXT));
    pieces.push(...(await Array.fromAsync(slow)));
    assert.ok(Buffer.concat(pieces).equals(PLAINTEXT));
    assert.equal(budget.held, 0);
  });

  it('that is slow keeps its memory while nobody waits', async () => {
    const budget = new ByteBudget(2 * CHUNK);
    const slow = reader({ budget, readerPatienceMs: 10 }).read(WHOLE);
    await slow.next();
    await slow.next();
    const { held } = budget;
    await sleep(50);
    assert.equal(budget.held, held);
    await slow.return();
  });

  it('waits for bytes that are still to come, and holds no memory meanwhile', async () => {
    const budget = new ByteBudget(4 * CHUNK);
    const gate = Promise.withResolvers<undefined>();
    const reach = async (position: number) => {
      if (position > 3 * CHUNK) await gate.promise;
    };
    const isThere = (position: number) => position <= 3 * CHUNK;
    const reading = Array.fromAsync(reader({ budget, reach, isThere }).read(WHOLE));
    await eventually(() => budget.held === 0);
    await sleep(20);
    assert.equal(budget.held, 0);
    gate.resolve(undefined);
    assert.ok(Buffer.concat(await reading).equals(PLAINTEXT));
  });
});
