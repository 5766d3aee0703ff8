import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { LoaderError } from '../../../src/errors.ts';
import {
  PREFLIGHT_LENGTH,
  preflightEnvelope,
  BLOCK_LENGTH,
  envelopeLength,
  MIN_ENVELOPE_LENGTH,
} from '../../../src/security/envelope.ts';
import { encryptEnvelope, decryptBuffer, encryptBuffer } from '../../../src/security/envelope-cipher.ts';

const KEY = Buffer.alloc(32, 'k');
const INVALID = { name: 'LoaderError', code: 'envelope_invalid' };

describe('encrypting', () => {
  it('takes a random IV of its own for every envelope', async () => {
    const first = await collect(encryptEnvelope([Buffer.from('model')], KEY));
    const second = await collect(encryptEnvelope([Buffer.from('model')], KEY));
    assert.notDeepEqual(first.subarray(0, BLOCK_LENGTH), second.subarray(0, BLOCK_LENGTH));
    assert.notDeepEqual(
      encryptBuffer(Buffer.from('model'), KEY).subarray(0, BLOCK_LENGTH),
      encryptBuffer(Buffer.from('model'), KEY).subarray(0, BLOCK_LENGTH),
    );
  });

  it('makes an envelope of 32 bytes of nothing', async () =>
    assert.equal((await collect(encryptEnvelope([], KEY))).length, MIN_ENVELOPE_LENGTH));

  it('passes on the failure of the plaintext, without the padding that would make the envelope look whole', async () => {
    const chunks: Buffer[] = [];
    function* failing(): Generator<Buffer> {
      yield Buffer.alloc(40);
      throw new Error('the client has left');
    }
    await assert.rejects(async () => {
      for await (const chunk of encryptEnvelope(failing(), KEY)) chunks.push(chunk);
    }, /the client has left/);
    assert.equal(Buffer.concat(chunks).length, BLOCK_LENGTH + 2 * BLOCK_LENGTH);
  });
});

describe('a truncated envelope', () => {
  const plaintext = Buffer.from(Uint8Array.from({ length: 100 }, (_, index) => index));
  const envelope = encryptBuffer(plaintext, KEY, Buffer.alloc(BLOCK_LENGTH, 1));

  for (let length = 0; length < envelope.length; length++) {
    it(`is refused when ${length} of its ${envelope.length} bytes are there`, () => {
      const cut = envelope.subarray(0, length);
      assert.throws(() => decryptBuffer(cut, KEY), INVALID);
      // The whole blocks that are left have a last one without valid padding here.
      const lastTwoBlocks =
        length < PREFLIGHT_LENGTH ? Buffer.alloc(PREFLIGHT_LENGTH) : cut.subarray(-PREFLIGHT_LENGTH);
      assert.throws(() => preflightEnvelope(length, lastTwoBlocks, KEY), INVALID);
    });
  }

  it('is refused by its length alone when it is no whole number of blocks, whatever its end looks like', () => {
    const end = envelope.subarray(-PREFLIGHT_LENGTH);
    assert.equal(preflightEnvelope(envelope.length, end, KEY), plaintext.length);
    for (const length of [0, 15, 16, 31, envelope.length - 1, envelope.length + 1, envelope.length + 15]) {
      assert.throws(() => preflightEnvelope(length, end, KEY), INVALID, `${length} bytes`);
    }
  });
});

describe('an envelope with a flipped bit', () => {
  // Every length of padding from 1 to 16, so that each of its bytes is hit.
  for (let plaintextLength = 32; plaintextLength < 48; plaintextLength++) {
    it(`has one verdict of preflight and decryption for each bit of its last two blocks (${plaintextLength} bytes)`, () => {
      const plaintext = Buffer.alloc(plaintextLength, 0x5a);
      const envelope = encryptBuffer(plaintext, KEY, Buffer.alloc(BLOCK_LENGTH, 2));
      const firstBit = 8 * (envelope.length - PREFLIGHT_LENGTH);
      let refused = 0;
      for (let bit = firstBit; bit < 8 * envelope.length; bit++) {
        const bad = flipBit(envelope, bit);
        const preflight = verdict(() => preflightEnvelope(bad.length, bad.subarray(-PREFLIGHT_LENGTH), KEY));
        const opened = verdict(() => decryptBuffer(bad, KEY).length);
        assert.equal(preflight, opened, `bit ${bit}`);
        if (opened === 'envelope_invalid') refused++;
        else assert.notDeepEqual(decryptBuffer(bad, KEY), plaintext, `bit ${bit} changed nothing`);
      }
      // At least those bits of the block before that hit the padding, but for the byte that tells its length.
      assert.ok(refused >= 8 * (48 - plaintextLength - 1), `only ${refused} were refused`);
    });
  }

  it('is refused for every bit of the block before the last when the last is all padding', () => {
    const envelope = encryptBuffer(Buffer.alloc(32), KEY, Buffer.alloc(BLOCK_LENGTH, 3));
    for (let bit = 8 * (envelope.length - PREFLIGHT_LENGTH); bit < 8 * (envelope.length - BLOCK_LENGTH); bit++) {
      assert.throws(() => decryptBuffer(flipBit(envelope, bit), KEY), INVALID, `bit ${bit}`);
    }
  });

  it('decrypts without an error when the bit is in the middle: the known weakness of CBC', () => {
    const plaintext = Buffer.alloc(160, 7);
    const envelope = encryptBuffer(plaintext, KEY);
    for (let bit = 0; bit < 8 * (envelope.length - PREFLIGHT_LENGTH); bit += 37) {
      const bad = flipBit(envelope, bit);
      const decrypted = decryptBuffer(bad, KEY);
      assert.equal(decrypted.length, plaintext.length);
      assert.notDeepEqual(decrypted, plaintext);
      assert.equal(preflightEnvelope(bad.length, bad.subarray(-PREFLIGHT_LENGTH), KEY), plaintext.length);
    }
  });
});

describe('a wrong key', () => {
  it('is noticed by the padding, or gives another plaintext, with one verdict of all who look', () => {
    const plaintext = Buffer.alloc(100, 9);
    const envelope = encryptBuffer(plaintext, KEY, Buffer.alloc(BLOCK_LENGTH, 4));
    let refused = 0;
    for (let index = 0; index < 1024; index++) {
      const wrongKey = Buffer.alloc(32);
      wrongKey.writeUInt32BE(index);
      const opened = verdict(() => decryptBuffer(envelope, wrongKey).length);
      const end = envelope.subarray(-PREFLIGHT_LENGTH);
      assert.equal(
        verdict(() => preflightEnvelope(envelope.length, end, wrongKey)),
        opened,
      );
      if (opened === 'envelope_invalid') refused++;
      else assert.notDeepEqual(decryptBuffer(envelope, wrongKey), plaintext);
    }
    // One in 256 passes: about 1,020 of 1,024 are refused, and the keys are fixed.
    assert.ok(refused > 1000 && refused < 1024, `${refused} were refused`);
  });

  it('is refused in words that tell neither key nor content', () => {
    const envelope = encryptBuffer(Buffer.from('top secret model'), KEY, Buffer.alloc(BLOCK_LENGTH));
    assert.throws(
      () => decryptBuffer(envelope, Buffer.alloc(32, 'x')),
      (error) => error instanceof LoaderError && !/secret|kkkk|xxxx/.test(error.message),
    );
  });
});

it('foresees the length of every envelope from 0 to 100 bytes', () => {
  for (let length = 0; length <= 100; length++) {
    assert.equal(envelopeLength(length), encryptBuffer(Buffer.alloc(length), KEY).length);
  }
});

function flipBit(bytes: Buffer, bit: number): Buffer {
  const copy = Buffer.from(bytes);
  const index = bit >> 3;
  copy.writeUInt8(copy.readUInt8(index) ^ (1 << (bit & 7)), index);
  return copy;
}

/** The length that `look` tells, or the code that it fails with. */
function verdict(look: () => number): number | string {
  try {
    return look();
  } catch (error) {
    return codeOf(error);
  }
}

function codeOf(error: unknown): string {
  return error instanceof LoaderError ? error.code : String(error);
}

async function collect(chunks: AsyncIterable<Buffer>): Promise<Buffer> {
  return Buffer.concat(await Array.fromAsync(chunks));
}
