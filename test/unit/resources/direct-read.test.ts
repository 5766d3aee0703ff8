import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { eventually } from '../../../lab/waiting.ts';
import { NEVER } from '../../../src/async/abort.ts';
import { WorkMemory } from '../../../src/files/work-memory.ts';
import { readDirectly } from '../../../src/resources/direct-read.ts';
import { CONTENT, FakeCdn, MIB, OBJECT, PATIENCE } from '../../support/transfer-lab.ts';

const PATIENCE_MS = 30;

function read(cdn: FakeCdn, memory: WorkMemory, signal = NEVER) {
  return readDirectly({ cdn, object: OBJECT }, 0, {
    memory,
    signal,
    patience: PATIENCE,
    consumerPatienceMs: PATIENCE_MS,
  });
}

describe('a read without the cache', () => {
  it('holds its share of the memory, and gives it back at its end', async () => {
    const memory = new WorkMemory(2 * MIB);
    const chunks: Buffer[] = [];
    for await (const chunk of read(new FakeCdn(), memory)) {
      assert.equal(memory.held, MIB);
      chunks.push(chunk);
    }
    assert.ok(Buffer.concat(chunks).equals(CONTENT));
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
    assert.ok(Buffer.concat([first, ...(await rest)]).equals(CONTENT));
    assert.deepEqual(cdn.ranges, [
      [0, CONTENT.length],
      [first.length, CONTENT.length],
    ]);
    assert.equal(memory.held, 0);
  });

  it('takes turns with others who wait when its reader is slow, and goes on at the same byte', async () => {
    const memory = new WorkMemory(MIB);
    const cdn = new FakeCdn();
    const reading = readDirectly({ cdn, object: OBJECT }, 0, { memory, signal: NEVER, patience: PATIENCE, turnMs: 0 });
    const first = (await reading.next()).value ?? Buffer.alloc(0);
    const waiting = memory.acquire(MIB, NEVER);
    const second = reading.next();
    const other = await waiting;
    other[Symbol.dispose]();
    const rest = [(await second).value ?? Buffer.alloc(0), ...(await Array.fromAsync(reading))];
    assert.ok(Buffer.concat([first, ...rest]).equals(CONTENT));
    assert.deepEqual(cdn.ranges, [
      [0, CONTENT.length],
      [first.length, CONTENT.length],
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
