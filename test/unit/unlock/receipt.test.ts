import assert from 'node:assert/strict';
import { mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import type { UnlockedArchive } from '../../../src/binary-split/unlock-archive.ts';
import { Receipt } from '../../../src/unlock/receipt.ts';

const digest = (pair: string) => `sha256:${pair.repeat(32)}`;
const FILE = 'unlock-receipt.json';
const LOADED: UnlockedArchive = {
  identity: { length: 123_456_789_012, modifiedNs: '1700000000123456789', iv: '07'.repeat(16) },
  images: [
    { id: digest('aa'), tags: ['azaion/api:1', 'azaion/api:latest'] },
    { id: digest('bb'), tags: [] },
  ],
};

let folder = '';
let receipt: Receipt;

beforeEach(async () => {
  folder = path.join(await mkdtemp(path.join(tmpdir(), 'loader-receipt-')), 'state', 'deep');
  receipt = new Receipt(folder);
});

afterEach(async () => {
  await rm(path.resolve(folder, '../..'), { recursive: true, force: true });
});

async function readBack(text: string | Buffer): Promise<UnlockedArchive | undefined> {
  await mkdir(folder, { recursive: true });
  await writeFile(path.join(folder, FILE), text);
  return await new Receipt(folder).read();
}

describe('a receipt', () => {
  it('is read as it was written, by whoever comes later', async () => {
    await receipt.write(LOADED);
    const read = await new Receipt(folder).read();
    assert.deepEqual([read?.identity, read?.images], [LOADED.identity, LOADED.images]);
  });

  it('is none before the first one was written, and makes no folder', async () => {
    assert.equal(await receipt.read(), undefined);
    await assert.rejects(stat(folder), { code: 'ENOENT' });
  });

  it('takes the place of the earlier one, and leaves nothing beside it', async () => {
    await receipt.write(LOADED);
    await receipt.write({ ...LOADED, images: [{ id: digest('cc'), tags: ['x:1'] }] });
    assert.deepEqual((await receipt.read())?.images, [{ id: digest('cc'), tags: ['x:1'] }]);
    assert.deepEqual(await readdir(folder), [FILE]);
  });

  it('is written over what a Loader left that was killed in the middle of it', async () => {
    await mkdir(folder, { recursive: true });
    await writeFile(path.join(folder, `.${FILE}.part`), '{"version": 1, "identi');
    assert.equal(await receipt.read(), undefined);
    await receipt.write(LOADED);
    assert.deepEqual((await receipt.read())?.images, LOADED.images);
    assert.deepEqual(await readdir(folder), [FILE]);
  });

  it('is readable by its owner only', async () => {
    await receipt.write(LOADED);
    assert.equal((await stat(path.join(folder, FILE))).mode & 0o777, 0o600);
  });

  it('that cannot be written leaves the earlier one, and nothing beside it', async () => {
    await mkdir(path.join(folder, FILE), { recursive: true });
    await assert.rejects(receipt.write(LOADED));
    assert.deepEqual(await readdir(folder), [FILE]);
    assert.equal(await receipt.read(), undefined);
  });

  it('fails to be written where its folder cannot be made', async () => {
    await mkdir(path.dirname(folder), { recursive: true });
    await writeFile(folder, 'a file');
    await assert.rejects(receipt.write(LOADED), { code: 'ENOTDIR' });
    assert.equal(await receipt.read(), undefined);
  });

  it('is none wherever it is cut', async () => {
    await receipt.write(LOADED);
    const text = await readFile(path.join(folder, FILE));
    for (let length = 0; length < text.length; length++) {
      assert.equal(await readBack(text.subarray(0, length)), undefined, `${length} bytes`);
    }
    assert.ok(await readBack(text));
  });

  const sound = { version: 1, ...LOADED };
  for (const [what, value] of [
    ['null', null],
    ['a number', 5],
    ['a list', [sound]],
    ['text', 'x'],
    ['no version', LOADED],
    ['an older version', { ...sound, version: 0 }],
    ['a newer version', { ...sound, version: 2 }],
    ['a version that is text', { ...sound, version: '1' }],
    ['no identity', { ...sound, identity: undefined }],
    ['null for an identity', { ...sound, identity: null }],
    ['no length', { ...sound, identity: { ...LOADED.identity, length: undefined } }],
    ['a length that is text', { ...sound, identity: { ...LOADED.identity, length: '5' } }],
    ['a time that is a number', { ...sound, identity: { ...LOADED.identity, modifiedNs: 5 } }],
    ['no IV', { ...sound, identity: { ...LOADED.identity, iv: undefined } }],
    ['no images', { ...sound, images: undefined }],
    ['an empty list of images', { ...sound, images: [] }],
    ['images that are no list', { ...sound, images: { length: 1 } }],
    ['null for an image', { ...sound, images: [null] }],
    ['an ID that is no digest', { ...sound, images: [{ id: `sha256:${'ag'.repeat(32)}`, tags: [] }] }],
    ['a tag that Docker refuses', { ...sound, images: [{ id: digest('aa'), tags: ['azaion/aPi:1'] }] }],
    ['a length that is no whole number', { ...sound, identity: { ...LOADED.identity, length: 1.5 } }],
    ['a time that is no number', { ...sound, identity: { ...LOADED.identity, modifiedNs: '17:0' } }],
    ['an IV that is no hex', { ...sound, identity: { ...LOADED.identity, iv: '0w'.repeat(16) } }],
    ['an image without an ID', { ...sound, images: [{ tags: [] }] }],
    ['an image without tags', { ...sound, images: [{ id: digest('aa') }] }],
    ['a tag that is no text', { ...sound, images: [...LOADED.images, { id: digest('aa'), tags: ['a:1', 1] }] }],
  ] as const) {
    it(`is none with, or as, ${what}`, async () => assert.equal(await readBack(JSON.stringify(value)), undefined));
  }

  it('may have more than is needed', async () => {
    assert.ok(await readBack(JSON.stringify({ ...sound, more: 1 })));
  });

  it('is none when it is larger than 4 MiB', async () => {
    const text = JSON.stringify(sound);
    assert.ok(await readBack(text.padEnd(4 * 1024 * 1024)));
    assert.equal(await readBack(text.padEnd(4 * 1024 * 1024 + 1)), undefined);
  });
});
