import assert from 'node:assert/strict';
import { mkdir, mkdtemp, rename, rm, symlink, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
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

const KEY = Buffer.alloc(32, 'k');
const IV = Buffer.alloc(16, 7);
const UNREADABLE = { name: 'LoaderError', code: 'archive_unreadable' };
const CHANGED = { name: 'LoaderError', code: 'archive_changed' };

const tar = saveImages([makeImage({ tags: ['azaion/api:1'], layers: [makeLayer({ a: 'A' })] })]);
const envelope = encryptBuffer(tar, KEY, IV);

let folder = '';
let archive = '';

beforeEach(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'loader-identity-'));
  archive = path.join(folder, 'images.enc');
});

afterEach(async () => {
  await rm(folder, { recursive: true, force: true });
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
