import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { describe, it } from 'node:test';
import { EnvelopeSplitter, joinedLength, SmallPart, smallPartLength } from '../../../src/resources/envelope-parts.ts';
import { encryptBuffer } from '../../../src/security/envelope-cipher.ts';

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
    assert.throws(() => splitter.small, /before it was known/);
  });
});

describe('a small part', () => {
  const KEY = randomBytes(32);
  const plaintext = randomBytes(20_000);
  const envelope = encryptBuffer(plaintext, KEY);
  const cut = smallPartLength(envelope.length);
  const [small, big] = [envelope.subarray(0, cut), envelope.subarray(cut)];
  const end = { length: big.length, tail: big.subarray(-32) };

  it('tells the length of the plaintext from the end of its big part', () => {
    assert.equal(new SmallPart(small, KEY).plaintextLength(end), plaintext.length);
  });

  it('tells it also when the end of the envelope lies in both parts', () => {
    for (let length = 0; length < 200; length++) {
      const whole = encryptBuffer(plaintext.subarray(0, length), KEY);
      const smallBytes = whole.subarray(0, smallPartLength(whole.length));
      const bigBytes = whole.subarray(smallBytes.length);
      const tail = bigBytes.subarray(-32);
      assert.equal(new SmallPart(smallBytes, KEY).plaintextLength({ length: bigBytes.length, tail }), length);
    }
  });

  it('refuses a big part of another envelope, of another length or with a damaged end', () => {
    const part = new SmallPart(small, KEY);
    const damaged = Buffer.from(end.tail);
    damaged[15] = (damaged[15] ?? 0) ^ 0xff; // It flips the last byte of the padding.
    for (const other of [
      { ...end, tail: damaged },
      { ...end, length: end.length + 1 },
      { ...end, length: 100 },
    ]) {
      assert.throws(() => part.plaintextLength(other), { code: 'envelope_invalid' });
    }
    assert.throws(() => new SmallPart(small.subarray(1), KEY).plaintextLength(end), { code: 'envelope_invalid' });
  });

  it('has the beginning of the plaintext, and the block before the big part', () => {
    const part = new SmallPart(small, KEY);
    assert.ok(part.isAligned);
    assert.ok(part.plaintext().equals(plaintext.subarray(0, small.length - 16)));
    assert.ok(part.lastBlock.equals(small.subarray(-16)));
    assert.ok(part.decryptWith(big).equals(plaintext));
  });

  it('tells its digest', () => {
    const abc = new SmallPart(Buffer.from('abc'), KEY);
    assert.equal(abc.sha256, 'ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad');
  });
});
