import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { readArchiveIdentity } from '../../../src/archive/open-archive.ts';
import { NEVER } from '../../../src/async/abort.ts';
import type { UnlockedArchive } from '../../../src/binary-split/unlock-archive.ts';
import { LoaderError } from '../../../src/errors.ts';
import { Presence } from '../../../src/unlock/presence.ts';

const IMAGES = [
  { id: 'sha256:aa', tags: ['azaion/api:1'] },
  { id: 'sha256:bb', tags: [] },
];

let folder = '';
let archivePath = '';
/** What the engine has: names, and IDs. */
let present: Set<string>;
let receipt: UnlockedArchive | undefined;

beforeEach(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'loader-presence-'));
  archivePath = path.join(folder, 'images.enc');
  await writeFile(archivePath, 'the archive of this release');
  present = new Set();
  receipt = undefined;
});

afterEach(async () => {
  await rm(folder, { recursive: true, force: true });
});

async function isLoaded(serviceImages: readonly string[] = []): Promise<boolean> {
  const presence = new Presence({
    engine: {
      findImage: ({ id }) => Promise.resolve(present.has(id) ? id : undefined),
      inspectImage: (name) => Promise.resolve(present.has(name) ? { id: name, diffIds: [] } : undefined),
    },
    receipt: { read: () => Promise.resolve(receipt) },
    archivePath,
    serviceImages,
    apiVersion: '1',
  });
  return await presence.isLoaded(NEVER);
}

async function haveReceipt(): Promise<void> {
  receipt = { identity: await readArchiveIdentity(archivePath), images: IMAGES };
}

describe('a release without named service images', () => {
  it('is loaded when the engine has every image of the receipt', async () => {
    await haveReceipt();
    for (const { id } of IMAGES) present.add(id);
    assert.equal(await isLoaded(), true);
    present.delete('sha256:bb');
    assert.equal(await isLoaded(), false);
  });

  it('is not loaded without a receipt, whatever the engine has', async () => {
    for (const { id } of IMAGES) present.add(id);
    assert.equal(await isLoaded(), false);
  });

  it('is not loaded when the receipt is that of another archive', async () => {
    await haveReceipt();
    for (const { id } of IMAGES) present.add(id);
    await writeFile(archivePath, 'the archive of the next release');
    assert.equal(await isLoaded(), false);
  });

  it('is loaded also when its archive was removed since', async () => {
    await haveReceipt();
    for (const { id } of IMAGES) present.add(id);
    await rm(archivePath);
    assert.equal(await isLoaded(), true);
  });

  it("is an error where the archive can't be read", async () => {
    await haveReceipt();
    archivePath = folder;
    await assert.rejects(isLoaded(), (error) => error instanceof LoaderError && error.code === 'archive_unreadable');
  });
});

describe('a release with named service images', () => {
  const SERVICES = ['azaion/api', 'azaion/db'];

  it('is loaded when the engine has each of them in this version, without a receipt too', async () => {
    present.add('azaion/api:1').add('azaion/db:2');
    assert.equal(await isLoaded(SERVICES), false);
    present.add('azaion/db:1');
    assert.equal(await isLoaded(SERVICES), true);
  });

  it('is not loaded when the receipt tells that the tags are of another archive', async () => {
    present.add('azaion/api:1').add('azaion/db:1');
    await haveReceipt();
    assert.equal(await isLoaded(SERVICES), true);
    await writeFile(archivePath, 'the archive of the next release');
    assert.equal(await isLoaded(SERVICES), false);
  });
});
