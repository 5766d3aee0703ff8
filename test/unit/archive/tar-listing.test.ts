import assert from 'node:assert/strict';
import { mkdtemp, open, rm, writeFile, type FileHandle } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, it } from 'node:test';
import { EnvelopeReader } from '../../../src/security/envelope-reader.ts';
import { encryptBuffer } from '../../../src/security/envelope-cipher.ts';
import { listTar } from '../../../src/archive/archive-index.ts';
import { TarListing } from '../../../src/archive/tar-listing.ts';
import { seededBytes } from '../../../lab/images/image-maker.ts';
import { TAR_END, tarArchive, type TarEntry } from '../../../lab/images/tar-entry.ts';
import { NEVER } from '../../../src/async/abort.ts';

const KEY = Buffer.alloc(32, 'k');
const BLOCK = 512;
const INVALID = { name: 'LoaderError', code: 'archive_invalid' };
let folder = '';
const handles: FileHandle[] = [];

before(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'loader-listing-'));
});

after(async () => {
  for (const handle of handles) await handle.close();
  await rm(folder, { recursive: true, force: true });
});

/** A reader of its own file; `length` says that no more than this is there. */
async function seal(plaintext: Buffer): Promise<(length?: number) => EnvelopeReader> {
  const name = path.join(folder, String(handles.length));
  await writeFile(name, encryptBuffer(plaintext, KEY));
  const handle = await open(name);
  handles.push(handle);
  return (length = plaintext.length) => new EnvelopeReader(handle, length, KEY);
}

async function list(entries: readonly (TarEntry | Buffer)[]): Promise<TarListing> {
  return await listTar((await seal(tarArchive(entries)))(), NEVER);
}

/** What a listing says is in a file, read from the archive itself. */
async function contentsOf(tar: Buffer, names: readonly string[]): Promise<(string | undefined)[]> {
  const reader = (await seal(tar))();
  const listing = await listTar(reader, NEVER);
  return await Promise.all(
    names.map(async (name) => {
      const file = listing.find(name);
      return file && (await reader.read(file.start, file.start + file.length)).toString();
    }),
  );
}

describe('the files of a listing', () => {
  it('lie where their data is', async () => {
    const sizes = [0, 1, 511, 512, 513, 20_000, 3];
    const tar = tarArchive(sizes.map((size, at) => ({ name: `f${at}`, content: String(at).repeat(size) })));
    const names = sizes.map((_, at) => `f${at}`);
    assert.deepEqual(
      await contentsOf(tar, names),
      sizes.map((size, at) => String(at).repeat(size)),
    );
  });

  for (const nameStyle of ['ustar', 'gnu', 'pax'] as const) {
    it(`are found under long names (${nameStyle})`, async () => {
      const name = `${'folder/'.repeat(20)}file`;
      const content = 'x'.repeat(600);
      assert.deepEqual(await contentsOf(tarArchive([{ name, content, nameStyle }]), [name]), [content]);
    });
  }

  it('lie where they do when a PAX record has their size and the header none', async () => {
    const content = 'y'.repeat(700);
    const tar = tarArchive([
      { name: 'a', content, claimedSize: 0, pax: { size: '700' } },
      { name: 'b', content: 'z' },
    ]);
    assert.deepEqual(await contentsOf(tar, ['a', 'b']), [content, 'z']);
  });

  it('are found around what is larger than what is read at once', async () => {
    const big = seededBytes('big', 100_000);
    const tar = tarArchive([
      { name: 'a', content: '1' },
      { name: 'b', content: big },
      { name: 'c', content: '2' },
      // A long name whose data and entry lie on both sides of the end of a read.
      { name: 'n'.repeat(3000), content: '3', nameStyle: 'pax' },
      { name: 'e', content: '4', pax: { comment: 'x'.repeat(100_000) } },
      ...Array.from({ length: 40 }, (_, at) => ({ name: `d${at}`, content: String(at), nameStyle: 'gnu' as const })),
    ]);
    assert.deepEqual(await contentsOf(tar, ['a', 'c', 'n'.repeat(3000), 'e', 'd0', 'd39']), [
      '1',
      '2',
      '3',
      '4',
      '0',
      '39',
    ]);
  });

  it('are found under the one form of their names', async () => {
    const listing = await list(['./a', 'b//c', 'd/./e', 'f/../g'].map((name) => ({ name, content: 'x' })));
    for (const name of ['a', 'b/c', 'd/e', 'g']) assert.equal(listing.find(name)?.length, 1, name);
    assert.equal(listing.find('f'), undefined);
  });

  it('are those of the last entry when several have one name', async () => {
    const names = ['a', './a', 'a'];
    const tar = tarArchive(names.map((name, at) => ({ name, content: `content ${at}` })));
    assert.deepEqual(await contentsOf(tar, ['a']), ['content 2']);
    const replaced = tarArchive([
      { name: 'a', content: 'first' },
      { name: 'b', content: 'other' },
      { name: 'a', type: 'symlink', linkName: 'b' },
    ]);
    assert.deepEqual(await contentsOf(replaced, ['a']), ['other']);
    const gone = tarArchive([
      { name: 'a', content: 'first' },
      { name: 'a', type: 'directory' },
    ]);
    assert.deepEqual(await contentsOf(gone, ['a']), [undefined]);
  });

  it('are none of folders, devices and what is not there', async () => {
    const listing = await list([
      { name: 'folder/', type: 'directory' },
      { name: 'device', type: '3' },
      { name: 'a', content: 'x' },
    ]);
    for (const name of ['folder', 'folder/', 'device', 'b', '', './a', 'A', 'a/']) {
      assert.equal(listing.find(name), undefined, name);
      assert.throws(() => listing.file(name), INVALID);
    }
    assert.throws(() => listing.file('b'), { message: /names b, which it does not hold/ });
    assert.deepEqual(listing.file('a'), listing.find('a'));
  });

  it('are none in an empty tar', async () => assert.equal((await list([])).find('manifest.json'), undefined));
});

describe('a link', () => {
  it('leads to what it names, from its own folder when it is symbolic and from the top when it is hard', async () => {
    const tar = tarArchive([
      { name: 'x/layer.tar', content: 'X' },
      { name: 'y/layer.tar', type: 'symlink', linkName: '../x/layer.tar' },
      { name: 'z/layer.tar', type: 'hardlink', linkName: 'x/layer.tar' },
      { name: 'x/beside', type: 'symlink', linkName: 'layer.tar' },
      { name: 'top', type: 'symlink', linkName: './x//layer.tar' },
    ]);
    const names = ['y/layer.tar', 'z/layer.tar', 'x/beside', 'top'];
    assert.deepEqual(await contentsOf(tar, names), ['X', 'X', 'X', 'X']);
  });

  it('may lead to another one, and to what comes later', async () => {
    const tar = tarArchive([
      { name: 'a', type: 'symlink', linkName: 'b' },
      { name: 'b', type: 'hardlink', linkName: 'c/d' },
      { name: 'c/d', type: 'symlink', linkName: '../e' },
      { name: 'e', content: 'E' },
    ]);
    assert.deepEqual(await contentsOf(tar, ['a', 'b', 'c/d']), ['E', 'E', 'E']);
  });

  it('may lead nowhere or to a folder: then there is no file', async () => {
    const listing = await list([
      { name: 'a', type: 'symlink', linkName: 'nothing' },
      { name: 'b', type: 'hardlink', linkName: 'nothing' },
      { name: 'c', type: 'symlink', linkName: 'd' },
      { name: 'd/', type: 'directory' },
      { name: 'e', type: 'symlink', linkName: '' },
    ]);
    for (const name of ['a', 'b', 'c', 'e']) assert.equal(listing.find(name), undefined, name);
  });

  for (const type of ['symlink', 'hardlink']) {
    it(`to itself, or to one that leads back, is refused (${type})`, async () => {
      const listing = await list([
        { name: 'self', type, linkName: 'self' },
        { name: 'a', type, linkName: 'b' },
        { name: 'b', type, linkName: 'c' },
        { name: 'c', type, linkName: 'a' },
      ]);
      for (const name of ['self', 'a', 'b', 'c']) {
        assert.throws(() => listing.find(name), { ...INVALID, message: /in a circle/ });
      }
    });
  }

  it('may stand in a chain of 15, which no engine writes, and not in one of 16', async () => {
    const links = Array.from({ length: 16 }, (_, at) => ({
      name: `l${at}`,
      type: 'symlink',
      linkName: at === 0 ? 'file' : `l${at - 1}`,
    }));
    const listing = await list([...links, { name: 'file', content: 'x' }]);
    assert.equal(listing.find('l14')?.length, 1);
    assert.throws(() => listing.find('l15'), INVALID);
  });

  it('out of the archive is refused when it is followed', async () => {
    const listing = await list([
      { name: 'a', type: 'symlink', linkName: '../etc/passwd' },
      { name: 'b/c', type: 'symlink', linkName: '../../passwd' },
      { name: 'd', type: 'hardlink', linkName: '/etc/passwd' },
      { name: 'fine', content: 'x' },
    ]);
    for (const name of ['a', 'b/c', 'd']) assert.throws(() => listing.find(name), INVALID, name);
    assert.equal(listing.find('fine')?.length, 1);
  });
});

describe('a tar', () => {
  const names = ['ustar', 'gnu', 'pax'] as const;
  const entries: TarEntry[] = names.flatMap((nameStyle) => [
    { name: `${nameStyle}/${'n'.repeat(120)}/layer.tar`, content: 'x'.repeat(1100), nameStyle },
    { name: `${nameStyle}/link`, type: 'symlink', linkName: 'target', nameStyle },
    { name: `${nameStyle}/`, type: 'directory', nameStyle },
    { name: `${nameStyle}/empty`, content: '', nameStyle },
  ]);

  it('with an entry that leads out of it is refused', async () => {
    for (const name of ['../a', 'a/../../b', '/a', '/', '..']) {
      await assert.rejects(list([{ name, content: 'x' }]), INVALID, name);
    }
    await assert.rejects(list([{ name: 'a\0b', content: 'x', nameStyle: 'pax' }]), INVALID);
  });

  it('is refused wherever it is cut', async () => {
    const tar = tarArchive(entries);
    const readerOf = await seal(tar);
    await listTar(readerOf(), NEVER);
    for (let length = 0; length < tar.length; length += 128) {
      for (const cut of [length, length + 1, length + 127]) {
        if (cut >= tar.length) continue;
        await assert.rejects(listTar(readerOf(cut), NEVER), { ...INVALID, message: /cut or not complete/ }, `${cut}`);
      }
    }
  });

  it('is refused without its end mark, and with half of one', async () => {
    const tar = tarArchive(entries, { hasEndMark: false });
    await assert.rejects(listTar((await seal(tar))(), NEVER), INVALID);
    await assert.rejects(listTar((await seal(Buffer.concat([tar, Buffer.alloc(BLOCK)])))(), NEVER), INVALID);
    await listTar((await seal(Buffer.concat([tar, TAR_END])))(), NEVER);
  });

  it('may have one block of zeros between entries, and anything behind its end mark', async () => {
    const tar = tarArchive([
      { name: 'a', content: '1' },
      Buffer.alloc(BLOCK),
      { name: 'b', content: '2' },
      Buffer.alloc(BLOCK),
      { name: 'c', content: '3' },
      TAR_END,
      { name: 'd', content: '4' },
      Buffer.alloc(BLOCK, 'garbage'),
    ]);
    assert.deepEqual(await contentsOf(tar, ['a', 'b', 'c', 'd']), ['1', '2', '3', undefined]);
  });

  it('is refused when an entry claims more than there is', async () => {
    for (const claimedSize of [BLOCK * 4, 2 ** 33, 2 ** 50, Number.MAX_SAFE_INTEGER]) {
      await assert.rejects(list([{ name: 'a', content: 'x', claimedSize }]), INVALID, `${claimedSize}`);
    }
    await assert.rejects(list([{ name: 'a', pax: { size: '999999999999999' } }]), INVALID);
  });

  it('is refused when a header is damaged anywhere', async () => {
    for (const at of entries.keys()) {
      const bad = entries.map((entry, index) => ({ ...entry, hasBadChecksum: index === at }));
      await assert.rejects(list(bad), { ...INVALID, message: /wrong checksum/ }, `entry ${at}`);
    }
  });

  it('is read no further when its reader has left', async () => {
    const left = AbortSignal.abort(new Error('the client has left'));
    await assert.rejects(listTar((await seal(tarArchive(entries)))(), left), /the client has left/);
  });

  it('costs no read of the data between its headers', async (t) => {
    const tar = tarArchive([
      { name: 'a', content: seededBytes('a', 1_000_000) },
      { name: 'b', content: seededBytes('b', 1_000_000) },
    ]);
    const reader = (await seal(tar))();
    let bytes = 0;
    const read = reader.read.bind(reader);
    t.mock.method(reader, 'read', async (start: number, end: number) => {
      bytes += end - start;
      return await read(start, end);
    });
    await listTar(reader, NEVER);
    assert.ok(bytes < 50_000, `${bytes} bytes were read`);
  });

  it('may have 100,000 entries and no more', () => {
    const listing = new TarListing();
    const entry = { type: 'file', length: 0, linkName: '' } as const;
    for (let at = 0; at < 100_000; at++) listing.add({ ...entry, name: `f${at}` }, at);
    assert.equal(listing.file('f99999').start, 99_999);
    assert.throws(() => {
      listing.add({ ...entry, name: 'one more' }, 0);
    }, INVALID);
  });
});
