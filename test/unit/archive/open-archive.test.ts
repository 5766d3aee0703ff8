import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readlinkSync } from 'node:fs';
import { mkdir, mkdtemp, rename, rm, symlink, truncate, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { gzipSync, zstdCompressSync } from 'node:zlib';
import { archiveError } from '../../../src/archive/archive-error.ts';
import { hasErrorCode, LoaderError } from '../../../src/errors.ts';
import { EndOfFileError } from '../../../src/files/file-chunks.ts';
import { preflightEnvelope } from '../../../src/security/envelope.ts';
import { encryptBuffer } from '../../../src/security/envelope-cipher.ts';
import {
  archiveExists,
  isSameArchive,
  openArchive,
  readArchiveIdentity,
  type ArchiveIdentity,
  type OpenArchive,
} from '../../../src/archive/open-archive.ts';
import { makeImage, makeLayer, saveImages } from '../../../lab/images/image-maker.ts';
import { tarArchive } from '../../../lab/images/tar-entry.ts';

const KEY = Buffer.alloc(32, 'k');
const IV = Buffer.alloc(16, 7);
const INVALID = { name: 'LoaderError', code: 'archive_invalid' };
const KEY_WRONG = { name: 'LoaderError', code: 'archive_key_wrong' };
const NOT_FOUND = { name: 'LoaderError', code: 'archive_not_found' };
const UNREADABLE = { name: 'LoaderError', code: 'archive_unreadable' };
const CHANGED = { name: 'LoaderError', code: 'archive_changed' };

const tar = saveImages([makeImage({ tags: ['azaion/api:1'], layers: [makeLayer({ a: 'A' })] })]);
const envelope = encryptBuffer(tar, KEY, IV);

let folder = '';
let archive = '';

beforeEach(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'loader-open-'));
  archive = path.join(folder, 'images.enc');
});

afterEach(async () => {
  await rm(folder, { recursive: true, force: true });
});

async function openBytes(bytes: Buffer, key: Buffer = KEY): Promise<OpenArchive> {
  await writeFile(archive, bytes);
  return await openArchive(archive, key);
}

/** Opens the archive of this plaintext, hands it to `look`, and closes it. */
async function withOpen(plaintext: Buffer, look: (open: OpenArchive) => Promise<void> | void): Promise<void> {
  await using open = await openBytes(encryptBuffer(plaintext, KEY));
  await look(open);
}

function flipped(bytes: Buffer, index: number, bits = 1): Buffer {
  const copy = Buffer.from(bytes);
  copy.writeUInt8(copy.readUInt8(index) ^ bits, index);
  return copy;
}

function wrongKey(index: number): Buffer {
  return createHash('sha256').update(`wrong key ${index}`).digest();
}

describe('opening an archive', () => {
  for (const [name, plaintext, compression] of [
    ['plain', tar, 'none'],
    ['in the OCI layout', saveImages([], { layout: 'oci' }), 'none'],
    ['with PAX names', saveImages([], { layout: 'oci', nameStyle: 'pax' }), 'none'],
    ['empty but for its end mark and one file', tarArchive([{ name: 'manifest.json' }]), 'none'],
    ['compressed with gzip', gzipSync(tar), 'gzip'],
    ['compressed with zstd', zstdCompressSync(tar), 'zstd'],
    ['compressed to less than a block', gzipSync(Buffer.alloc(2048)), 'gzip'],
  ] as const) {
    it(`tells its length and compression: ${name}`, () =>
      withOpen(plaintext, async ({ reader, compression: told }) => {
        assert.equal(told, compression);
        assert.equal(reader.plaintextLength, plaintext.length);
        assert.ok((await reader.read(0, plaintext.length)).equals(plaintext));
      }));
  }

  it('takes one whose writer left the magic of ustar out', () => {
    const old = Buffer.from(tarArchive([{ name: 'a' }]));
    old.fill(0, 257, 265).fill(' ', 148, 156);
    const sum = old.subarray(0, 512).reduce((total, byte) => total + byte, 0);
    old.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148);
    return withOpen(old, ({ compression }) => assert.equal(compression, 'none'));
  });

  it('follows a symbolic link', async () => {
    await writeFile(path.join(folder, 'real'), envelope);
    await symlink('real', archive);
    await (await openArchive(archive, KEY))[Symbol.asyncDispose]();
  });

  it('fails when there is none, or its folder is none', async () => {
    await assert.rejects(openArchive(archive, KEY), NOT_FOUND);
    await writeFile(archive, envelope);
    await assert.rejects(openArchive(path.join(archive, 'images.enc'), KEY), NOT_FOUND);
    await symlink('nowhere', path.join(folder, 'dangling'));
    await assert.rejects(openArchive(path.join(folder, 'dangling'), KEY), NOT_FOUND);
  });

  it('fails with archive_unreadable when it is a folder or its path makes no sense', async () => {
    await mkdir(archive);
    await assert.rejects(openArchive(archive, KEY), { ...UNREADABLE, message: /images\.enc can't be read \(EISDIR\)/ });
    await symlink('circle', path.join(folder, 'circle'));
    await assert.rejects(openArchive(path.join(folder, 'circle'), KEY), { ...UNREADABLE, message: /ELOOP/ });
    await assert.rejects(openArchive(path.join(folder, 'n'.repeat(300)), KEY), UNREADABLE);
  });
});

describe('a wrong key', () => {
  it('is told as such, whether the padding happens to be good or not', async () => {
    await writeFile(archive, envelope);
    let goodPaddings = 0;
    for (let index = 0; index < 600; index++) {
      const key = wrongKey(index);
      try {
        preflightEnvelope(envelope.length, envelope.subarray(-32), key);
        goodPaddings++;
      } catch {
        // As for 255 of 256 keys.
      }
      await assert.rejects(openArchive(archive, key), KEY_WRONG, `key ${index}`);
    }
    assert.ok(goodPaddings > 0, 'no key gave a good padding');
  });

  it('is told as such for a compressed archive', async () => {
    await writeFile(archive, encryptBuffer(gzipSync(tar), KEY, IV));
    for (let index = 0; index < 50; index++) await assert.rejects(openArchive(archive, wrongKey(index)), KEY_WRONG);
  });

  it('is told in words that name no key', async () => {
    await writeFile(archive, envelope);
    await assert.rejects(
      openArchive(archive, Buffer.alloc(32, 'x')),
      (error) => error instanceof LoaderError && !/xxxx|kkkk|7878|6b6b/.test(error.message),
    );
  });

  it('is what it looks like when the content is no tar', async () => {
    for (const content of [Buffer.alloc(5000, 'x'), Buffer.alloc(5000), tar.subarray(100)]) {
      await assert.rejects(openBytes(encryptBuffer(content, KEY)), KEY_WRONG);
    }
  });
});

describe('a broken archive', () => {
  for (const length of [0, 1, 15, 16, 17, 31, 33, 47, envelope.length - 1, envelope.length - 8]) {
    it(`of ${length} bytes, which no envelope has, is refused, whatever the key`, async () => {
      const expected = { ...INVALID, message: new RegExp(`it has ${length} bytes`) };
      await assert.rejects(openBytes(envelope.subarray(0, length)), expected);
      await assert.rejects(openArchive(archive, wrongKey(0)), expected);
    });
  }

  it('of 32 bytes holds nothing', async () => {
    const none = encryptBuffer(Buffer.alloc(0), KEY, IV);
    assert.equal(none.length, 32);
    await assert.rejects(openBytes(none), { ...INVALID, message: /too short to hold an image/ });
    await assert.rejects(openBytes(none, wrongKey(0)), KEY_WRONG);
  });

  for (const length of [1, 16, 257, 511]) {
    it(`that holds ${length} bytes is too short, even if it begins like a tar`, async () => {
      const short = encryptBuffer(tar.subarray(0, length), KEY);
      await assert.rejects(openBytes(short), { ...INVALID, message: /too short to hold an image/ });
    });
  }

  it('that was cut in whole blocks has no good end, and the right key is not blamed', async () => {
    let refused = 0;
    for (let cut = 16; cut <= envelope.length - 1024; cut += 16) {
      const bytes = envelope.subarray(0, envelope.length - cut);
      try {
        preflightEnvelope(bytes.length, bytes.subarray(-32), KEY);
      } catch {
        refused++;
        await assert.rejects(openBytes(bytes), { ...INVALID, message: /its end is damaged or missing/ }, `${cut}`);
      }
    }
    assert.ok(refused > 100);
  });

  it('whose last byte is damaged is refused, plain and compressed', async () => {
    for (const plaintext of [tar, gzipSync(tar), zstdCompressSync(tar)]) {
      const sound = encryptBuffer(plaintext, KEY, IV);
      // The last byte of the block before the last changes the last byte of the padding.
      const bad = flipped(sound, sound.length - 17, 0x40);
      await assert.rejects(openBytes(bad), { ...INVALID, message: /its end is damaged or missing/ });
    }
  });

  it('whose first header is damaged is refused, and the right key is not blamed', async () => {
    // A bit of the IV is that bit of the first block; one of a later block scrambles it, and changes a bit of the next.
    for (const index of [0, 5, 15, 16 + 100, 16 + 400, 16 + 496]) {
      await assert.rejects(openBytes(flipped(envelope, index)), { ...INVALID, message: /first header is damaged/ });
    }
  });

  it('is closed, so that nothing of it is left open', async () => {
    for (const bytes of [envelope.subarray(0, 100), flipped(envelope, 0), encryptBuffer(Buffer.alloc(900), KEY)]) {
      await assert.rejects(openBytes(bytes));
    }
    assert.deepEqual(
      openFiles().filter((name) => name.includes(folder)),
      [],
    );
  });
});

describe('a failure while an archive is read', () => {
  let open: OpenArchive;
  beforeEach(async () => {
    open = await openBytes(envelope);
  });
  afterEach(async () => {
    await open[Symbol.asyncDispose]();
  });

  const cut = new EndOfFileError();
  const broken = archiveError('a layer in it is wrong');

  it('is told as it is when the archive is what it was', async () => {
    assert.equal(await open.explain(broken), broken);
  });

  it('is a fault of the archive when its file ended early', async () => {
    const told = async () => {
      throw await open.explain(cut);
    };
    await assert.rejects(told, { ...INVALID, cause: cut, message: /its file was cut while it was read/ });
  });

  it('is told as a change when the archive was cut, replaced or removed meanwhile', async () => {
    await truncate(archive, 1024);
    for (const error of [cut, broken]) assert.ok(hasErrorCode(await open.explain(error), 'archive_changed'));
    await rm(archive);
    for (const error of [cut, broken]) assert.ok(hasErrorCode(await open.explain(error), 'archive_changed'));
  });

  it('of another kind stays what it is, whatever became of the archive', async () => {
    await rm(archive);
    for (const error of [new Error('x'), new LoaderError('engine_error', 'The Docker engine refused: x')]) {
      assert.equal(await open.explain(error), error);
    }
  });
});

describe('the identity of an archive', () => {
  let identity: ArchiveIdentity;
  let opened: OpenArchive;
  beforeEach(async () => {
    await writeFile(archive, envelope);
    identity = await readArchiveIdentity(archive);
    opened = await openArchive(archive, KEY);
  });
  afterEach(async () => {
    await opened[Symbol.asyncDispose]();
  });

  it('is length, time and IV, without the key', () => {
    assert.deepEqual(identity, { length: envelope.length, modifiedNs: identity.modifiedNs, iv: IV.toString('hex') });
    assert.match(identity.modifiedNs, /^\d{19}$/);
    assert.deepEqual(opened.identity, identity);
  });

  it('is that of a file that is shorter than an IV too', async () => {
    await writeFile(archive, 'abc');
    const { length, iv } = await readArchiveIdentity(archive);
    assert.deepEqual([length, iv], [3, '616263']);
  });

  it('is the same only when all of it is', () => {
    assert.ok(isSameArchive(identity, { ...identity }));
    assert.ok(!isSameArchive(identity, { ...identity, length: identity.length + 16 }));
    assert.ok(!isSameArchive(identity, { ...identity, modifiedNs: `${identity.modifiedNs}0` }));
    assert.ok(!isSameArchive(identity, { ...identity, iv: 'ff'.repeat(16) }));
  });

  it('stands while nothing happens to it, even when it is renamed and put back', async () => {
    await opened.assertUnchanged();
    await rename(archive, `${archive}.old`);
    await assert.rejects(opened.assertUnchanged(), CHANGED);
    await rename(`${archive}.old`, archive);
    await opened.assertUnchanged();
  });

  it('does not stand when the archive is replaced, cut, touched or removed', async () => {
    const modified = new Date(Number(identity.modifiedNs) / 1e6);
    // Of the same length and, as far as that can be set, of the same time.
    await writeFile(archive, encryptBuffer(tar, KEY));
    await utimes(archive, modified, modified);
    await assert.rejects(opened.assertUnchanged(), CHANGED);
    await writeFile(archive, envelope.subarray(0, 1000));
    await assert.rejects(opened.assertUnchanged(), CHANGED);
    await writeFile(archive, envelope);
    await utimes(archive, 1, 1);
    await assert.rejects(opened.assertUnchanged(), CHANGED);
    await rm(archive);
    await assert.rejects(opened.assertUnchanged(), CHANGED);
  });

  it('is not said to have changed when it cannot be read', async () => {
    await rm(archive);
    await mkdir(archive);
    await assert.rejects(readArchiveIdentity(archive), UNREADABLE);
    await assert.rejects(opened.assertUnchanged(), UNREADABLE);
  });
});

describe('whether there is an archive', () => {
  it('is so for a file, and for nothing else', async () => {
    assert.equal(await archiveExists(archive), false);
    await assert.rejects(archiveExists(folder), UNREADABLE);
    await writeFile(archive, '');
    assert.equal(await archiveExists(archive), true);
    assert.equal(await archiveExists(path.join(archive, 'below')), false);
  });

  it('is an error when it cannot be told', async () => {
    await symlink('circle', path.join(folder, 'circle'));
    await assert.rejects(archiveExists(path.join(folder, 'circle')), UNREADABLE);
  });
});

/** Paths of what this process has open; none where the system does not tell. */
function openFiles(): string[] {
  const fds = '/proc/self/fd';
  if (!existsSync(fds)) return [];
  return readdirSync(fds).flatMap((fd) => {
    try {
      return [readlinkSync(path.join(fds, fd))];
    } catch {
      return []; // That of the folder itself is closed again.
    }
  });
}
