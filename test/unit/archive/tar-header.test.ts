import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import {
  createTarHeader,
  isTarHeader,
  paddedLength,
  readTarHeader,
  TAR_BLOCK_LENGTH,
  type TarHeader,
} from '../../../src/archive/tar-header.ts';
import { tarEntry, type TarEntry } from '../../../lab/images/tar-entry.ts';
import { withField } from '../../support/tar-field.ts';

const INVALID = { name: 'LoaderError', code: 'archive_invalid' };
const GIB = 1024 ** 3;

function read(entry: TarEntry): TarHeader | undefined {
  return readTarHeader(tarEntry(entry).subarray(0, TAR_BLOCK_LENGTH));
}

describe('the name in a header', () => {
  it('puts the prefix of the ustar format before the name', () => {
    const name = `${'folder/'.repeat(21)}${'n'.repeat(100)}`;
    assert.equal(read({ name })?.name, name);
  });

  it('takes a name and a prefix that fill their fields', () => {
    const name = `${'p'.repeat(155)}/${'n'.repeat(100)}`;
    assert.equal(read({ name })?.name, name);
    const linkName = 'l'.repeat(100);
    assert.equal(read({ name: 'a', type: 'symlink', linkName })?.linkName, linkName);
  });

  it('has no prefix in the GNU format, whatever stands there', () => {
    const gnu = withField(tarEntry({ name: 'a' }), 257, 'ustar  \0');
    assert.equal(readTarHeader(withField(gnu, 345, 'times and offsets'))?.name, 'a');
    const old = withField(tarEntry({ name: 'a' }), 257, Buffer.alloc(8));
    assert.equal(readTarHeader(withField(old, 345, 'garbage'))?.name, 'a');
  });

  it('has names in UTF-8', () => {
    assert.equal(read({ name: 'Modèle/検出器' })?.name, 'Modèle/検出器');
  });
});

describe('the size in a header', () => {
  for (const size of [0, 1, 8 ** 11 - 1, 8 ** 11, 8 ** 11 + 1, 100 * GIB, 2 ** 40 + 513, Number.MAX_SAFE_INTEGER]) {
    it(`of ${size} bytes is the same after it was written and read back`, () => {
      const header = createTarHeader('layer.tar', size);
      assert.equal(header.length, TAR_BLOCK_LENGTH);
      assert.deepEqual(readTarHeader(header), { flag: '0', name: 'layer.tar', length: size, linkName: '' });
      // The test's own writer does it in its own way.
      assert.equal(readTarHeader(tarEntry({ name: 'a', claimedSize: size }).subarray(0, 512))?.length, size);
    });
  }

  it('is in octal digits as long as these suffice, since older readers know no other', () => {
    assert.equal(createTarHeader('a', 8 ** 11 - 1).toString('latin1', 124, 136), '77777777777\0');
    assert.equal(createTarHeader('a', 8 ** 11).toString('hex', 124, 136), '800000000000000200000000');
    assert.equal(createTarHeader('a', 100).toString('latin1', 124, 136), '00000000144\0');
  });

  it('may have spaces or zeros around its digits, or be empty', () => {
    const header = tarEntry({ name: 'a' });
    for (const [field, length] of [
      ['       144 \0', 100],
      ['144\0\0\0\0\0\0\0\0\0', 100],
      ['000000000144', 100],
      ['777777777777', 8 ** 12 - 1],
      ['\0'.repeat(12), 0],
      [' '.repeat(12), 0],
    ] as const) {
      assert.equal(readTarHeader(withField(header, 124, field))?.length, length, JSON.stringify(field));
    }
  });

  for (const field of ['0000000008\0\0', '00000 00144\0', '-0000000144\0', 'abcdefghijkl', '1.440000000\0']) {
    it(`is refused when it is no number: ${JSON.stringify(field)}`, () => {
      const header = withField(tarEntry({ name: 'a' }), 124, field);
      assert.throws(() => readTarHeader(header), INVALID);
    });
  }

  for (const hex of [
    'ff'.repeat(12),
    `80000000${'ff'.repeat(8)}`,
    '800000000020000000000000',
    `81${'00'.repeat(11)}`,
  ]) {
    it(`is refused when it is binary and impossible: ${hex}`, () => {
      const header = withField(tarEntry({ name: 'a' }), 124, Buffer.from(hex, 'hex'));
      assert.throws(() => readTarHeader(header), INVALID);
    });
  }

  it('is rounded up to whole blocks for its data', () => {
    for (const [length, padded] of [
      [0, 0],
      [1, 512],
      [511, 512],
      [512, 512],
      [513, 1024],
      [9 * GIB + 1, 9 * GIB + 512],
    ] as const) {
      assert.equal(paddedLength(length), padded);
    }
  });
});

describe('the checksum', () => {
  for (const [name, header] of [
    ['ustar', tarEntry({ name: 'blobs/sha256/abc', claimedSize: 1234 })],
    ['GNU', tarEntry({ name: 'blobs/sha256/abc', nameStyle: 'gnu' }).subarray(0, 512)],
    ['our own', createTarHeader('0123456789abcdef.tar', 9 * GIB)],
  ] as const) {
    it(`shows each bit that is flipped in a header (${name}), or the bit means nothing`, () => {
      const sound = readTarHeader(header);
      let unnoticed = 0;
      for (let bit = 0; bit < 8 * TAR_BLOCK_LENGTH; bit++) {
        const bad = Buffer.from(header);
        bad.writeUInt8(bad.readUInt8(bit >> 3) ^ (1 << (bit & 7)), bit >> 3);
        if (!isTarHeader(bad)) {
          assert.throws(() => readTarHeader(bad), INVALID, `bit ${bit}`);
          continue;
        }
        // A space for a zero around the digits of the checksum itself.
        unnoticed++;
        assert.ok(bit >> 3 >= 148 && bit >> 3 < 156, `bit ${bit} of byte ${bit >> 3} was not noticed`);
        assert.deepEqual(readTarHeader(bad), sound);
      }
      assert.ok(unnoticed <= 4, `${unnoticed} bits were not noticed`);
    });
  }

  it('one too high is refused', () => {
    assert.throws(() => readTarHeader(tarEntry({ name: 'a', hasBadChecksum: true })), INVALID);
    assert.equal(isTarHeader(tarEntry({ name: 'a', hasBadChecksum: true })), false);
  });

  it('is wrong for random blocks, short ones, zeros and text', () => {
    let state = 1;
    for (let round = 0; round < 1000; round++) {
      const block = Buffer.alloc(TAR_BLOCK_LENGTH);
      for (let index = 0; index < block.length; index++) {
        state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
        block[index] = state >>> 24;
      }
      assert.equal(isTarHeader(block), false);
    }
    const header = tarEntry({ name: 'a' });
    for (let length = 0; length < TAR_BLOCK_LENGTH; length++)
      assert.equal(isTarHeader(header.subarray(0, length)), false);
    assert.equal(isTarHeader(Buffer.alloc(TAR_BLOCK_LENGTH)), false);
    assert.equal(isTarHeader(Buffer.alloc(TAR_BLOCK_LENGTH, '{"a":1}')), false);
    assert.equal(isTarHeader(header), true);
  });

  it('is the same as other writers make it', () => {
    // All that GNU tar writes for an empty file "a" of root with mode 644 and no time.
    const header = withField(Buffer.alloc(TAR_BLOCK_LENGTH), 0, createTarHeader('a', 0));
    assert.deepEqual(createTarHeader('a', 0), header);
    assert.deepEqual(createTarHeader('a', 5000), tarEntry({ name: 'a', claimedSize: 5000 }));
  });
});

describe('a block of zeros', () => {
  it('is told as such', () => {
    assert.equal(readTarHeader(Buffer.alloc(TAR_BLOCK_LENGTH)), undefined);
  });

  it('with a single bit is a bad header', () => {
    for (let index = 0; index < TAR_BLOCK_LENGTH; index++) {
      const block = Buffer.alloc(TAR_BLOCK_LENGTH);
      block[index] = 1;
      assert.throws(() => readTarHeader(block), INVALID);
    }
  });
});
