import { constants } from 'node:fs';
import { lstat, open, realpath, rename, rm, unlink, type FileHandle } from 'node:fs/promises';
import path from 'node:path';
import { KeyedLock } from '../async/keyed-lock.ts';
import { LoaderError, systemErrorCode } from '../errors.ts';
import { writeFully } from '../files/file-chunks.ts';
import { makeFolder, makeOneFolder } from '../files/folders.ts';
import { readSmallBytes, UnfitFileError } from '../files/small-file.ts';
import type { Logger } from '../log/logger.ts';
import { isSafeFolder, isSafeSegment } from '../resource-name.ts';
import { copyPaths, placeKey, type CopyPaths, type CopyPlace } from './copy-paths.ts';
import { MAX_ENVELOPE_LENGTH } from '../manifest/dsse-envelope.ts';
import { ManifestError } from '../manifest/manifest-error.ts';
import { parseRecord, type CopyRecord } from './copy-record.ts';
import type { DeviceKey } from './device-key.ts';
import { readLegacyRecord, removeLegacyFiles } from './legacy-record.ts';

/** An open big part of the cache. Its disposal closes it. */
export interface OpenCopy extends AsyncDisposable {
  readonly handle: FileHandle;
  /** Tells this file from another of the same name, while the handle is open: later the number may be used again. */
  readonly inode: bigint;
  /** Bytes of the whole big part. The file of one with digests may have lost its end. */
  readonly length: number;
  /** Undefined for files that another program put there. */
  readonly record: CopyRecord | undefined;
  /** Whether the copy has a record of today, with its digests. */
  readonly isRecorded: boolean;
}

/** What stands in the place of a copy and can't be one. Its disposal closes it. */
export interface UnfitCopy extends AsyncDisposable {
  readonly inode: bigint;
  readonly reason: unknown;
}

/** A file that is replaced while it is opened is opened again, at most so many times in all. */
const MAX_OPENINGS = 5;
/** Errors of opening what can't be read as a copy. Others, such as too many open files, say nothing about it. */
const NOT_A_COPY: readonly string[] = ['EACCES', 'EPERM', 'ELOOP', 'ENXIO'];

/**
 * The files of each copy, which are of one version. A method that changes them, and every caller that does so, holds the
 * copy's lock meanwhile: otherwise the record of one version could stand beside the file of another. A copy is opened
 * without the lock, and again when its file was replaced meanwhile.
 */
export class CopyFiles {
  readonly #root: string;
  readonly #key: DeviceKey;
  readonly #logger: Logger;
  readonly #locks = new KeyedLock();

  constructor(root: string, key: DeviceKey, logger: Logger) {
    this.#root = root;
    this.#key = key;
    this.#logger = logger;
  }

  /** `using _lock = await files.lock(place)`. */
  async lock(place: CopyPlace): Promise<Disposable> {
    return await this.#locks.acquire(placeKey(place));
  }

  /** The paths of a copy's files. @throws LoaderError `cache_unusable`; the system's error when there is no such folder */
  async find(place: CopyPlace): Promise<CopyPaths> {
    assertSafe(place);
    return copyPaths(await resolveFolder(this.#root, place.folder, false), place.stem);
  }

  /** The same where the folder may have to be made. @throws LoaderError `cache_unusable`; the system's error */
  async make(place: CopyPlace): Promise<CopyPaths> {
    assertSafe(place);
    await makeFolder(this.#root);
    return copyPaths(await resolveFolder(this.#root, place.folder, true), place.stem);
  }

  /**
   * Opens a copy with its own record; undefined when there is none. A folder in its place is none: it may be the folder of
   * other resources, since folders can have any name.
   *
   * @throws LoaderError `cache_unusable`; the system's error, also when there is no such folder
   */
  async open(place: CopyPlace): Promise<OpenCopy | UnfitCopy | undefined> {
    const paths = await this.find(place);
    try {
      for (let opening = 1; opening <= MAX_OPENINGS; opening++) {
        const stats = await lstat(paths.big, { bigint: true });
        if (stats.isDirectory()) return undefined;
        const copy = await this.#openPresent(place, paths, stats.ino);
        // The record may be another file's if a version was published meanwhile; then this file has lost its name.
        if (await isAt(paths.big, copy.inode)) return copy;
        await copy[Symbol.asyncDispose]();
      }
    } catch (error) {
      if (systemErrorCode(error) !== 'ENOENT') throw error;
    }
    return undefined;
  }

  /** Writes to the file of a copy, unless another one has taken its name. Its time of the last load stays. */
  async write(place: CopyPlace, inode: bigint, bytes: Buffer, position: number): Promise<void> {
    const { big } = await this.find(place);
    await using handle = await open(big, constants.O_WRONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
    const { ino, atime, mtime } = await handle.stat({ bigint: true });
    if (ino !== inode) return;
    await writeFully(handle, bytes, position);
    await handle.utimes(atime, mtime);
    await handle.datasync();
  }

  /**
   * Moves a bad copy to its `bad` path, where the next bad one replaces it. A folder is never moved or removed: it may be
   * that of other resources. Where one stands at the `bad` path, the bad copy is removed. With `inode`, only the file that has it: the
   * caller keeps that file open meanwhile, since the number could otherwise be another file's by then. It never throws.
   *
   * @returns `absent` when there is no such copy any more, `stuck` when it could not be moved and is still served
   */
  async setAside(place: CopyPlace, reason: unknown, inode?: bigint): Promise<'set_aside' | 'absent' | 'stuck'> {
    using _lock = await this.lock(place);
    try {
      const paths = await this.find(place);
      if (inode !== undefined && !(await isAt(paths.big, inode))) return 'absent';
      if ((await lstat(paths.big)).isDirectory()) return 'absent';
      if (await isFolder(paths.bad)) await unlink(paths.big);
      else await rename(paths.big, paths.bad);
      await removeCompanions(paths);
      this.#logger.warn({ err: reason, resource: place }, 'A bad copy in the cache was set aside');
      return 'set_aside';
    } catch (error) {
      if (systemErrorCode(error) === 'ENOENT') return 'absent';
      this.#logger.error({ err: error, resource: place }, 'A bad copy in the cache could not be set aside');
      return 'stuck';
    }
  }

  /**
   * The record of a copy, in today's form or that of an earlier version; undefined when there is none, as beside the copies
   * of an older Loader, or one of another device. A damaged record is an error, since only a record tells an outdated copy.
   *
   * @throws LoaderError `cache_unusable` when it is damaged; the system's error
   */
  async readRecord(place: CopyPlace, paths: CopyPaths): Promise<Pick<OpenCopy, 'isRecorded' | 'record'>> {
    try {
      const bytes = await readSmallBytes(paths.record, MAX_ENVELOPE_LENGTH);
      if (bytes === undefined) {
        const record = await readLegacyRecord(paths.big);
        if (record !== 'damaged') return { record, isRecorded: false };
      } else {
        const record = parseRecord(bytes, place, await this.#key.mac());
        return record === 'foreign'
          ? { record: undefined, isRecorded: false }
          : { record, isRecorded: record.chunks !== undefined };
      }
    } catch (error) {
      if (!(error instanceof ManifestError || error instanceof UnfitFileError)) throw error;
      throw damagedRecord(error);
    }
    throw damagedRecord();
  }

  async #openPresent(place: CopyPlace, paths: CopyPaths, presentInode: bigint): Promise<OpenCopy | UnfitCopy> {
    let handle: FileHandle | undefined;
    let inode = presentInode;
    try {
      // Without O_NONBLOCK, opening a FIFO would wait for a writer.
      handle = await open(paths.big, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
      const stats = await handle.stat({ bigint: true });
      inode = stats.ino;
      if (!stats.isFile()) throw new LoaderError('cache_unusable', 'The copy in the cache is not a file.');
      const present = Number(stats.size);
      const { record, isRecorded } = await this.readRecord(place, paths);
      const length = record?.bigLength ?? present;
      // What a copy has lost at its end is fetched again where its digests are known.
      if (present !== length && (present > length || record?.chunks === undefined)) {
        throw new LoaderError(
          'envelope_invalid',
          'The copy in the cache does not have the length that its record tells.',
        );
      }
      return { handle, inode, length, record, isRecorded, ...closing(handle) };
    } catch (error) {
      if (error instanceof LoaderError || NOT_A_COPY.includes(systemErrorCode(error) ?? '')) {
        return { inode, reason: error, ...closing(handle) };
      }
      await handle?.close();
      throw error;
    }
  }
}

/** `resolveFolder` sees to the folder. */
function assertSafe({ stem }: CopyPlace): void {
  if (!isSafeSegment(stem)) throw new LoaderError('cache_unusable', 'No copy of the cache can have this name.');
}

/**
 * The path of a folder under `root`, with symbolic links resolved.
 *
 * @throws LoaderError `cache_unusable` when it would lie outside of `root`; the system's error when it can't be made, or
 * when there is no such folder and `make` is false
 */
async function resolveFolder(root: string, folder: string, make: boolean): Promise<string> {
  if (!isSafeFolder(folder)) throw new LoaderError('cache_unusable', 'The folder is not a path within the cache.');
  const realRoot = await realpath(root);
  let current = realRoot;
  // Segment by segment: to make the whole path at once would make folders behind a symbolic link unseen.
  for (const segment of folder.split('/')) {
    const next = path.join(current, segment);
    if (make) await makeOneFolder(next);
    current = await realpath(next);
    if (current !== realRoot && !current.startsWith(realRoot + path.sep)) {
      throw new LoaderError('cache_unusable', 'A symbolic link in the cache points out of it.');
    }
  }
  return current;
}

async function isFolder(filePath: string): Promise<boolean> {
  const stats = await lstat(filePath).catch(() => undefined);
  return stats?.isDirectory() ?? false;
}

/** Removes the record of a copy that is gone. */
export async function removeCompanions(paths: CopyPaths): Promise<void> {
  await removeLegacyFiles(paths.big);
  await rm(paths.record, { force: true });
}

function damagedRecord(cause?: unknown): LoaderError {
  return new LoaderError('cache_unusable', 'The record of a copy in the cache is damaged.', { cause });
}

export function isUnfit(copy: OpenCopy | UnfitCopy): copy is UnfitCopy {
  return 'reason' in copy;
}

/** Nothing was written through the handle, so a failure to close it loses nothing. */
function closing(handle: FileHandle | undefined): AsyncDisposable {
  return {
    [Symbol.asyncDispose]: async () => {
      await handle?.close().catch(() => undefined);
    },
  };
}

/** Whether the file with this inode has this name now. */
export async function isAt(filePath: string, inode: bigint): Promise<boolean> {
  try {
    return (await lstat(filePath, { bigint: true })).ino === inode;
  } catch {
    return false;
  }
}
