import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { QueuedBytes } from '../../../src/async/queued-bytes.ts';

const MIB = 1024 * 1024;

describe('QueuedBytes', () => {
  it('are of many while all queues together hold more than 8 MiB', () => {
    using own = new QueuedBytes();
    using other = new QueuedBytes();
    own.add(8 * MIB);
    assert.equal(own.areOfMany, false);
    other.add(1);
    assert.deepEqual([own.areOfMany, other.areOfMany], [true, true]);
    assert.deepEqual([own.length, other.length], [8 * MIB, 1]);
    own.remove(1);
    assert.equal(other.areOfMany, false);
  });

  it('are forgotten with their queue, also those that are taken out of it later', () => {
    using own = new QueuedBytes();
    const other = new QueuedBytes();
    own.add(8 * MIB);
    other.add(2 * MIB);
    other[Symbol.dispose]();
    assert.equal(own.areOfMany, false);
    other.remove(2 * MIB);
    own.add(1);
    assert.equal(own.areOfMany, true);
  });
});
