import { mkdtemp, open, readdir, readlink, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { sha256 } from '../../lab/sha256.ts';
import { eventually } from '../../lab/waiting.ts';
import { BigPartCache } from '../../src/cache/big-part-cache.ts';
import type { ChunkDigests, CopyRecord } from '../../src/cache/copy-record.ts';
import type { CacheEntry } from '../../src/cache/cache-entry.ts';
import { createLogger, type Logger } from '../../src/log/logger.ts';
import { NEVER } from '../../src/async/abort.ts';
import { CHUNK_LENGTH } from '../../src/manifest/chunk-digester.ts';
import type { ResourceName } from '../../src/resource-name.ts';

const WAIT_MS = 10_000;

/** A cache in a temporary folder of its own. */
export class CacheFolder {
  /** What `root` lies in, and what `remove` removes. */
  readonly base: string;
  readonly root: string;
  readonly logger: Logger;
  readonly cache: BigPartCache;

  private constructor(base: string) {
    this.base = base;
    this.root = path.join(base, 'models');
    this.logger = createLogger({ level: 'silent' });
    this.cache = new BigPartCache(this.root, path.join(base, 'state'), this.logger);
  }

  static async create(): Promise<CacheFolder> {
    return new CacheFolder(await mkdtemp(path.join(tmpdir(), 'loader-cache-')));
  }

  /** Fails when something of it stays open. */
  async remove(): Promise<void> {
    await this.closed();
    await rm(this.base, { recursive: true, force: true, maxRetries: 10 });
  }

  /** Waits until nothing of it is open; fails when something stays open. */
  async closed(): Promise<void> {
    // Between two copies, the background has nothing open.
    let seenClosed = 0;
    const isClosed = async () => (seenClosed = (await this.openFiles()).length === 0 ? seenClosed + 1 : 0) === 5;
    await eventually(isClosed, { timeoutMs: WAIT_MS, pollMs: 1, what: 'the end of all work in the cache' });
  }

  /** The path of a file in the resource folder `models`, or in another. */
  path(file: string, folder = 'models'): string {
    return path.join(this.root, folder, file);
  }

  async names(folder = 'models'): Promise<string[]> {
    return (await readdir(path.join(this.root, folder))).sort();
  }

  /** Publishes with the digests of the content, unless the record has others. */
  async publish(part: ResourceName, content: string | Buffer, record?: Partial<CopyRecord>): Promise<void> {
    await this.publishOnly(part, content, { chunks: digestsOf(Buffer.from(content)), ...record });
  }

  /** Publishes as a Loader of an earlier version: without digests. */
  async publishOnly(part: ResourceName, content: string | Buffer, record?: Partial<CopyRecord>): Promise<void> {
    const bytes = Buffer.from(content);
    await using draft = await this.cache.createDraft();
    await draft.write(bytes, 0);
    await this.cache.publish(part, draft, { bigLength: bytes.length, smallSha256: 'ab'.repeat(32), ...record });
  }

  async has(file: string, folder?: string): Promise<boolean> {
    return await stat(this.path(file, folder)).then(
      () => true,
      () => false,
    );
  }

  /** What the record of a copy tells; undefined when there is none. */
  async record(part: ResourceName = { folder: 'models', name: 'm' }): Promise<CopyRecord | undefined> {
    await using copy = await this.cache.open(part);
    return copy?.record;
  }

  async entries(): Promise<CacheEntry[]> {
    return await Array.fromAsync(this.cache.list(NEVER));
  }

  /** The one entry with this file name. */
  async entry(file: string): Promise<CacheEntry> {
    const [found, ...others] = (await this.entries()).filter((entry) => entry.file === file);
    if (found === undefined || others.length > 0) throw new Error(`there is not one ${file}`);
    return found;
  }

  /** Changes the byte at `position`. */
  async flip(file: string, position: number): Promise<void> {
    await using handle = await open(this.path(file), 'r+');
    const byte = Buffer.alloc(1);
    await handle.read(byte, 0, 1, position);
    await handle.write(Buffer.from([(byte[0] ?? 0) ^ 1]), 0, 1, position);
  }

  /** What this process has open under `base`. */
  async openFiles(): Promise<string[]> {
    const descriptors = await readdir('/proc/self/fd');
    const targets = await Promise.all(descriptors.map((fd) => readlink(`/proc/self/fd/${fd}`).catch(() => '')));
    return targets.filter((target) => target.startsWith(this.base));
  }
}

/** The digests of a content, in chunks of `chunkLength`. */
export function digestsOf(content: Buffer, chunkLength = CHUNK_LENGTH): ChunkDigests {
  const chunkSha256: string[] = [];
  for (let start = 0; start < content.length; start += chunkLength) {
    chunkSha256.push(sha256(content.subarray(start, start + chunkLength)));
  }
  return { chunkLength, chunkSha256 };
}
