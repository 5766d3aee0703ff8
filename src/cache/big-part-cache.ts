import { createHash, randomUUID } from 'node:crypto';
import { constants } from 'node:fs';
import { lstat, mkdir, open, readdir, readFile, rename, rm, type FileHandle } from 'node:fs/promises';
import path from 'node:path';
import { hasErrorCode, LoaderError, systemErrorCode } from '../errors.ts';
import type { Logger } from '../logger.ts';
import { PartFile, syncFolder } from '../transfer/part-file.ts';
import { isSafeSegment, resolveFolderUnder } from './safe-path.ts';

/** Where a big part belongs. */
export interface BigPartName {
  readonly folder: string;
  /** Of the resource, without `.big`. */
  readonly name: string;
}

/** What a published big part was paired with; stands beside it as `<name>.big.json`. */
export interface BigPartRecord {
  /** Bytes of the big part. */
  readonly bigLength: number;
  /** SHA-256, hex, of the small part that belongs to the same envelope. */
  readonly smallSha256: string;
}

/** An open big part of the cache. The caller closes the handle. */
export interface CachedBigPart {
  readonly handle: FileHandle;
  /** Bytes. */
  readonly length: number;
  /** Unknown for files that another program put there. */
  readonly record: BigPartRecord | undefined;
}

/** Folder of the unfinished files, under the root. Resource folders may have this name too: their files end in .big. */
const PARTS_FOLDER = '.parts';
const PART_SUFFIX = '.part';
const MAX_NAME_BYTES = 255;
const MAX_RECORD_BYTES = 4096;
/** Errors of opening what can't be read as a copy. Others, such as too many open files, say nothing about it. */
const NOT_A_COPY: readonly string[] = ['EACCES', 'EPERM', 'ELOOP', 'EISDIR', 'ENXIO'];

/**
 * The big parts on disk: `<root>/<folder>/<name>.big`, as the original keeps them, and a record beside each.
 *
 * A file under its final name is whole. One that turns out to be bad is set aside as `<name>.big.bad`, where the next
 * bad one replaces it; nothing is served from there.
 */
export class BigPartCache {
  readonly #root: string;
  readonly #logger: Logger;
  /** The last change of each copy that is being changed. */
  readonly #turns = new Map<string, Promise<undefined>>();

  constructor(root: string, logger: Logger) {
    this.#root = root;
    this.#logger = logger;
  }

  /** Keeps those apart who change the files of one copy: else one's record could stand beside another's file. */
  async #inTurn<T>(part: BigPartName, work: () => Promise<T>): Promise<T> {
    const key = `${part.folder}/${part.name}`;
    const earlier = this.#turns.get(key);
    const { promise: done, resolve: release } = Promise.withResolvers<undefined>();
    this.#turns.set(key, done);
    try {
      await earlier;
      return await work();
    } finally {
      release(undefined);
      if (this.#turns.get(key) === done) this.#turns.delete(key);
    }
  }

  /**
   * Opens the copy of a big part; undefined when there is none. What is there but can't be a copy (a folder, a symbolic
   * link, an unreadable file) is set aside.
   */
  async open(part: BigPartName): Promise<CachedBigPart | undefined> {
    let filePath: string;
    try {
      filePath = await this.#path(part, false);
    } catch (error) {
      if (systemErrorCode(error) !== 'ENOENT') this.#logger.warn({ err: error }, 'The cache is not used for this load');
      return undefined;
    }
    try {
      return await this.#openFile(filePath);
    } catch (error) {
      const code = systemErrorCode(error) ?? '';
      if (error instanceof LoaderError || NOT_A_COPY.includes(code)) await this.setAside(part, error);
      else if (code !== 'ENOENT') this.#logger.warn({ err: error }, 'The cache is not used for this load');
      return undefined;
    }
  }

  /** Moves a bad copy out of the way. It never throws: the caller has another source to turn to. */
  async setAside(part: BigPartName, reason: unknown): Promise<void> {
    await this.#inTurn(part, () => this.#setAside(part, reason));
  }

  async #setAside(part: BigPartName, reason: unknown): Promise<void> {
    try {
      const filePath = await this.#path(part, false);
      const badPath = fileName(part.name, '.big.bad');
      await rm(path.join(path.dirname(filePath), badPath), { recursive: true, force: true });
      await rename(filePath, path.join(path.dirname(filePath), badPath));
      await rm(recordPath(filePath), { force: true });
      this.#logger.warn({ err: reason, resource: part }, 'A bad copy in the cache was set aside');
    } catch (error) {
      if (systemErrorCode(error) === 'ENOENT') return;
      this.#logger.error({ err: error, resource: part }, 'A bad copy in the cache could not be set aside');
    }
  }

  /** Removes the copy of a big part that is no longer the present one. It never throws. */
  async remove(part: BigPartName): Promise<void> {
    await this.#inTurn(part, () => this.#remove(part));
  }

  async #remove(part: BigPartName): Promise<void> {
    try {
      const filePath = await this.#path(part, false);
      await rm(filePath, { force: true });
      await rm(recordPath(filePath), { force: true });
    } catch (error) {
      if (systemErrorCode(error) === 'ENOENT') return;
      this.#logger.error({ err: error, resource: part }, 'An outdated copy in the cache could not be removed');
    }
  }

  /** A new, empty file on the cache's file system. @throws LoaderError `cache_unusable` */
  async createPart(): Promise<PartFile> {
    try {
      await mkdir(path.join(this.#root, PARTS_FOLDER), { recursive: true });
      return await PartFile.create(this.#newPartPath());
    } catch (error) {
      throw cacheUnusable(error);
    }
  }

  /** Makes `file` the copy of a big part, in the place of an earlier one. @throws LoaderError `cache_unusable` */
  async publish(part: BigPartName, file: PartFile, record: BigPartRecord): Promise<void> {
    await this.#inTurn(part, () => this.#publish(part, file, record));
  }

  async #publish(part: BigPartName, file: PartFile, record: BigPartRecord): Promise<void> {
    const recordFile = await this.createPart();
    let replaced: string | undefined;
    try {
      const filePath = await this.#path(part, true);
      await recordFile.write(Buffer.from(JSON.stringify({ version: 1, ...record })), 0);
      // At no moment, were the power to fail at it, may an old file stand beside the new record: their lengths may be
      // the same. So the old file goes first, and a failure leaves no copy.
      await file.sync();
      replaced = await this.#takeAway(filePath);
      await syncFolder(path.dirname(filePath));
      await recordFile.publish(recordPath(filePath));
      await file.publish(filePath);
    } catch (error) {
      throw cacheUnusable(error);
    } finally {
      await recordFile.discard();
      await recordFile.close();
      if (replaced !== undefined) this.#removeInBackground(replaced);
    }
  }

  /** Removes unfinished files that an earlier process left behind. For the start, before the first load. */
  async removeLeftovers(): Promise<void> {
    const folder = path.join(this.#root, PARTS_FOLDER);
    try {
      const entries = await readdir(folder, { withFileTypes: true });
      const leftovers = entries.filter((entry) => entry.isFile() && entry.name.endsWith(PART_SUFFIX));
      await Promise.all(leftovers.map(async (entry) => rm(path.join(folder, entry.name), { force: true })));
      if (leftovers.length > 0) this.#logger.info({ files: leftovers.length }, 'Removed unfinished files of the cache');
    } catch (error) {
      if (systemErrorCode(error) !== 'ENOENT') this.#logger.warn({ err: error }, 'The cache could not be cleaned');
    }
  }

  async #path(part: BigPartName, create: boolean): Promise<string> {
    if (!isSafeSegment(part.name)) throw new LoaderError('cache_unusable', 'The name is not one of a cached file.');
    if (create) await mkdir(this.#root, { recursive: true });
    return path.join(await resolveFolderUnder(this.#root, part.folder, create), fileName(part.name, '.big'));
  }

  /** Takes an earlier file's name away, and answers the one that it has now; undefined when there is none. */
  async #takeAway(filePath: string): Promise<string | undefined> {
    const unwanted = this.#newPartPath();
    try {
      if ((await lstat(filePath)).isDirectory()) {
        throw new LoaderError('cache_unusable', 'A folder of other resources stands where the copy would be.');
      }
      await rename(filePath, unwanted);
      return unwanted;
    } catch (error) {
      if (systemErrorCode(error) === 'ENOENT') return undefined;
      throw error;
    }
  }

  /** Nobody waits for it: to free the blocks of a large file takes long, and so does every sync meanwhile. */
  #removeInBackground(unwanted: string): void {
    rm(unwanted, { force: true }).catch((error: unknown) => {
      this.#logger.warn({ err: error }, 'A replaced file of the cache could not be removed; the next start will');
    });
  }

  #newPartPath(): string {
    return path.join(this.#root, PARTS_FOLDER, randomUUID() + PART_SUFFIX);
  }

  async #openFile(filePath: string): Promise<CachedBigPart> {
    // Without O_NONBLOCK, opening a FIFO would wait for a writer.
    const handle = await open(filePath, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
    try {
      const stats = await handle.stat();
      if (!stats.isFile()) throw new LoaderError('cache_unusable', 'The copy in the cache is not a file.');
      const record = await readRecord(recordPath(filePath));
      if (record !== undefined && record.bigLength !== stats.size) {
        throw new LoaderError(
          'envelope_invalid',
          'The copy in the cache does not have the length that it was written with.',
        );
      }
      return { handle, length: stats.size, record };
    } catch (error) {
      await handle.close();
      throw error;
    }
  }
}

/** `name` with its suffix; by digest where that would be longer than file systems allow. */
function fileName(name: string, suffix: string): string {
  // The longest suffix decides, so that a resource's files share one form of its name.
  const isPlain = Buffer.byteLength(`${name}.big.json`, 'utf8') <= MAX_NAME_BYTES && !/^sha256-[\da-f]{64}$/.test(name);
  return (isPlain ? name : `sha256-${createHash('sha256').update(name, 'utf8').digest('hex')}`) + suffix;
}

function recordPath(filePath: string): string {
  return `${filePath}.json`;
}

/**
 * Without a record, a copy is judged by its envelope alone, as one of an older Loader is. So a record that is there must
 * be readable: it alone tells an outdated copy.
 */
async function readRecord(filePath: string): Promise<BigPartRecord | undefined> {
  let text: string;
  try {
    text = await readFile(filePath, 'utf8');
  } catch (error) {
    if (systemErrorCode(error) === 'ENOENT') return undefined;
    throw error;
  }
  const record = parseRecord(text);
  if (record === undefined) throw new LoaderError('cache_unusable', 'The record of a copy in the cache is damaged.');
  return record;
}

function parseRecord(text: string): BigPartRecord | undefined {
  if (text.length > MAX_RECORD_BYTES) return undefined;
  try {
    const record: unknown = JSON.parse(text);
    if (typeof record !== 'object' || record === null) return undefined;
    if (!('bigLength' in record) || typeof record.bigLength !== 'number') return undefined;
    if (!('smallSha256' in record) || typeof record.smallSha256 !== 'string') return undefined;
    return { bigLength: record.bigLength, smallSha256: record.smallSha256 };
  } catch {
    return undefined;
  }
}

function cacheUnusable(error: unknown): LoaderError {
  if (hasErrorCode(error, 'cache_unusable')) return error;
  const code = systemErrorCode(error);
  return new LoaderError('cache_unusable', `The cache could not be written${code ? ` (${code})` : ''}.`, {
    cause: error,
  });
}
