import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { gzipSync } from 'node:zlib';
import { makeImage, makeLayer, saveImages, seededBytes } from '../../../lab/images/image-maker.ts';
import { NEVER } from '../../../src/async/abort.ts';
import { unlockArchive, type UnlockedArchive, type UnlockEngine } from '../../../src/binary-split/unlock-archive.ts';
import { ImageLoadProgress } from '../../../src/binary-split/unlock-progress.ts';
import type {
  EngineImage,
  EngineTraits,
  LayerProgress,
  LoadBody,
  SoughtImage,
} from '../../../src/docker/docker-engine.ts';
import { LoaderError } from '../../../src/errors.ts';
import { encryptBuffer } from '../../../src/security/envelope-cipher.ts';

const KEY = Buffer.alloc(32, 'k');
const base = makeLayer({ base: seededBytes('base', 50_000) });
const api = makeImage({ tags: ['api:1'], layers: [base, makeLayer({ api: 'api' })] });
const db = makeImage({ tags: ['db:1'], layers: [base, makeLayer({ db: 'db' })] });
const tar = saveImages([api, db]);

/** An engine that takes tars, and knows the images whose configs were in them. */
class Engine implements UnlockEngine {
  readonly calls: string[] = [];
  readonly ids = new Set<string>();
  identifiesByManifest = false;
  /** It has images that are the same by all but their IDs. */
  hasSameLayers = false;
  /** What the engine does with an image that it is to remove. */
  remove: (id: string) => void = () => undefined;
  takesImages = true;
  sharedIds: readonly string[] = [];

  connect(): Promise<void> {
    this.calls.push('connect');
    return Promise.resolve();
  }

  traits(): ReturnType<UnlockEngine['traits']> {
    return Promise.resolve({ needsEveryLayer: false, identifiesByManifest: this.identifiesByManifest });
  }

  findImage({ id }: SoughtImage, { identifiesByManifest }: EngineTraits): Promise<string | undefined> {
    if (identifiesByManifest && this.hasSameLayers) return Promise.resolve('sha256:another');
    return Promise.resolve(this.ids.has(id) ? id : undefined);
  }

  inspectImages(): Promise<EngineImage[]> {
    return Promise.resolve([]);
  }

  listImages(): Promise<string[]> {
    return Promise.resolve([...this.sharedIds]);
  }

  async removeImage(id: string): Promise<void> {
    this.calls.push(`remove ${id}`);
    await Promise.resolve();
    this.remove(id);
  }

  async *load({ chunks }: LoadBody): AsyncGenerator<LayerProgress, void, undefined> {
    this.calls.push('load');
    const pieces: Buffer[] = [];
    for await (const chunk of chunks) pieces.push(Buffer.from(chunk));
    yield { layerId: 'a layer', current: 1 };
    const got = Buffer.concat(pieces);
    // Shared layers have a config of their own, which no test looks for.
    for (const name of got.toString('latin1').match(/[0-9a-f]{64}(?=\.json)/g) ?? []) {
      if (this.takesImages) this.ids.add(`sha256:${name}`);
    }
  }
}

let folder = '';
let engine: Engine;

beforeEach(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'loader-unlock-archive-'));
  engine = new Engine();
});

afterEach(async () => {
  await rm(folder, { recursive: true, force: true });
});

async function unlock(content: Buffer): Promise<UnlockedArchive> {
  const archivePath = path.join(folder, 'images.enc');
  await writeFile(archivePath, encryptBuffer(content, KEY));
  const progress = new ImageLoadProgress();
  const rest = { engine, parallelism: 1, stallTimeoutMs: 5_000, progress, signal: NEVER };
  return await unlockArchive({ path: archivePath, aesKey: KEY, ...rest });
}

const UNLOCKED = [
  { id: api.id, tags: api.tags },
  { id: db.id, tags: db.tags },
];

describe('an archive that is unlocked', () => {
  it('brings its images into the engine', async () => {
    assert.deepEqual((await unlock(tar)).images, UNLOCKED);
    // The base, and an image each.
    assert.deepEqual(engine.calls, ['connect', 'load', 'load', 'load']);
  });

  it('is not sent when the engine has its images', async () => {
    for (const { id } of [api, db]) engine.ids.add(id);
    assert.deepEqual((await unlock(tar)).images, UNLOCKED);
    assert.deepEqual(engine.calls, ['connect']);
  });

  it('is sent when the engine has the same layers only, of an earlier release maybe', async () => {
    engine.identifiesByManifest = true;
    engine.hasSameLayers = true;
    await unlock(tar);
    assert.ok(engine.calls.includes('load'));
  });

  it('is not announced to the engine when its index is broken', async () => {
    const broken = saveImages([api, db]);
    broken.write('[]', broken.indexOf('[{"Config"'), 'latin1');
    await assert.rejects(unlock(broken), { code: 'archive_invalid' });
    assert.deepEqual(engine.calls, []);
  });

  for (const [what, content] of [
    ['at random', tar],
    ['as a stream', gzipSync(tar)],
  ] as const) {
    it(`fails when the engine says nothing wrong but lacks its images: ${what}`, async () => {
      engine.takesImages = false;
      await assert.rejects(unlock(content), { code: 'engine_image_missing' });
    });
  }
});

describe('the images that held shared layers', () => {
  it('are removed, and one that cannot be removed stays', async () => {
    engine.sharedIds = ['sha256:used', 'sha256:free'];
    engine.remove = (id) => {
      if (id === 'sha256:used') throw new LoaderError('engine_error', 'The image is being used.');
    };
    assert.deepEqual((await unlock(tar)).images, UNLOCKED);
    assert.deepEqual(engine.calls.slice(-2), ['remove sha256:used', 'remove sha256:free']);
  });

  it('fail the unlock when the engine does not answer', async () => {
    engine.sharedIds = ['sha256:free'];
    engine.remove = () => {
      throw new LoaderError('engine_unreachable', 'No engine listens.');
    };
    await assert.rejects(unlock(tar), { code: 'engine_unreachable' });
  });
});
