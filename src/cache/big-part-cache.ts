import { lstat, rm, unlink } from 'node:fs/promises';
import path from 'node:path';
import { NEVER } from '../async/abort.ts';
import { systemErrorCode } from '../errors.ts';
import { syncFolder } from '../files/folders.ts';
import type { DraftFile } from '../files/draft-file.ts';
import type { Logger } from '../log/logger.ts';
import type { ResourceName } from '../resource-name.ts';
import { listCacheEntries, type CacheEntry } from './cache-entry.ts';
import { isNotThere, toCacheError } from './cache-error.ts';
import { CacheRoom } from './cache-room.ts';
import { CopyFiles, isUnfit, removeCompanions, type OpenCopy } from './copy-files.ts';
import { placeKey, placeOf, placeOfFile } from './copy-paths.ts';
import type { CopyRecord } from './copy-record.ts';
import { CopyRecords } from './copy-records.ts';
import { CopyVerification, type DamagedChunks, type Verdict, type VerifyOptions } from './copy-verification.ts';
import { DeviceKey } from './device-key.ts';
import { DraftsFolder } from './drafts-folder.ts';
import { removeLegacyFiles } from './legacy-record.ts';

export type { CacheEntry, DamagedChunks, Verdict };

/** The load of a copy is noted when the last one that was noted is so long ago, in ms. */
const LOADED_PRECISION_MS = 60_000;

/**
 * The big parts on disk: `<root>/<folder>/<name>.big`, as the original Loader keeps them, and beside each copy its record.
 *
 * - A file under its final name is whole.
 * - A copy that turns out to be bad is moved to `<name>.big.bad`, where the next bad one replaces it. It is never served.
 * - A copy's modification time is that of its last load.
 */
export class BigPartCache {
  readonly #root: string;
  readonly #logger: Logger;
  readonly #files: CopyFiles;
  readonly #drafts: DraftsFolder;
  readonly #records: CopyRecords;
  readonly #verification: CopyVerification;
  readonly #room: CacheRoom;
  /** The number of readers of each copy that has any. */
  readonly #readers = new Map<string, number>();

  /** `stateDir` has the key that authenticates the records. Without `maxBytes`, the disk alone is the limit. */
  constructor(root: string, stateDir: string, logger: Logger, maxBytes?: number) {
    this.#root = root;
    this.#logger = logger;
    const key = new DeviceKey(stateDir, logger);
    this.#files = new CopyFiles(root, key, logger);
    this.#drafts = new DraftsFolder(root, logger);
    this.#records = new CopyRecords(this.#files, this.#drafts, key);
    this.#verification = new CopyVerification(this.#files, this.#records, logger);
    this.#room = new CacheRoom({
      root,
      maxBytes,
      list: (signal) => this.list(signal),
      remove: (entry) => this.removeUnlessHeld(entry),
      logger,
    });
  }

  /**
   * Opens the copy of a big part; undefined when there is none. What is there but can't be a copy (a symbolic link, an
   * unreadable file) is set aside. It never throws: the caller has another source.
   */
  async open(part: ResourceName): Promise<OpenCopy | undefined> {
    try {
      const place = placeOf(part);
      const copy = await this.#files.open(place);
      if (copy === undefined) return undefined;
      if (!isUnfit(copy)) {
        if (!copy.isRecorded) void this.#verification.makeRecord(place);
        return copy;
      }
      await using unfit = copy; // Open until it is set aside: no other file has its inode until then.
      await this.#files.setAside(place, unfit.reason, unfit.inode);
    } catch (error) {
      if (systemErrorCode(error) !== 'ENOENT') this.#logger.warn({ err: error }, 'The cache is not used for this load');
    }
    return undefined;
  }

  /**
   * Counts one reader of a big part, from its copy or from a transfer that publishes it. Until the disposal,
   * `removeUnlessHeld` leaves the copy: `using _hold = cache.hold(part)`.
   */
  hold(part: ResourceName): Disposable {
    const key = placeKey(placeOf(part));
    this.#readers.set(key, (this.#readers.get(key) ?? 0) + 1);
    let isHeld = true;
    return {
      [Symbol.dispose]: () => {
        if (!isHeld) return;
        isHeld = false;
        const others = (this.#readers.get(key) ?? 0) - 1;
        if (others > 0) this.#readers.set(key, others);
        else this.#readers.delete(key);
      },
    };
  }

  /** Notes that a copy is loaded now. It never throws: a missing note can only make an eviction come too early. */
  async markLoaded(copy: OpenCopy): Promise<void> {
    try {
      const now = Date.now();
      const { mtimeMs } = await copy.handle.stat();
      // The time never goes back: the clocks of some devices begin in 1970 at each start.
      if (now - mtimeMs < LOADED_PRECISION_MS) return;
      await copy.handle.utimes(now / 1000, now / 1000);
    } catch (error) {
      this.#logger.debug({ err: error }, 'A copy in the cache could not be marked as loaded');
    }
  }

  /**
   * Notes in the record of a copy that it belongs to its small part, and of which object it is. `copy` must still be open.
   * It never throws: without the note, the copy is proven again.
   */
  async markPair(part: ResourceName, copy: OpenCopy, pair: Pick<CopyRecord, 'etag' | 'smallSha256'>): Promise<void> {
    const place = placeOf(part);
    try {
      await this.#records.change(place, copy.inode, (record) => ({
        ...record,
        ...pair,
        bigLength: copy.length,
        isPair: true,
      }));
    } catch (error) {
      this.#logger.warn({ err: error, resource: part }, 'The record of a copy in the cache could not be written');
    }
  }

  /** Replaces the record of a copy, which must still be open. It never throws: the copy is then asked about again. */
  async replaceRecord(part: ResourceName, copy: OpenCopy, record: CopyRecord): Promise<void> {
    try {
      await this.#records.change(placeOf(part), copy.inode, () => record, part.name);
    } catch (error) {
      this.#logger.warn({ err: error, resource: part }, 'The record of a copy in the cache could not be written');
    }
  }

  /**
   * Writes bytes to their place in a copy that is open. They are those that its digests tell, so a copy that is cut off in
   * the middle of it is as damaged as it was.
   *
   * @throws the system's error
   */
  async writeBack(part: ResourceName, copy: OpenCopy, bytes: Buffer, position: number): Promise<void> {
    const place = placeOf(part);
    using _lock = await this.#files.lock(place);
    await this.#files.write(place, copy.inode, bytes, position);
  }

  /**
   * Moves a bad copy out of the way; with `copy`, which must still be open, only if that one is still the present one. It
   * never throws: the caller has another source.
   */
  async setAside(part: ResourceName, reason: unknown, copy?: OpenCopy): Promise<void> {
    await this.#files.setAside(placeOf(part), reason, copy?.inode);
  }

  /** Removes the copy of a big part that is no longer the present one. It never throws. */
  async remove(part: ResourceName): Promise<void> {
    const place = placeOf(part);
    using _lock = await this.#files.lock(place);
    try {
      const paths = await this.#files.find(place);
      await rm(paths.big, { force: true });
      await removeCompanions(paths);
    } catch (error) {
      if (systemErrorCode(error) === 'ENOENT') return;
      this.#logger.error({ err: error, resource: part }, 'An outdated copy in the cache could not be removed');
    }
  }

  /** All that takes room in the cache but drafts, in no particular order. @throws the reason of `signal` */
  list(signal: AbortSignal): AsyncGenerator<CacheEntry, void, undefined> {
    return listCacheEntries(this.#root, this.#logger, signal);
  }

  /**
   * Removes the file of an entry, and the record of a copy. A copy counts as held while it has a reader, and also
   * when it was loaded or replaced since it was listed.
   *
   * @throws LoaderError `cache_unusable`
   */
  async removeUnlessHeld(entry: CacheEntry): Promise<'removed' | 'held' | 'absent'> {
    const place = placeOfFile(entry.folder, entry.file, entry.kind);
    using _lock = await this.#files.lock(place);
    try {
      const paths = await this.#files.find(place);
      if (entry.kind === 'set_aside') {
        await unlink(paths.bad);
        return 'removed';
      }
      const stats = await lstat(paths.big);
      if (!stats.isFile()) return 'absent';
      if (Math.trunc(stats.mtimeMs) !== entry.loadedAtMs || stats.size !== entry.length) return 'held';
      // Between this look and the call of unlink, nothing else runs.
      if (this.#readers.has(placeKey(place))) return 'held';
      await unlink(paths.big); // Not rm, which takes a file that it may not remove for a folder.
      await removeCompanions(paths);
      return 'removed';
    } catch (error) {
      if (isNotThere(error)) return 'absent';
      throw toCacheError(error, 'written');
    }
  }

  /** Reads a copy whole and compares it with the digests of its record. @throws as `CopyVerification.verify` does */
  async verify(entry: CacheEntry, options: VerifyOptions): Promise<Verdict> {
    if (entry.kind !== 'copy') throw new Error('only copies can be verified');
    return await this.#verification.verify(placeOfFile(entry.folder, entry.file, 'copy'), options);
  }

  /** The record of a copy; undefined where it has none, or none that can be read. It never throws. */
  async recordOf({ folder, file }: Pick<CacheEntry, 'file' | 'folder'>): Promise<CopyRecord | undefined> {
    try {
      const place = placeOfFile(folder, file, 'copy');
      return (await this.#files.readRecord(place, await this.#files.find(place))).record;
    } catch {
      return undefined;
    }
  }

  /**
   * A new, empty file on the cache's file system. Where it is known how many bytes it will have, there is room for them.
   *
   * @throws LoaderError `cache_unusable`, `disk_full_ahead`
   */
  async createDraft(bytes?: number): Promise<DraftFile> {
    if (bytes !== undefined) await this.#room.make(bytes, NEVER);
    return await this.#drafts.create();
  }

  /**
   * Makes `draft` the copy of a big part, in the place of an earlier one.
   *
   * @throws LoaderError `cache_unusable`
   */
  async publish(part: ResourceName, draft: DraftFile, record: CopyRecord): Promise<void> {
    const place = placeOf(part);
    using _lock = await this.#files.lock(place);
    try {
      const paths = await this.#files.make(place);
      await using recordDraft = await this.#records.draft(place, record, part.name);
      // The old file must at no moment stand beside the new record, not even after a power cut: the lengths of both
      // versions may be the same. So the old file goes first, and a failure leaves no copy.
      await draft.sync();
      using _replaced = await this.#drafts.takeAway(paths.big);
      await removeLegacyFiles(paths.big);
      await syncFolder(path.dirname(paths.big));
      await recordDraft.publish(paths.record);
      await draft.publish(paths.big);
    } catch (error) {
      throw toCacheError(error, 'written');
    }
  }

  /** Removes unfinished files that an earlier process left behind. To be called before the first load. */
  async removeLeftovers(): Promise<void> {
    await this.#drafts.removeLeftovers();
  }
}
