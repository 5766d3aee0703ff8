import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdtemp, readdir, readFile, readlink, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { digestChunks, sha256, type ChunksDigest } from '../../lab/sha256.ts';
import { unlessAborted } from '../../src/async/abort.ts';
import type { Patience } from '../../src/async/outage.ts';
import type { RangeReading } from '../../src/cdn/object-reader.ts';
import { WorkMemory } from '../../src/files/work-memory.ts';
import type { BigPartCache } from '../../src/cache/big-part-cache.ts';
import type { CdnObject, S3CdnManager } from '../../src/cdn/s3-cdn-manager.ts';
import { DraftFile } from '../../src/files/draft-file.ts';
import { readFileChunks } from '../../src/files/file-chunks.ts';
import { createLogger } from '../../src/log/logger.ts';
import type { ResourceName } from '../../src/resource-name.ts';
import { ChunkPool } from '../../src/resources/chunk-pool.ts';
import type { Follower } from '../../src/resources/follower.ts';
import type { TransferSource } from '../../src/resources/transfer-source.ts';

export const MIB = 1024 * 1024;
/** Three ranges: two of 8 MiB, and one of 1 MiB and a bit. */
export const CONTENT = randomBytes(17 * MIB + 123);
export const SOURCE_RECORD = { bigLength: CONTENT.length, smallSha256: 'ab'.repeat(32) };
export const OBJECT: CdnObject = {
  bucket: 'b',
  key: 'k',
  etag: '"1"',
  modifiedMs: undefined,
  versionId: undefined,
  length: CONTENT.length,
  smallSha256: SOURCE_RECORD.smallSha256,
  hasManifest: false,
  tail: Buffer.alloc(0),
};
export const PATIENCE: Patience = { limitMs: 2000, setting: 'STALL_TIMEOUT_MS' };
const CHUNK_LENGTH = 300_000;

/** A CDN without a network: it serves `CONTENT`, as far as the test lets it. */
export class FakeCdn implements Pick<S3CdnManager, 'readRange'> {
  readonly ranges: [start: number, end: number][] = [];
  readonly aborted: unknown[] = [];
  /** Called before each chunk; the bytes from this position on wait for it. */
  beforeChunk: (position: number) => Promise<void> = () => Promise.resolve();

  async *readRange(
    object: CdnObject,
    start: number,
    end: number,
    { signal, outage }: RangeReading,
  ): AsyncGenerator<Buffer, void, undefined> {
    assert.equal(object.key, OBJECT.key);
    this.ranges.push([start, end]);
    for (let position = start; position < end;) {
      try {
        await unlessAborted(this.beforeChunk(position), signal);
      } catch (error) {
        if (signal.aborted) this.aborted.push(signal.reason);
        await outage.waitOrThrow(error, signal);
        continue;
      }
      outage.progress();
      yield CONTENT.subarray(position, Math.min(end, position + CHUNK_LENGTH));
      position += CHUNK_LENGTH;
    }
  }

  /** Holds back all chunks from `position` on, until the call of what it returns. */
  holdFrom(position: number): () => void {
    const gate = Promise.withResolvers<undefined>();
    this.beforeChunk = async (chunkPosition) => {
      if (chunkPosition >= position) await gate.promise;
    };
    return () => gate.resolve(undefined);
  }

  /** Holds back the first range, until the call of what it returns. */
  holdFirstRange(): () => void {
    const gate = Promise.withResolvers<undefined>();
    this.beforeChunk = async (position) => {
      if (position < 8 * MIB) await gate.promise;
    };
    return () => gate.resolve(undefined);
  }
}

/** The cache's part in a transfer: drafts in a folder of its own, and one place to publish them. */
export class FakeCache implements Pick<BigPartCache, 'createDraft' | 'publish'> {
  readonly folder: string;
  readonly published: Buffer[] = [];
  /** Called before a draft is made, with what it is made of; before a publication; and with each new draft. */
  beforeCreate: () => Promise<void> = () => Promise.resolve();
  beforePublish: () => Promise<void> = () => Promise.resolve();
  onDraft: (draft: DraftFile) => Promise<void> = () => Promise.resolve();
  #drafts = 0;

  private constructor(folder: string) {
    this.folder = folder;
  }

  static async create(): Promise<FakeCache> {
    return new FakeCache(await mkdtemp(path.join(tmpdir(), 'loader-transfer-')));
  }

  async createDraft(): Promise<DraftFile> {
    await this.beforeCreate();
    const draft = await DraftFile.create(path.join(this.folder, `${this.#drafts++}.part`));
    await this.onDraft(draft);
    return draft;
  }

  async publish(_resource: ResourceName, file: DraftFile): Promise<void> {
    await this.beforePublish();
    const target = path.join(this.folder, 'model.big');
    await file.publish(target);
    this.published.push(await readFile(target));
  }

  async files(): Promise<string[]> {
    return await readdir(this.folder);
  }

  /** Fails when an unfinished or an open file is left. */
  async remove(): Promise<void> {
    const unfinished = (await this.files()).filter((name) => name.endsWith('.part'));
    const open = await this.#openFiles();
    await rm(this.folder, { recursive: true, force: true });
    assert.deepEqual({ unfinished, open }, { unfinished: [], open: [] });
  }

  async #openFiles(): Promise<string[]> {
    const descriptors = await readdir('/proc/self/fd');
    const targets = await Promise.all(descriptors.map((fd) => readlink(`/proc/self/fd/${fd}`).catch(() => '')));
    return targets.filter((target) => target.startsWith(this.folder));
  }
}

/** A CDN and a cache, between which transfers run. */
export class TransferLab {
  readonly cdn = new FakeCdn();
  readonly cache: FakeCache;
  readonly memory = new WorkMemory(16 * MIB);
  readonly pool = new ChunkPool({ threads: 1 });
  readonly logger = createLogger({ level: 'silent' });

  private constructor(cache: FakeCache) {
    this.cache = cache;
  }

  static async create(): Promise<TransferLab> {
    return new TransferLab(await FakeCache.create());
  }

  source(changes: Partial<TransferSource> = {}): TransferSource {
    const resource = { folder: 'models', name: 'model' };
    const pair = { confirm: () => Promise.resolve() };
    return { cdn: this.cdn, object: OBJECT, resource, record: SOURCE_RECORD, pair, ...changes };
  }
}

export const WHOLE: ChunksDigest = { sha256: sha256(CONTENT), length: CONTENT.length };

/** The bytes of the draft, as far as they are there, and then as they come. */
export async function* chunksOf(follower: Follower): AsyncGenerator<Buffer, void, undefined> {
  const { handle } = await follower.file();
  yield* readFileChunks(handle, 0, CONTENT.length, 256 * 1024, { growth: follower });
}

/** Reads all as a caller would, and leaves. */
export async function readAll(follower: Follower): Promise<ChunksDigest> {
  await using reader = follower;
  return await digestChunks(chunksOf(reader));
}

/** Waits until the cache has all as a caller would, and leaves. It returns what the transfer reported. */
export async function storeAll(follower: Follower): Promise<number[]> {
  await using waiter = follower;
  return await Array.fromAsync(waiter.stored(), ({ bytes }) => bytes);
}
