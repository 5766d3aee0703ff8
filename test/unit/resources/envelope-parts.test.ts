import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { describe, it } from 'node:test';
import { EnvelopeSplitter, joinedLength, smallPartLength } from '../../../src/resources/envelope-parts.ts';

describe('smallPartLength', () => {
  it('is 3 tenths of the envelope, rounded down in whole numbers, and 3072 at most', () => {
    for (let length = 32; length <= 20_000; length++) {
      const tenths = BigInt(length) * 3n;
      const expected = tenths / 10n < 3072n ? Number(tenths / 10n) : 3072;
      assert.equal(smallPartLength(length), expected, `of ${length}`);
    }
    assert.equal(smallPartLength(2 ** 40), 3072);
  });
});

describe('joinedLength', () => {
  it('accepts the two parts of every envelope', () => {
    for (let length = 32; length <= 11_000; length += 16) {
      const small = smallPartLength(length);
      assert.equal(joinedLength(small, length - small), length);
    }
  });

  it('refuses parts whose lengths do not belong together', () => {
    for (const [small, big] of [
      [9, 25],
      [8, 24],
      [9, 0],
      [0, 23],
      [3072, 0],
      [3072, 7000],
      [3071, 8000],
      [3073, 8000],
    ] as const) {
      assert.throws(() => joinedLength(small, big), { code: 'envelope_invalid' }, `${small} and ${big}`);
    }
  });
});

describe('EnvelopeSplitter', () => {
  it('holds no more back than it must: the big part streams from 10240 bytes on', () => {
    const splitter = new EnvelopeSplitter();
    assert.equal(splitter.push(Buffer.alloc(10_239)).length, 0);
    assert.equal(splitter.push(Buffer.alloc(1)).length, 10_240 - 3072);
    assert.equal(splitter.push(Buffer.alloc(5)).length, 5);
    assert.equal(splitter.end().length, 0);
  });

  it('cuts at the same place whatever the chunks are, for lengths around the decision', () => {
    for (let length = 10_220; length <= 10_260; length++) {
      const bytes = randomBytes(length);
      const splitter = new EnvelopeSplitter();
      const firstPush = splitter.push(bytes.subarray(0, 5000));
      const big = Buffer.concat([firstPush, splitter.push(bytes.subarray(5000)), splitter.end()]);
      assert.equal(splitter.small.length, smallPartLength(length));
      assert.ok(Buffer.concat([splitter.small, big]).equals(bytes));
    }
  });

  it('keeps a small part of its own, which does not hold the whole chunk in memory', () => {
    const splitter = new EnvelopeSplitter();
    splitter.push(Buffer.alloc(1024 * 1024, 1));
    splitter.end();
    assert.equal(splitter.small.length, 3072);
    assert.ok(splitter.small.buffer.byteLength < 512 * 1024, `${splitter.small.buffer.byteLength} bytes`);
  });

  it('does not tell the small part before it is known', () => {
    const splitter = new EnvelopeSplitter();
    splitter.push(Buffer.alloc(100));
    assert.throws(() => splitter.small, /before the end/);
  });
});
