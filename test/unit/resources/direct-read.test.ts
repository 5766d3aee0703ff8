import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { eventually } from '../../../lab/waiting.ts';
import { NEVER } from '../../../src/async/abort.ts';
import { WorkMemory } from '../../../src/files/work-memory.ts';
import { readDirectly, type DirectReadOptions } from '../../../src/resources/direct-read.ts';
import { SmallPart } from '../../../src/resources/envelope-parts.ts';
import { decryptBlocks } from '../../../src/security/envelope-cipher.ts';
import { CONTENT, FakeCdn, MIB, OBJECT, PATIENCE, SOURCE_RECORD } from '../../support/transfer-lab.ts';

const PATIENCE_MS = 30;

/** Any bytes are an envelope in all but its padding, which is not read here. */
const KEY = randomBytes(32);
const SMALL = randomBytes(3072);
const small = new SmallPart(SMALL, KEY);
/** What the CDN sends is cut to whole blocks. */
const STORED = CONTENT.subarray(0, CONTENT.length - (CONTENT.length % 16));
const PLAINTEXT = decryptBlocks(Buffer.concat([SMALL, STORED]).subarray(16), KEY, SMALL.subarray(0, 16));
/** Of the small part. */
const HEAD = SMALL.length - 16;
/** The plaintext of the big part. */
const RANGE = { start: HEAD, end: PLAINTEXT.length };
const WANTED = PLAINTEXT.subarray(HEAD);

function read(cdn: FakeCdn, memory: WorkMemory, signal = NEVER, options: Partial<DirectReadOptions> = {}) {
  const source = { cdn, object: OBJECT, record: SOURCE_RECORD, resource: { folder: 'models', name: 'm' } };
  const patience = { patience: PATIENCE, consumerPatienceMs: PATIENCE_MS };
  return readDirectly(source, small, RANGE, { memory, signal, ...patience, ...options });
}

describe('a read without the cache', () => {
  it('holds its share of the memory, and gives it back at its end', async () => {
    const memory = new WorkMemory(2 * MIB);
    const chunks: Buffer[] = [];
    for await (const chunk of read(new FakeCdn(), memory)) {
      assert.equal(memory.held, MIB);
      chunks.push(chunk);
    }
    assert.ok(Buffer.concat(chunks).equals(WANTED));
    assert.equal(memory.held, 0);
  });

  it('begins when there is memory for it, and no longer than its signal allows', async () => {
    const memory = new WorkMemory(MIB);
    using _other = await memory.acquire(1, NEVER);
    const cdn = new FakeCdn();
    const abort = new AbortController();
    const first = read(cdn, memory, abort.signal).next();
    const reason = new Error('the client has left');
    abort.abort(reason);
    await assert.rejects(first, reason);
    assert.deepEqual(cdn.ranges, []);
  });

  it('gives its memory back while its reader stalls, and goes on at the same byte', async () => {
    const memory = new WorkMemory(MIB);
    const cdn = new FakeCdn();
    const reading = read(cdn, memory);
    const first = (await reading.next()).value ?? Buffer.alloc(0);
    assert.equal(memory.held, MIB);
    await eventually(() => memory.held === 0);
    const other = await memory.acquire(MIB, NEVER);
    const rest = Array.fromAsync(reading);
    await sleep(5);
    assert.equal(cdn.ranges.length, 1);
    other[Symbol.dispose]();
    assert.ok(Buffer.concat([first, ...(await rest)]).equals(WANTED));
    assert.deepEqual(cdn.ranges, [
      [0, STORED.length],
      [300_000, STORED.length],
    ]);
    assert.equal(memory.held, 0);
  });

  it('takes turns with others who wait when its reader is slow, and goes on at the same byte', async () => {
    const memory = new WorkMemory(MIB);
    const cdn = new FakeCdn();
    const reading = read(cdn, memory, NEVER, { turnMs: 0, consumerPatienceMs: 60_000 });
    const first = (await reading.next()).value ?? Buffer.alloc(0);
    const waiting = memory.acquire(MIB, NEVER);
    const rest = Array.fromAsync(reading);
    (await waiting)[Symbol.dispose]();
    assert.ok(Buffer.concat([first, ...(await rest)]).equals(WANTED));
    assert.deepEqual(cdn.ranges, [
      [0, STORED.length],
      [300_000, STORED.length],
    ]);
  });

  it('gives its memory back when its reader leaves', async () => {
    const memory = new WorkMemory(MIB);
    const reading = read(new FakeCdn(), memory);
    await reading.next();
    await reading.return();
    assert.equal(memory.held, 0);
  });
});
