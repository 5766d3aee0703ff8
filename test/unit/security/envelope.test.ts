import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { describe, it } from 'node:test';
import { encryptBuffer } from '../../../src/security/envelope-cipher.ts';
import {
  assertEnvelopeLength,
  envelopeLength,
  MIN_ENVELOPE_LENGTH,
  PREFLIGHT_LENGTH,
  preflightEnvelope,
} from '../../../src/security/envelope.ts';

const KEY = randomBytes(32);
const INVALID = { name: 'LoaderError', code: 'envelope_invalid' };
/** Around the lengths at which a block is full. */
const LENGTHS = [0, 1, 15, 16, 17, 31, 32, 33, 1000];

const lastTwoBlocks = (envelope: Buffer) => envelope.subarray(-PREFLIGHT_LENGTH);

describe('the length of an envelope', () => {
  it('is that of the IV and the padded plaintext', () => {
    assert.deepEqual(LENGTHS.map(envelopeLength), [32, 32, 32, 48, 48, 48, 64, 64, 1024]);
    for (const length of LENGTHS) {
      assert.equal(encryptBuffer(Buffer.alloc(length), KEY).length, envelopeLength(length));
    }
  });

  it('is refused when no envelope can have it', () => {
    for (const length of [0, 16, 31, 33, 47])
      assert.throws(() => assertEnvelopeLength(length), INVALID, String(length));
    for (const length of [MIN_ENVELOPE_LENGTH, 48]) assertEnvelopeLength(length);
  });
});

describe('the preflight of an envelope', () => {
  it('tells the exact length of the plaintext from the last two blocks', () => {
    for (const length of LENGTHS) {
      const envelope = encryptBuffer(randomBytes(length), KEY);
      assert.equal(preflightEnvelope(envelope.length, lastTwoBlocks(envelope), KEY), length);
    }
  });

  it('refuses an envelope that was cut', () => {
    const envelope = encryptBuffer(randomBytes(1000), KEY);
    assert.throws(() => preflightEnvelope(envelope.length - 1, lastTwoBlocks(envelope), KEY), INVALID);
    // A whole block is missing: only the padding can show it. The plaintext ends with 0, which no padding does.
    const zeros = encryptBuffer(Buffer.alloc(1000), KEY).subarray(0, -16);
    assert.throws(() => preflightEnvelope(zeros.length, lastTwoBlocks(zeros), KEY), INVALID);
  });

  it('refuses every damage to the padding', () => {
    const envelope = encryptBuffer(Buffer.alloc(1000), KEY);
    // A flipped bit of the block before changes the same bit of the last block's plaintext: 8 zeros, then 8 times 8.
    for (let at = 8; at < 16; at++) {
      for (let bit = 0; bit < 8; bit++) {
        const blocks = Buffer.from(lastTwoBlocks(envelope));
        blocks[at] = (blocks[at] ?? 0) ^ (1 << bit);
        assert.throws(() => preflightEnvelope(envelope.length, blocks, KEY), INVALID, `byte ${at}, bit ${bit}`);
      }
    }
  });

  it('refuses a padding of 0 and one of more than a block', () => {
    const envelope = encryptBuffer(Buffer.alloc(15), KEY);
    for (const claimed of [0, 17, 255]) {
      const blocks = Buffer.from(lastTwoBlocks(envelope));
      blocks[15] = (blocks[15] ?? 0) ^ 1 ^ claimed; // It was 1.
      assert.throws(() => preflightEnvelope(envelope.length, blocks, KEY), INVALID, String(claimed));
    }
  });

  it('refuses nearly every wrong key', () => {
    const envelope = encryptBuffer(randomBytes(1000), KEY);
    let passed = 0;
    for (let round = 0; round < 1000; round++) {
      try {
        preflightEnvelope(envelope.length, lastTwoBlocks(envelope), randomBytes(32));
        passed++;
      } catch (error) {
        assert.ok(error instanceof Error && 'code' in error && error.code === 'envelope_invalid');
      }
    }
    // One in 256 by chance, so 4 are expected. 25 would be by chance once in 10^12 runs.
    assert.ok(passed < 25, `${passed} of 1000 wrong keys passed`);
  });
});
