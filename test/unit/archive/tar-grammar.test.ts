import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { tarGrammar, type TarEntry, type TarRequest } from '../../../src/archive/tar-grammar.ts';
import { TAR_BLOCK_LENGTH } from '../../../src/archive/tar-header.ts';
import { TAR_END, tarArchive, tarEntry, type TarEntry as MadeEntry } from '../../../lab/images/tar-entry.ts';
import { withField } from '../../support/tar-field.ts';

const INVALID = { name: 'LoaderError', code: 'archive_invalid' };
const GIB = 1024 ** 3;
const NOTHING = Buffer.alloc(0);

/** What the grammar asks for of a tar, until it asks for more than there is, or is done. */
function requestsOf(tar: Buffer): { requests: TarRequest[]; isDone: boolean } {
  const requests: TarRequest[] = [];
  const grammar = tarGrammar();
  let position = 0;
  let step = grammar.next(NOTHING);
  while (step.done !== true) {
    const request = step.value;
    if (request.kind === 'read' && position + request.length > tar.length) break;
    requests.push(request);
    step = grammar.next(tar.subarray(position, position + request.length));
    position += request.length;
  }
  return { requests, isDone: step.done === true };
}

function readEntries(tar: Buffer): TarEntry[] {
  return requestsOf(tar).requests.flatMap((request) => (request.kind === 'data' ? [request.entry] : []));
}

function readEntry(entry: MadeEntry): TarEntry | undefined {
  const entries = readEntries(tarEntry(entry));
  assert.equal(entries.length, 1);
  return entries[0];
}

/** What the grammar asks for when it has got this header. */
function afterHeader(block: Buffer): TarRequest | undefined {
  const grammar = tarGrammar();
  grammar.next(NOTHING);
  const { value } = grammar.next(block);
  return value ?? undefined;
}

function paxHeader(body: string | Buffer, flag = 'x'): Buffer {
  return tarEntry({ name: 'pax', type: flag, content: body });
}

describe('an entry', () => {
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
      assert.deepEqual(afterHeader(header), {
        kind: 'data',
        length,
        entry: { name: 'a', type, length, linkName: 'b' },
      });
    });
  }

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
      assert.deepEqual(afterHeader(most), { kind: 'read', length: 1024 * 1024, isEnding: false });
      const more = withField(tarEntry({ name: 'a', claimedSize: 1024 * 1024 + 1 }), 156, flag);
      assert.throws(() => afterHeader(more), INVALID, flag);
    }
  });
});

describe('the PAX records before an entry', () => {
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

describe('the requests of the grammar', () => {
  const kinds = (tar: Buffer) => requestsOf(tar).requests.map(({ kind, length }) => [kind, length]);

  it('cover every byte up to the end mark, in order and without a gap', () => {
    const tar = tarArchive([
      { name: 'a', content: 'x'.repeat(600) },
      { name: 'b', nameStyle: 'gnu', content: '' },
    ]);
    assert.deepEqual(kinds(tar), [
      ['read', 512],
      ['data', 600],
      ['skip', 424],
      ['read', 512],
      ['read', 2],
      ['skip', 510],
      ['read', 512],
      ['data', 0],
      ['skip', 0],
      ['read', 512],
      ['read', 512],
    ]);
    assert.ok(requestsOf(tar).isDone);
  });

  it('end behind two blocks of zeros, and say so before the second one', () => {
    const isEnding = (tar: Buffer) =>
      requestsOf(tar).requests.map((request) => request.kind === 'read' && request.isEnding);
    assert.deepEqual(isEnding(TAR_END), [false, true]);
    const odd = Buffer.concat([Buffer.alloc(TAR_BLOCK_LENGTH), tarEntry({ name: 'a' }), TAR_END]);
    assert.deepEqual(isEnding(odd), [false, true, false, false, false, true]);
    assert.ok(requestsOf(odd).isDone);
    assert.ok(!requestsOf(odd.subarray(0, -TAR_BLOCK_LENGTH)).isDone);
  });

  it('are no more than 64 MiB of names and PAX records', () => {
    const metadata = paxHeader(`1000016 comment=${'x'.repeat(1_000_000 - 1)}\n`);
    assert.equal(requestsOf(Buffer.concat(Array.from({ length: 67 }, () => metadata))).requests.length, 3 * 67);
    assert.throws(() => requestsOf(Buffer.concat(Array.from({ length: 68 }, () => metadata))), {
      ...INVALID,
      message: /too many long names/,
    });
  });
});
