import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { SlabPool } from '../../../src/files/slab-pool.ts';

const MIB = 1024 * 1024;
const BUFFER = 8 * MIB;

describe('a pool of buffers', () => {
  it('cuts five of 8 MiB from each slab, none of which overlap', () => {
    const pool = new SlabPool(BUFFER);
    const buffers = Array.from({ length: 6 }, () => pool.take());
    assert.equal(pool.length, 80 * MIB);
    for (const [index, { bytes }] of buffers.entries()) bytes.fill(index);
    for (const [index, { bytes }] of buffers.entries()) {
      assert.deepEqual([bytes.length, bytes[0], bytes.at(-1)], [BUFFER, index, index]);
    }
    for (const buffer of buffers) buffer[Symbol.dispose]();
    assert.equal(pool.length, 0);
  });

  it('cuts small ones from slabs of 8 MiB: V8 collects its heap when 64 MiB are added beside it', () => {
    const pool = new SlabPool(MIB / 2);
    const buffers = Array.from({ length: 17 }, () => pool.take());
    assert.equal(pool.length, 16 * MIB);
    for (const buffer of buffers) buffer[Symbol.dispose]();
    assert.equal(pool.length, 0);
  });

  it('gives the first free buffer, so that few pages are ever touched', () => {
    const pool = new SlabPool(BUFFER);
    const [first, second] = [pool.take(), pool.take()];
    const place = first.bytes.byteOffset;
    first[Symbol.dispose]();
    using again = pool.take();
    assert.equal(again.bytes.byteOffset, place);
    first[Symbol.dispose](); // A second disposal does nothing.
    using third = pool.take();
    assert.notEqual(third.bytes.byteOffset, place);
    second[Symbol.dispose]();
  });

  it('frees a slab with its last buffer, not by the garbage collector', () => {
    const pool = new SlabPool(BUFFER);
    const before = process.memoryUsage().arrayBuffers;
    const { bytes, ...buffer } = pool.take();
    assert.ok(process.memoryUsage().arrayBuffers - before >= 40 * MIB);
    buffer[Symbol.dispose]();
    assert.equal(bytes.length, 0, 'no code can use it by mistake');
    assert.ok(process.memoryUsage().arrayBuffers - before < MIB);
  });
});
