import { lstat, rename, rm, unlink } from 'node:fs/promises';
import path from 'node:path';
import { LoaderError, systemErrorCode } from '../errors.ts';
import type { Logger } from '../logger.ts';
import { makeFolder, syncFolder } from '../files/folders.ts';
import type { DraftFile } from '../files/draft-file.ts';
import { CopyHolds } from './copy-holds.ts';
import { formatRecord, type CopyRecord } from './copy-record.ts';
import { isNotThere, toCacheError } from './cache-error.ts';
import { listCacheEntries, type CacheEntry } from './cache-entry.ts';
import { isAt, openCopy, type UnfitCopy, type OpenCopy } from './open-copy.ts';
import { checkCopy, type CheckOptions } from './copy-verification.ts';
import { formatSums, readSums, type ChunkDigests } from './chunk-digests.ts';
import { copyPaths, copyStem, isDigestStem, stemOf, type CopyPaths } from './copy-paths.ts';
import { DraftsFolder } from './drafts-folder.ts';
import { resolveFolderUnder } from './safe-folder.ts';
import { KeyedLock } from '../async/keyed-lock.ts';
import { isSafeSegment } from '../resource-name.ts';
import { NEVER } from '../async/abort.ts';

export type { CacheEntry };

/** Where a big part belongs. */
export interface BigPartName {
  readonly folder: string;
  /** Of the resource, without `.big`. */
  readonly name: string;
}

/** Where the files of a copy are. */
interface CopyPlace {
  readonly folder: string;
  /** Of the file names. */
  readonly stem: string;
}

/** A copy that was loaded is not marked again for so long, in ms. */
const LOADED_PRECISION_MS = 60_000;

/**
 * The big parts on disk: `<root>/<folder>/<name>.big`, as the original keeps them, and beside each its record and sums.
 *
 * A file under its final name is whole. One that turns out to be bad is set aside as `<name>.big.bad`, where the next
 * bad one replaces it; nothing is served from there. A copy's modification time tells when it was last loaded.
 */
export class BigPartCache {
  readonly #root: string;
  readonly #logger: Logger;
  readonly #parts: DraftsFolder;
  /** Keep those apart who change the files of one copy: else one's record could stand beside another's file. */
  readonly #turns = new KeyedLock();
  readonly #holds = new CopyHolds();
  /** Ends when the sums of all copies so far are made. */
  #sumsMade = Promise.resolve();

  constructor(root: string, logger: Logger) {
    this.#root = root;
    this.#logger = logger;
    this.#parts = new DraftsFolder(root, logger);
  }

  /**
   * Opens the copy of a big part; undefined when there is none. What is there but can't be a copy (a folder, a symbolic
   * link, an unreadable file) is set aside.
   */
  async open(part: BigPartName): Promise<OpenCopy | undefined> {
    try {
      const place = placeOf(part);
      const opened = await openCopy(await this.#paths(place, false));
      if (opened === undefined || !isBad(opened)) return opened;
      // Its handle is closed only then: until then no other file has its inode.
      await this.#setAside(place, opened.reason, opened.inode).finally(() => opened.handle?.close());
    } catch (error) {
      if (systemErrorCode(error) !== 'ENOENT') this.#logger.warn({ err: error }, 'The cache is not used for this load');
    }
    return undefined;
  }

  /**
   * Counts one reader of a big part, from its copy or from a transfer that publishes it. Until the disposal,
   * `removeUnlessHeld` leaves the copy: `using _hold = cache.hold(part)`.
   */
  hold(part: BigPartName): Disposable {
    return this.#holds.hold(placeKey(placeOf(part)));
  }

  /** Notes that a copy is loaded now. It never throws: that costs at most an eviction that comes too early. */
  async markLoaded(copy: OpenCopy): Promise<void> {
    try {
      const now = Date.now();
      const { mtimeMs } = await copy.handle.stat();
      // Never back: the clocks of devices may begin in 1970 at each start.
      if (now - mtimeMs < LOADED_PRECISION_MS) return;
      await copy.handle.utimes(now / 1000, now / 1000);
    } catch (error) {
      this.#logger.debug({ err: error }, 'A copy in the cache could not be marked as loaded');
    }
  }

  /**
   * Moves a bad copy out of the way; with `copy`, whose handle must still be open, only where that one still stands. It
   * never throws: the caller has another source to turn to.
   */
  async setAside(part: BigPartName, reason: unknown, copy?: OpenCopy): Promise<void> {
    await this.#setAside(placeOf(part), reason, copy?.inode);
  }

  /** `absent` when another one stands there by now, or none. */
  async #setAside(
    place: CopyPlace,
    reason: unknown,
    inode: bigint | undefined,
  ): Promise<'set_aside' | 'absent' | 'stuck'> {
    using _turn = await this.#turns.acquire(placeKey(place));
    try {
      const paths = await this.#paths(place, false);
      if (inode !== undefined && !(await isAt(paths.big, inode))) return 'absent';
      await rm(paths.bad, { recursive: true, force: true });
      await rename(paths.big, paths.bad);
      await removeSumsAndRecord(paths);
      this.#logger.warn({ err: reason, resource: place }, 'A bad copy in the cache was set aside');
      return 'set_aside';
    } catch (error) {
      if (systemErrorCode(error) === 'ENOENT') return 'absent';
      this.#logger.error({ err: error, resource: place }, 'A bad copy in the cache could not be set aside');
      return 'stuck';
    }
  }

  /** The verdict on a copy that is bad. @throws LoaderError `cache_unusable` when it could not be moved out of the way */
  async #condemn(place: CopyPlace, reason: unknown, inode: bigint): Promise<'bad' | 'absent'> {
    const outcome = await this.#setAside(place, reason, inode);
    if (outcome !== 'stuck') return outcome === 'set_aside' ? 'bad' : 'absent';
    throw new LoaderError('cache_unusable', 'A bad copy in the cache could not be set aside: it is still served.', {
      cause: reason,
    });
  }

  /** Removes the copy of a big part that is no longer the present one. It never throws. */
  async remove(part: BigPartName): Promise<void> {
    const place = placeOf(part);
    using _turn = await this.#turns.acquire(placeKey(place));
    try {
      const paths = await this.#paths(place, false);
      await rm(paths.big, { force: true });
      await removeSumsAndRecord(paths);
    } catch (error) {
      if (systemErrorCode(error) === 'ENOENT') return;
      this.#logger.error({ err: error, resource: part }, 'An outdated copy in the cache could not be removed');
    }
  }

  /** All that takes room in the cache, in no particular order; unfinished files are left out. @throws the signal's reason */
  list(signal: AbortSignal): AsyncGenerator<CacheEntry, void, undefined> {
    return listCacheEntries(this.#root, this.#logger, signal);
  }

  /**
   * Removes an entry's file, with record and sums where it is a copy. A copy counts as held while somebody reads it, and
   * also when it was loaded or replaced since it was listed.
   *
   * @throws LoaderError `cache_unusable`
   */
  async removeUnlessHeld(entry: CacheEntry): Promise<'removed' | 'held' | 'absent'> {
    const place = placeOfEntry(entry);
    using _turn = await this.#turns.acquire(placeKey(place));
    try {
      const paths = await this.#paths(place, false);
      if (entry.kind === 'set_aside') {
        await unlink(paths.bad);
        return 'removed';
      }
      const stats = await lstat(paths.big);
      if (!stats.isFile()) return 'absent';
      if (Math.trunc(stats.mtimeMs) !== entry.loadedAtMs || stats.size !== entry.length) return 'held';
      // From here to the removal's beginning nothing else runs.
      if (this.#holds.isHeld(placeKey(place))) return 'held';
      await unlink(paths.big); // Not rm, which takes a file that may not be removed for a folder.
      await removeSumsAndRecord(paths);
      return 'removed';
    } catch (error) {
      if (isNotThere(error)) return 'absent';
      throw toCacheError(error, 'written');
    }
  }

  /**
   * Reads a copy whole and compares it with its sums; a bad one is set aside. Where there are no sums, or damaged ones,
   * it makes them of the copy as it is: `recorded`. Sums are no reason to fetch a copy again that may well be good.
   *
   * It holds up nobody: not those who load or publish the copy meanwhile.
   *
   * @throws the signal's reason; LoaderError `cache_unusable` when something else than the copy is at fault, and when a bad
   * one can't be set aside
   */
  async verify(entry: CacheEntry, options: CheckOptions): Promise<'good' | 'recorded' | 'bad' | 'absent'> {
    if (entry.kind !== 'copy') throw new Error('only copies can be verified');
    return await this.#verify(placeOfEntry(entry), options);
  }

  async #verify(place: CopyPlace, options: CheckOptions): Promise<'good' | 'recorded' | 'bad' | 'absent'> {
    options.signal.throwIfAborted();
    try {
      const paths = await this.#paths(place, false);
      const opened = await openCopy(paths);
      if (opened === undefined) return 'absent';
      try {
        if (isBad(opened)) return await this.#condemn(place, opened.reason, opened.inode);
        return await this.#verifyOpen(place, paths, opened, options);
      } finally {
        await opened.handle?.close();
      }
    } catch (error) {
      options.signal.throwIfAborted();
      if (isNotThere(error)) return 'absent';
      throw toCacheError(error, 'read');
    }
  }

  async #verifyOpen(
    place: CopyPlace,
    paths: CopyPaths,
    copy: OpenCopy,
    options: CheckOptions,
  ): Promise<'good' | 'recorded' | 'bad' | 'absent'> {
    const sums = await readSums(paths.sums);
    let present: ChunkDigests;
    try {
      present = await checkCopy(copy, sums, options);
    } catch (error) {
      options.signal.throwIfAborted(); // Its reason may be a LoaderError too.
      if (!(error instanceof LoaderError)) throw error;
      return await this.#condemn(place, error, copy.inode);
    }
    if (sums === undefined) return (await this.#publishSums(place, copy, present)) ? 'recorded' : 'absent';
    return (await isAt(paths.big, copy.inode)) ? 'good' : 'absent';
  }

  /** False when another copy stands there by now. */
  async #publishSums(place: CopyPlace, copy: OpenCopy, sums: ChunkDigests): Promise<boolean> {
    using _turn = await this.#turns.acquire(placeKey(place));
    // Looked up again: while the copy was read, its folder may have been replaced by a link that leads out.
    const paths = await this.#paths(place, false);
    if (!(await isAt(paths.big, copy.inode))) return false;
    const file = await this.#parts.create();
    try {
      await file.write(Buffer.from(formatSums(sums)), 0);
      await file.publish(paths.sums);
      return true;
    } finally {
      await file.discard();
      await file.close();
    }
  }

  /**
   * One copy after the other, from what is still in memory of it. Nobody waits for it: to digest the bytes on their way
   * would make a load from the CDN take a third longer.
   */
  #makeSumsInBackground(place: CopyPlace): void {
    const options = { signal: NEVER, onBytes: () => undefined };
    this.#sumsMade = this.#sumsMade.then(async () => {
      try {
        await this.#verify(place, options);
      } catch (error) {
        this.#logger.warn({ err: error, resource: place }, 'The sums of a copy in the cache could not be made');
      }
    });
  }

  /** A new, empty file on the cache's file system. @throws LoaderError `cache_unusable` */
  async createDraft(): Promise<DraftFile> {
    return await this.#parts.create();
  }

  /** Makes `file` the copy of a big part, in the place of an earlier one. @throws LoaderError `cache_unusable` */
  async publish(part: BigPartName, file: DraftFile, record: CopyRecord): Promise<void> {
    const place = placeOf(part);
    const name = isDigestStem(place.stem) ? part.name : undefined;
    {
      using _turn = await this.#turns.acquire(placeKey(place));
      await this.#publish(place, file, formatRecord(record, name));
    }
    this.#makeSumsInBackground(place);
  }

  async #publish(place: CopyPlace, file: DraftFile, record: string): Promise<void> {
    const recordFile = await this.#parts.create();
    let replaced: string | undefined;
    try {
      const paths = await this.#paths(place, true);
      await recordFile.write(Buffer.from(record), 0);
      // At no moment, were the power to fail at it, may an old file stand beside the new record: their lengths may be
      // the same. So the old file goes first, with its sums, and a failure leaves no copy.
      await file.sync();
      replaced = await this.#parts.takeAway(paths.big);
      await rm(paths.sums, { force: true });
      await syncFolder(path.dirname(paths.big));
      await recordFile.publish(paths.record);
      await file.publish(paths.big);
    } catch (error) {
      throw toCacheError(error, 'written');
    } finally {
      await recordFile.discard();
      await recordFile.close();
      if (replaced !== undefined) this.#parts.removeInBackground(replaced);
    }
  }

  /** Removes unfinished files that an earlier process left behind. For the start, before the first load. */
  async removeLeftovers(): Promise<void> {
    await this.#parts.removeLeftovers();
  }

  async #paths({ folder, stem }: CopyPlace, create: boolean): Promise<CopyPaths> {
    if (!isSafeSegment(stem)) throw new LoaderError('cache_unusable', 'The name is not one of a cached file.');
    if (create) await makeFolder(this.#root);
    return copyPaths(await resolveFolderUnder(this.#root, folder, create), stem);
  }
}

function placeOf({ folder, name }: BigPartName): CopyPlace {
  return { folder, stem: copyStem(name) };
}

function placeOfEntry({ folder, file, kind }: CacheEntry): CopyPlace {
  const stem = stemOf(file, kind);
  if (stem === undefined) throw new LoaderError('cache_unusable', 'The name is not one of a cached file.');
  return { folder, stem };
}

function placeKey({ folder, stem }: CopyPlace): string {
  return `${folder}/${stem}`;
}

function isBad(opened: OpenCopy | UnfitCopy): opened is UnfitCopy {
  return 'reason' in opened;
}

async function removeSumsAndRecord(paths: CopyPaths): Promise<void> {
  await rm(paths.sums, { force: true });
  await rm(paths.record, { force: true });
}
