import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import {
  createTarHeader,
  isTarHeader,
  paddedLength,
  TAR_BLOCK_LENGTH,
  TarHeaderReader,
  type TarEntry,
} from '../../../src/archive/tar-header.ts';
import { tarEntry, type TarEntry as MadeEntry } from '../../../lab/images/tar-entry.ts';

const INVALID = { name: 'LoaderError', code: 'archive_invalid' };
const GIB = 1024 ** 3;

/** All entries of a tar without its end, data skipped. */
function readEntries(tar: Buffer, reader = new TarHeaderReader()): TarEntry[] {
  const entries: TarEntry[] = [];
  for (let position = 0; position < tar.length;) {
    const step = reader.take(tar.subarray(position, position + TAR_BLOCK_LENGTH));
    position += TAR_BLOCK_LENGTH;
    if (step.kind === 'metadata') {
      reader.takeMetadata(tar.subarray(position, position + step.length));
      position += paddedLength(step.length);
    } else if (step.kind === 'entry') {
      entries.push(step.entry);
      position += paddedLength(step.entry.length);
    }
  }
  return entries;
}

function readEntry(entry: MadeEntry): TarEntry | undefined {
  const entries = readEntries(tarEntry(entry));
  assert.equal(entries.length, 1);
  return entries[0];
}

/** A header whose field at `offset` was overwritten; its checksum is right. */
function withField(block: Buffer, offset: number, value: string | Buffer): Buffer {
  const header = Buffer.from(block.subarray(0, TAR_BLOCK_LENGTH));
  (typeof value === 'string' ? Buffer.from(value, 'latin1') : value).copy(header, offset);
  header.fill(' ', 148, 156);
  const sum = header.reduce((total, byte) => total + byte, 0);
  header.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148);
  return header;
}

function paxHeader(body: string | Buffer, flag = 'x'): Buffer {
  return tarEntry({ name: 'pax', type: flag, content: body });
}

describe('a header', () => {
  const file = { name: 'manifest.json', content: 'x'.repeat(1000) };

  it('of the ustar format gives name, type and length', () => {
    assert.deepEqual(readEntry(file), { name: 'manifest.json', type: 'file', length: 1000, linkName: '' });
  });

  for (const [flag, type, length] of [
    ['0', 'file', 3],
    ['\0', 'file', 3],
    ['7', 'file', 3],
    ['1', 'hardlink', 0],
    ['2', 'symlink', 0],
    ['5', 'directory', 0],
    ['3', 'other', 3],
    ['S', 'other', 3],
  ] as const) {
    it(`with the type ${JSON.stringify(flag)} is that of a ${type}, whose data has ${length} of 3 bytes`, () => {
      const header = withField(tarEntry({ name: 'a', claimedSize: 3, linkName: 'b' }), 156, flag);
      assert.deepEqual(new TarHeaderReader().take(header), {
        kind: 'entry',
        entry: { name: 'a', type, length, linkName: 'b' },
      });
    });
  }

  it('puts the prefix of the ustar format before the name', () => {
    const name = `${'folder/'.repeat(21)}${'n'.repeat(100)}`;
    assert.equal(readEntry({ name })?.name, name);
  });

  it('takes a name and a prefix that fill their fields', () => {
    const name = `${'p'.repeat(155)}/${'n'.repeat(100)}`;
    assert.equal(readEntry({ name })?.name, name);
    const linkName = 'l'.repeat(100);
    assert.equal(readEntry({ name: 'a', type: 'symlink', linkName })?.linkName, linkName);
  });

  it('has no prefix in the GNU format, whatever stands there', () => {
    const gnu = withField(tarEntry({ name: 'a' }), 257, 'ustar  \0');
    assert.equal(readEntries(withField(gnu, 345, 'times and offsets'))[0]?.name, 'a');
    const old = withField(tarEntry({ name: 'a' }), 257, Buffer.alloc(8));
    assert.equal(readEntries(withField(old, 345, 'garbage'))[0]?.name, 'a');
  });

  it('has names in UTF-8', () => {
    assert.equal(readEntry({ name: 'Modèle/検出器' })?.name, 'Modèle/検出器');
  });

  for (const style of ['gnu', 'pax'] as const) {
    it(`gets long names of any length from the ${style} entries before it`, () => {
      for (const length of [1, 99, 100, 101, 155, 256, 511, 512, 513, 4096]) {
        const [name, linkName] = ['n'.repeat(length), 'l'.repeat(length)];
        assert.deepEqual(readEntry({ name, linkName, type: 'symlink', nameStyle: style }), {
          name,
          linkName,
          type: 'symlink',
          length: 0,
        });
      }
    });

    it(`does not lend its ${style} names to the next one`, () => {
      const tar = Buffer.concat([
        tarEntry({ name: 'long', linkName: 'link', nameStyle: style }),
        tarEntry({ name: 'short' }),
      ]);
      assert.deepEqual(
        readEntries(tar).map(({ name, linkName }) => [name, linkName]),
        [
          ['long', 'link'],
          ['short', ''],
        ],
      );
    });

    it(`refuses ${style} names of more than 4096 characters`, () => {
      const long = 'n'.repeat(4097);
      assert.throws(() => readEntry({ name: long, nameStyle: style }), INVALID);
      assert.throws(() => readEntry({ name: 'a', linkName: long, nameStyle: style }), INVALID);
    });
  }

  it('refuses a name or PAX entry of more than 1 MiB, and takes one of 1 MiB', () => {
    for (const flag of ['L', 'K', 'x', 'g']) {
      const most = withField(tarEntry({ name: 'a', claimedSize: 1024 * 1024 }), 156, flag);
      assert.deepEqual(new TarHeaderReader().take(most), { kind: 'metadata', length: 1024 * 1024 });
      const more = withField(tarEntry({ name: 'a', claimedSize: 1024 * 1024 + 1 }), 156, flag);
      assert.throws(() => new TarHeaderReader().take(more), INVALID, flag);
    }
  });
});

describe('the PAX records before a header', () => {
  it('give its size, whatever it says itself', () => {
    for (const size of ['0', '12', '511', '513', String(9 * GIB), '999999999999999']) {
      const tar = Buffer.concat([tarEntry({ name: 'a', pax: { size }, claimedSize: 7 })]);
      assert.equal(readEntries(tar)[0]?.length, Number(size));
    }
  });

  it('give no data to a link or folder', () => {
    for (const type of ['symlink', 'hardlink', 'directory']) {
      assert.equal(readEntry({ name: 'a', type, pax: { size: '12' } })?.length, 0);
    }
  });

  it('may be taken back by an empty value', () => {
    const bytes = tarEntry({ name: 'a', content: '12345', pax: { size: '', path: '' } });
    assert.deepEqual(readEntries(bytes)[0], { name: 'a', type: 'file', length: 5, linkName: '' });
  });

  for (const size of ['-1', '1.5', '0x10', '1e3', ' 1', '1000000000000000', 'many']) {
    it(`are refused with the size "${size}"`, () => {
      assert.throws(() => readEntry({ name: 'a', pax: { size } }), INVALID);
    });
  }

  it('count for all that follows when they are global, but what stands before an entry counts more', () => {
    const tar = Buffer.concat([
      paxHeader('13 comment=x\n15 path=global\n', 'g'),
      tarEntry({ name: 'a' }),
      tarEntry({ name: 'b', nameStyle: 'pax' }),
      tarEntry({ name: 'c', nameStyle: 'gnu' }),
      paxHeader('13 comment=y\n', 'g'),
      tarEntry({ name: 'd' }),
      paxHeader('14 path=later\n', 'g'),
      tarEntry({ name: 'e' }),
    ]);
    assert.deepEqual(
      readEntries(tar).map(({ name }) => name),
      ['global', 'b', 'global', 'global', 'later'],
    );
  });

  it('win over GNU names', () => {
    const tar = Buffer.concat([
      tarEntry({ name: 'gnu', nameStyle: 'gnu' }).subarray(0, 1024),
      tarEntry({ name: 'pax', nameStyle: 'pax' }),
    ]);
    assert.equal(readEntries(tar)[0]?.name, 'pax');
  });

  it('may hold an equals sign, a line break and any UTF-8 in their values', () => {
    for (const name of ['a=b', 'a\nb', '検出器', '='.repeat(90)]) {
      assert.equal(readEntry({ name, nameStyle: 'pax' })?.name, name);
    }
  });

  it('may be many, and the last of one key counts', () => {
    const tar = Buffer.concat([paxHeader('9 path=a\n9 path=b\n'), tarEntry({ name: 'c' })]);
    assert.equal(readEntries(tar)[0]?.name, 'b');
  });

  it('may be none', () => {
    assert.equal(readEntries(Buffer.concat([paxHeader(''), tarEntry({ name: 'a' })]))[0]?.name, 'a');
  });

  for (const body of [
    'x',
    '9 path=a',
    '9 path=ab',
    '8 path=a\n',
    '11 path=a\n',
    '99 path=a\n',
    '-9 path=a\n',
    '0 path=a\n',
    '9.5 path=a\n',
    '7 path\n',
    '5 =a\n',
    ' path=a\n',
    '\n\n\n\n',
    '9 path=a\n\n',
    '9 path=a\n\0\0\0',
    '2\n path=a\n',
  ]) {
    it(`are refused when they are malformed: ${JSON.stringify(body)}`, () =>
      assert.throws(() => readEntries(paxHeader(body)), INVALID));
  }

  it('are refused when the file is sparse', () => {
    assert.throws(() => readEntry({ name: 'a', pax: { 'GNU.sparse.major': '1' } }), INVALID);
  });
});

describe('the size in a header', () => {
  for (const size of [0, 1, 8 ** 11 - 1, 8 ** 11, 8 ** 11 + 1, 100 * GIB, 2 ** 40 + 513, Number.MAX_SAFE_INTEGER]) {
    it(`of ${size} bytes is the same after it was written and read back`, () => {
      const header = createTarHeader('layer.tar', size);
      assert.equal(header.length, TAR_BLOCK_LENGTH);
      assert.deepEqual(readEntries(header)[0], { name: 'layer.tar', type: 'file', length: size, linkName: '' });
      // The test's own writer does it in its own way.
      assert.equal(readEntry({ name: 'a', claimedSize: size })?.length, size);
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
      assert.equal(readEntries(withField(header, 124, field))[0]?.length, length, JSON.stringify(field));
    }
  });

  for (const field of ['0000000008\0\0', '00000 00144\0', '-0000000144\0', 'abcdefghijkl', '1.440000000\0']) {
    it(`is refused when it is no number: ${JSON.stringify(field)}`, () => {
      const header = withField(tarEntry({ name: 'a' }), 124, field);
      assert.throws(() => new TarHeaderReader().take(header), INVALID);
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
      assert.throws(() => new TarHeaderReader().take(header), INVALID);
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
      const sound = new TarHeaderReader().take(header);
      let unnoticed = 0;
      for (let bit = 0; bit < 8 * TAR_BLOCK_LENGTH; bit++) {
        const bad = Buffer.from(header);
        bad.writeUInt8(bad.readUInt8(bit >> 3) ^ (1 << (bit & 7)), bit >> 3);
        if (!isTarHeader(bad)) {
          assert.throws(() => new TarHeaderReader().take(bad), INVALID, `bit ${bit}`);
          continue;
        }
        // A space for a zero around the digits of the checksum itself.
        unnoticed++;
        assert.ok(bit >> 3 >= 148 && bit >> 3 < 156, `bit ${bit} of byte ${bit >> 3} was not noticed`);
        assert.deepEqual(new TarHeaderReader().take(bad), sound);
      }
      assert.ok(unnoticed <= 4, `${unnoticed} bits were not noticed`);
    });
  }

  it('one too high is refused', () => {
    assert.throws(() => readEntry({ name: 'a', hasBadChecksum: true }), INVALID);
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
    assert.deepEqual(new TarHeaderReader().take(Buffer.alloc(TAR_BLOCK_LENGTH)), { kind: 'zeros' });
  });

  it('with a single bit is a bad header', () => {
    for (let index = 0; index < TAR_BLOCK_LENGTH; index++) {
      const block = Buffer.alloc(TAR_BLOCK_LENGTH);
      block[index] = 1;
      assert.throws(() => new TarHeaderReader().take(block), INVALID);
    }
  });
});
