import assert from 'node:assert/strict';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { readArchiveIdentity } from '../../../src/archive/open-archive.ts';
import { NEVER } from '../../../src/async/abort.ts';
import type { UnlockedArchive } from '../../../src/binary-split/unlock-archive.ts';
import type { EngineImage, SoughtImage } from '../../../src/docker/docker-engine.ts';
import { LoaderError } from '../../../src/errors.ts';
import { Presence } from '../../../src/unlock/presence.ts';
import { formatReceipt, MAX_RECEIPT_LENGTH } from '../../../src/unlock/receipt.ts';

const IMAGES = [
  { id: `sha256:${'aa'.repeat(32)}`, tags: ['azaion/api:1'] },
  { id: `sha256:${'bb'.repeat(32)}`, tags: ['azaion/worker:1', 'azaion/worker:latest'] },
];

/** An engine of these tags. */
class Engine {
  readonly tags = new Map(IMAGES.flatMap(({ id, tags }) => tags.map((tag) => [tag, id] as const)));
  isDown = false;

  async findImage({ id, tags }: SoughtImage): Promise<string | undefined> {
    await this.#answer();
    return tags.every((tag) => this.tags.get(tag) === id) ? id : undefined;
  }

  async inspectImage(name: string): Promise<EngineImage | undefined> {
    await this.#answer();
    const id = this.tags.get(name);
    return id === undefined ? undefined : { id, diffIds: [], config: {} };
  }

  #answer(): Promise<void> {
    return this.isDown ? Promise.reject(new LoaderError('engine_unreachable', 'no')) : Promise.resolve();
  }
}

let folder: string;
let archivePath: string;
let engine: Engine;
let receiptPath: string;

beforeEach(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'loader-presence-'));
  archivePath = path.join(folder, 'images.enc');
  await writeFile(archivePath, Buffer.alloc(64, 1));
  engine = new Engine();
  receiptPath = path.join(folder, 'receipt.json');
  await writeReceipt({ identity: await readArchiveIdentity(archivePath), images: IMAGES });
});

afterEach(async () => {
  await rm(folder, { recursive: true, force: true });
});

async function writeReceipt(loaded: UnlockedArchive): Promise<void> {
  await writeFile(receiptPath, formatReceipt(loaded));
}

async function isLoaded(serviceImages: readonly string[] = []): Promise<boolean> {
  const presence = new Presence({
    engine,
    archivePath,
    receiptPath,
    serviceImages,
    apiVersion: '1',
  });
  return await presence.isLoaded(NEVER);
}

const SERVICES = ['azaion/api', 'azaion/worker'];

describe('a release whose archive is there', () => {
  it('is loaded when the receipt is of this archive and the engine has each image under all of its tags', async () => {
    assert.equal(await isLoaded(), true);
    assert.equal(await isLoaded(SERVICES), true);
    engine.tags.set('azaion/worker:latest', 'sha256:another');
    assert.equal(await isLoaded(), false);
    assert.equal(await isLoaded(SERVICES), false);
  });

  it('is not loaded without a receipt, whatever tags the engine has: they may be of another release', async () => {
    await rm(receiptPath);
    assert.equal(await isLoaded(SERVICES), false);
  });

  it("is not loaded when the receipt makes no sense or can't be read", async () => {
    const text = await readFile(receiptPath, 'utf8');
    await writeFile(receiptPath, text.padEnd(MAX_RECEIPT_LENGTH));
    assert.equal(await isLoaded(SERVICES), true);
    await writeFile(receiptPath, text.padEnd(MAX_RECEIPT_LENGTH + 1));
    assert.equal(await isLoaded(SERVICES), false);
    await writeFile(receiptPath, text.slice(0, -1));
    assert.equal(await isLoaded(SERVICES), false);
    await rm(receiptPath);
    await mkdir(receiptPath);
    assert.equal(await isLoaded(SERVICES), false);
  });

  it("is an error where the archive can't be read", async () => {
    archivePath = folder;
    await assert.rejects(isLoaded(), { name: 'LoaderError', code: 'archive_unreadable' });
  });

  it('is not loaded when the receipt is of another archive', async () => {
    await writeFile(archivePath, Buffer.alloc(64, 2));
    assert.equal(await isLoaded(SERVICES), false);
  });
});

describe('a release whose archive was removed', () => {
  beforeEach(async () => {
    await rm(archivePath);
  });

  it('is loaded when the engine has the images of the receipt', async () => {
    assert.equal(await isLoaded(), true);
    engine.tags.delete('azaion/api:1');
    assert.equal(await isLoaded(), false);
  });

  it('is loaded when the engine has the SERVICE_IMAGES, without a receipt', async () => {
    await rm(receiptPath);
    assert.equal(await isLoaded(SERVICES), true);
    assert.equal(await isLoaded([...SERVICES, 'azaion/other']), false);
    assert.equal(await isLoaded(), false);
  });

  it('cannot be told while the engine is down', async () => {
    engine.isDown = true;
    await assert.rejects(isLoaded(), { code: 'engine_unreachable' });
  });
});
